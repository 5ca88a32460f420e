#include "tests/support/power_cut.h"

#include <cerrno>
#include <fstream>
#include <functional>
#include <random>
#include <stdexcept>

namespace praetor::testing {

namespace fs = std::filesystem;

using Kind = FileOperation::Kind;

RecordingFiles::RecordingFiles(fs::path root) : root_(std::move(root)) {}

void RecordingFiles::mark(const std::string& text) {
  const std::lock_guard lock(mutex_);
  operations_.push_back({.kind = Kind::kMark, .other = text});
}

RecordingFiles::Place RecordingFiles::place_of(const fs::path& path) const {
  const fs::path relative = path.lexically_normal().lexically_relative(root_);
  if (relative.empty() || *relative.begin() == "..")
    throw std::logic_error(path.string() + " is not below the recorded folder");
  Place out;
  if (relative == ".") return {.folder = -1};
  for (const fs::path& part : relative.parent_path())
    out.folder = entries_.at(out.folder).at(part.string());
  out.name = relative.filename().string();
  return out;
}

int64_t RecordingFiles::node_at(const Place& place) const {
  return place.folder < 0 ? 0 : entries_.at(place.folder).at(place.name);
}

void RecordingFiles::enter(const Place& place, Node node) {
  const auto number = static_cast<int64_t>(nodes_.size());
  if (node.kind == Node::Kind::kFolder) entries_[number];
  nodes_.push_back(std::move(node));
  entries_[place.folder][place.name] = number;
  operations_.push_back(
      {.kind = Kind::kEnter, .folder = place.folder, .name = place.name, .node = number});
}

int RecordingFiles::create(const fs::path& file) {
  const std::lock_guard lock(mutex_);
  const Place place = place_of(file);
  // What a cut leaves of a file that was emptied without a sync is not in this model.
  if (entries_[place.folder].contains(place.name))
    throw std::logic_error(file.string() + " is there already");
  const int fd = posix_files().create(file);
  if (fd < 0) return fd;
  enter(place, {.kind = Node::Kind::kFile});
  open_[fd] = node_at(place);
  return fd;
}

ssize_t RecordingFiles::write_at(int fd, const void* bytes, size_t size, uint64_t at) {
  const std::lock_guard lock(mutex_);
  const ssize_t done = posix_files().write_at(fd, bytes, size, at);
  if (done > 0) {
    operations_.push_back(
        {.kind = Kind::kWrite,
         .node = open_.at(fd),
         .bytes = std::string(static_cast<const char*>(bytes), static_cast<size_t>(done)),
         .at = at});
  }
  return done;
}

int RecordingFiles::sync(int fd) {
  const std::lock_guard lock(mutex_);
  operations_.push_back({.kind = Kind::kSyncFile, .node = open_.at(fd)});
  return 0;  // nothing is at stake: the cut is played, not suffered
}

int RecordingFiles::close(int fd) {
  const std::lock_guard lock(mutex_);
  open_.erase(fd);
  return posix_files().close(fd);
}

int RecordingFiles::sync_folder(const fs::path& folder) {
  const std::lock_guard lock(mutex_);
  operations_.push_back({.kind = Kind::kSyncFolder, .folder = node_at(place_of(folder))});
  return 0;
}

int RecordingFiles::make_folder(const fs::path& folder) {
  const std::lock_guard lock(mutex_);
  const int result = posix_files().make_folder(folder);
  if (result == 0) enter(place_of(folder), {.kind = Node::Kind::kFolder});
  return result;
}

int RecordingFiles::link(const fs::path& target, const fs::path& name) {
  const std::lock_guard lock(mutex_);
  const int result = posix_files().link(target, name);
  if (result == 0) enter(place_of(name), {.kind = Node::Kind::kLink, .target = target.string()});
  return result;
}

int RecordingFiles::rename(const fs::path& from, const fs::path& to) {
  const std::lock_guard lock(mutex_);
  const Place old = place_of(from), fresh = place_of(to);
  if (old.folder != fresh.folder) throw std::logic_error("a rename between folders");
  const int result = posix_files().rename(from, to);
  if (result != 0) return result;
  const int64_t node = node_at(old);
  entries_[old.folder].erase(old.name);
  entries_[old.folder][fresh.name] = node;
  operations_.push_back({.kind = Kind::kRename,
                         .folder = old.folder,
                         .name = old.name,
                         .other = fresh.name,
                         .node = node});
  return result;
}

int RecordingFiles::exchange(const fs::path& one, const fs::path& other) {
  const std::lock_guard lock(mutex_);
  const Place a = place_of(one), b = place_of(other);
  if (a.folder != b.folder) throw std::logic_error("an exchange between folders");
  const int result = posix_files().exchange(one, other);
  if (result != 0) return result;
  std::swap(entries_[a.folder].at(a.name), entries_[a.folder].at(b.name));
  operations_.push_back(
      {.kind = Kind::kExchange, .folder = a.folder, .name = a.name, .other = b.name});
  return result;
}

int RecordingFiles::remove(const fs::path& path, int result) {
  if (result != 0) return result;
  const Place place = place_of(path);
  const int64_t node = node_at(place);
  entries_[place.folder].erase(place.name);
  operations_.push_back(
      {.kind = Kind::kRemove, .folder = place.folder, .name = place.name, .node = node});
  return result;
}

int RecordingFiles::remove_file(const fs::path& file) {
  const std::lock_guard lock(mutex_);
  return remove(file, posix_files().remove_file(file));
}

int RecordingFiles::remove_folder(const fs::path& folder) {
  const std::lock_guard lock(mutex_);
  return remove(folder, posix_files().remove_folder(folder));
}

namespace {

/// The disk after the cut.
struct Disk {
  std::map<int64_t, std::map<std::string, int64_t>> entries;
  std::map<int64_t, std::string> bytes;

  void apply(const FileOperation& one) {
    auto& names = entries[one.folder];
    switch (one.kind) {
      case Kind::kEnter:
        names[one.name] = one.node;
        break;
      case Kind::kRemove:
        if (const auto at = names.find(one.name); at != names.end() && at->second == one.node)
          names.erase(at);
        break;
      case Kind::kRename:
        if (const auto at = names.find(one.name); at != names.end() && at->second == one.node)
          names.erase(at);
        names[one.other] = one.node;
        break;
      case Kind::kExchange:
        // An entry that never reached the disk has nothing to exchange.
        if (names.contains(one.name) && names.contains(one.other))
          std::swap(names[one.name], names[one.other]);
        break;
      case Kind::kWrite: {
        std::string& file = bytes[one.node];
        if (file.size() < one.at + one.bytes.size()) file.resize(one.at + one.bytes.size());
        file.replace(one.at, one.bytes.size(), one.bytes);
        break;
      }
      default:
        break;
    }
  }
  /// The file's length is known, its bytes are not.
  void apply_zeros(FileOperation write) {
    write.bytes.assign(write.bytes.size(), '\0');
    apply(write);
  }
};

/// Applies what survives of operations that no sync has covered, all of one file or folder.
void apply_unsynced(const std::vector<FileOperation>& waiting,
                    Survival survival,
                    std::mt19937_64& random,
                    Disk& disk) {
  const auto draw = [&](size_t below) { return static_cast<size_t>(random() % below); };
  const auto torn = [&](FileOperation write) {
    write.bytes.resize(draw(write.bytes.size()));
    return write;
  };
  const size_t first = draw(waiting.size() + 1);
  for (size_t i = 0; i < waiting.size(); ++i) {
    const FileOperation& one = waiting[i];
    const bool write = one.kind == Kind::kWrite;
    switch (survival) {
      case Survival::kNothing:
        break;
      case Survival::kAll:
        disk.apply(one);
        break;
      case Survival::kNames:
        write ? disk.apply_zeros(one) : disk.apply(one);
        break;
      case Survival::kBytes:
        if (write) disk.apply(one);
        break;
      case Survival::kInOrder:
        if (i < first) disk.apply(one);
        if (i == first && write) disk.apply(torn(one));
        break;
      case Survival::kArbitrary: {
        const size_t lot = draw(write ? 4 : 2);
        if (lot == 0) disk.apply(one);
        if (lot == 2) disk.apply(torn(one));
        if (lot == 3) disk.apply_zeros(one);
        break;
      }
    }
  }
}

}  // namespace

void replay_power_cut(const RecordingFiles& recorded,
                      size_t count,
                      Survival survival,
                      uint64_t seed,
                      const fs::path& to,
                      Kind forgotten) {
  Disk disk;
  // By file and by folder, in the order of the calls.
  std::map<int64_t, std::vector<FileOperation>> writes, names;
  const auto settle = [&](std::vector<FileOperation>& waiting) {
    for (const FileOperation& one : waiting) disk.apply(one);
    waiting.clear();
  };
  for (size_t i = 0; i < count; ++i) {
    const FileOperation& one = recorded.operations()[i];
    if (one.kind == Kind::kMark || one.kind == forgotten) continue;
    if (one.kind == Kind::kSyncFile) {
      settle(writes[one.node]);
    } else if (one.kind == Kind::kSyncFolder) {
      settle(names[one.folder]);
    } else if (one.kind == Kind::kWrite) {
      writes[one.node].push_back(one);
    } else {
      names[one.folder].push_back(one);
    }
  }
  std::mt19937_64 random(seed);
  for (const auto& [node, waiting] : writes) apply_unsynced(waiting, survival, random, disk);
  for (const auto& [folder, waiting] : names) apply_unsynced(waiting, survival, random, disk);

  const std::function<void(int64_t, const fs::path&)> make = [&](int64_t folder,
                                                                 const fs::path& path) {
    for (const auto& [name, node] : disk.entries[folder]) {
      const auto& what = recorded.nodes()[static_cast<size_t>(node)];
      if (what.kind == RecordingFiles::Node::Kind::kFolder) {
        fs::create_directory(path / name);
        make(node, path / name);
      } else if (what.kind == RecordingFiles::Node::Kind::kLink) {
        fs::create_symlink(what.target, path / name);
      } else {
        std::ofstream(path / name, std::ios::binary) << disk.bytes[node];
      }
    }
  };
  make(0, to);
}

}  // namespace praetor::testing
