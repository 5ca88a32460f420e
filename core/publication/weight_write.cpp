#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <span>
#include <tuple>
#include <utility>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/sha256.h"
#include "core/model/safetensors_layout.h"
#include "core/model/transformer.h"
#include "core/publication/weight_file.h"
#include "core/publication/weight_format.h"

namespace praetor {

namespace fs = std::filesystem;
namespace format = weight_format;

namespace {

/// A file in the making. Its lock tells keep_newest(), also another process's, that a writer lives.
class PendingWeights {
 public:
  explicit PendingWeights(const fs::path& folder) {
    static std::atomic<int64_t> made = 0;
    path_ = folder / str(format::kTemporary, ::getpid(), '.', ++made);
    struct stat info {};
    do {  // again when it was taken for a dead writer's before it could be locked
      if (fd_ >= 0) ::close(fd_);
      fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
      if (fd_ < 0) fail("make");
      ::flock(fd_, LOCK_EX);
      if (::fstat(fd_, &info) != 0) fail("stat");
    } while (info.st_nlink == 0);
  }
  ~PendingWeights() {
    if (!path_.empty()) ::unlink(path_.c_str());
    ::close(fd_);
  }
  PendingWeights(const PendingWeights&) = delete;
  PendingWeights& operator=(const PendingWeights&) = delete;

  void put(const void* bytes, size_t size, uint64_t at) {
    const char* from = static_cast<const char*>(bytes);
    while (size > 0) {
      const ssize_t done = ::pwrite(fd_, from, size, static_cast<off_t>(at));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) fail("write");
      from += done;
      at += static_cast<uint64_t>(done);
      size -= static_cast<size_t>(done);
    }
  }

  void commit(const fs::path& file, bool sync) {
    if (sync && ::fsync(fd_) != 0) fail("sync");
    if (::rename(path_.c_str(), file.c_str()) != 0) fail("rename");
    path_.clear();
    if (sync) fsync_directory(file.parent_path());
  }

 private:
  [[noreturn]] void fail(const char* verb) const {
    throw IoError("cannot ", verb, " ", path_.string(), ": ", std::strerror(errno));
  }

  fs::path path_;
  int fd_ = -1;
};

/// Writes a tensor's bytes and hashes them while they are in the cache.
std::string put_hashed(PendingWeights& out, const at::Tensor& tensor, uint64_t at) {
  constexpr size_t kPiece = size_t{256} << 10;
  const at::Tensor bytes = tensor.detach().cpu().contiguous();
  auto rest = std::span(static_cast<const std::byte*>(bytes.const_data_ptr()), bytes.nbytes());
  Sha256 digest;
  while (!rest.empty()) {
    const auto piece = rest.first(std::min(kPiece, rest.size()));
    digest.update(piece);
    out.put(piece.data(), piece.size(), at);
    at += piece.size();
    rest = rest.subspan(piece.size());
  }
  return digest.hex();
}

/// Removes a temporary unless its writer lives.
bool remove_stale(const fs::path& file) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool stale = ::flock(fd, LOCK_EX | LOCK_NB) == 0 && ::unlink(file.c_str()) == 0;
  ::close(fd);
  return stale;
}

/// The very weights have been written before, whole.
bool is_there(const WrittenWeights& wanted) {
  std::error_code failure;
  if (!fs::exists(wanted.file, failure)) return false;
  try {
    WeightFile::open(wanted.file, wanted.digest).verify();
    return true;
  } catch (const Error&) {
    return false;  // cut or damaged when its writer died: written again
  }
}

const std::vector<NamedTensor>& parameters_with_head(const Transformer& model) {
  model.head();  // throws for a model without one
  return model.parameters();
}

std::string hash_key(const std::string& name) {
  return std::string(format::kHashPrefix) + name;
}

}  // namespace

struct WeightFileWriter::Impl {
  Impl(const fs::path& where,
       const WeightStamp& of,
       std::vector<NamedTensor> tensors,
       format::Contents says,
       const WeightWriteOptions& with)
      : folder(where),
        stamp(of),
        contents(std::move(says)),
        options(with),
        forms(std::move(tensors)),
        out(where) {}

  fs::path folder;
  WeightStamp stamp;
  format::Contents contents;
  WeightWriteOptions options;
  std::vector<NamedTensor> forms;
  std::map<std::string, std::string> metadata;
  PendingWeights out;
  uint64_t head_bytes = 0, bytes = 0;
  std::map<std::string, uint64_t> places;
  std::map<std::string, format::TensorFacts> facts;  ///< of what has come
};

WeightFileWriter::WeightFileWriter(const fs::path& folder,
                                   const WeightStamp& stamp,
                                   const Transformer& model,
                                   const WeightWriteOptions& options)
    : WeightFileWriter(folder,
                       stamp,
                       parameters_with_head(model),
                       format::contents_of_weights(model.config().to_json()),
                       options) {}

WeightFileWriter::WeightFileWriter(const fs::path& folder,
                                   const WeightStamp& stamp,
                                   std::vector<NamedTensor> forms,
                                   const format::Contents& contents,
                                   const WeightWriteOptions& options) {
  if (stamp.lineage < 0 || stamp.step < 0) {
    throw InvalidArgument(
        "weights: lineage ", stamp.lineage, " and step ", stamp.step, " must be at least 0");
  }
  std::error_code failure;
  fs::create_directories(folder, failure);
  if (failure) throw IoError("cannot make the folder ", folder.string(), ": ", failure.message());
  impl_ = std::make_unique<Impl>(folder, stamp, std::move(forms), contents, options);
  Impl& my = *impl_;
  const std::string unknown(format::kHashDigits, '0');
  my.metadata = contents.metadata;
  my.metadata.merge(std::map<std::string, std::string>{{contents.kind, format::kVersion},
                                                       {"stage", std::to_string(stamp.stage)},
                                                       {"lineage", std::to_string(stamp.lineage)},
                                                       {"step", std::to_string(stamp.step)},
                                                       {"digest", unknown},
                                                       {"seal", unknown}});
  for (const NamedTensor& form : my.forms) my.metadata[hash_key(form.name)] = unknown;
  // The head is as long with the hashes as without them, so that the data can be written, and
  // hashed on the way, before it.
  const SafetensorsLayout layout = lay_out_safetensors(folder, my.forms, my.metadata);
  for (size_t i = 0; i < layout.order.size(); ++i)
    my.places[layout.order[i]->name] = layout.offsets[i];
  my.head_bytes = layout.head.size();
  my.bytes = layout.bytes;
}

WeightFileWriter::~WeightFileWriter() = default;

void WeightFileWriter::put(std::span<const NamedTensor> tensors) {
  Impl& my = *impl_;
  std::vector<uint64_t> sizes;
  for (const NamedTensor& named : tensors) {
    PRAETOR_CHECK(my.places.contains(named.name) && !my.facts.contains(named.name),
                  "weights: ",
                  named.name,
                  " twice, or not of the model");
    sizes.push_back(named.tensor.nbytes());
  }
  const std::vector<size_t> order = format::largest_first(sizes);
  std::vector<std::string> hashes(tensors.size());
  format::run_parallel(my.options.threads, order.size(), [&](size_t i) {
    const NamedTensor& named = tensors[order[i]];
    hashes[order[i]] = put_hashed(my.out, named.tensor, my.places.at(named.name));
  });
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor& tensor = tensors[i].tensor;
    my.facts[tensors[i].name] = {tensor.scalar_type(), tensor.sizes().vec(), hashes[i]};
    my.metadata[hash_key(tensors[i].name)] = hashes[i];
  }
}

WrittenWeights WeightFileWriter::commit() {
  Impl& my = *impl_;
  PRAETOR_CHECK(my.facts.size() == my.forms.size(), "weights: not all tensors were given");
  WrittenWeights written;
  written.digest = format::digest_of(my.facts, my.contents);
  written.bytes = static_cast<int64_t>(my.bytes);
  written.file = my.folder / format::file_name(my.stamp, written.digest);
  my.metadata["digest"] = written.digest;
  my.metadata["seal"] = format::seal_of(my.stamp, written.digest, my.contents);
  if (my.options.keep_equal && is_there(written)) return written;
  const SafetensorsLayout layout = lay_out_safetensors(my.folder, my.forms, my.metadata);
  PRAETOR_CHECK(layout.head.size() == my.head_bytes, "heads of one length");
  my.out.put(layout.head.data(), layout.head.size(), 0);
  my.out.commit(written.file, my.options.sync);
  return written;
}

WrittenWeights write_weight_file(const fs::path& folder,
                                 const WeightStamp& stamp,
                                 const Transformer& model,
                                 const WeightWriteOptions& options) {
  WeightFileWriter out(folder, stamp, model, options);
  out.put(model.parameters());
  return out.commit();
}

int64_t keep_newest(const fs::path& folder, uint32_t stage, int64_t keep) {
  if (keep < 1) throw InvalidArgument("weights: ", keep, " files to keep, at least 1");
  std::vector<std::pair<WeightStamp, fs::path>> ours;
  int64_t removed = 0;
  std::error_code failure;
  const auto remove = [&](const fs::path& file) {
    removed += fs::remove(file, failure) ? 1 : 0;
    if (failure) throw IoError("cannot remove ", file.string(), ": ", failure.message());
  };
  if (!fs::exists(folder, failure)) return 0;
  std::vector<fs::path> found;
  for (fs::directory_iterator at(folder, failure), end; !failure && at != end;
       at.increment(failure)) {
    found.push_back(at->path());
  }
  if (failure) throw IoError("cannot list ", folder.string(), ": ", failure.message());
  for (const fs::path& file : found) {
    const std::string name = file.filename().string();
    if (name.starts_with(format::kTemporary)) {
      removed += remove_stale(file) ? 1 : 0;
    } else if (const auto stamp = format::stamp_of(name)) {
      if (stamp->stage < stage) remove(file);
      if (stamp->stage == stage) ours.emplace_back(*stamp, file);
    }
  }
  std::sort(ours.begin(), ours.end(), [](const auto& a, const auto& b) {
    return std::tie(a.first.lineage, a.first.step, a.second) >
           std::tie(b.first.lineage, b.first.step, b.second);
  });
  for (size_t i = static_cast<size_t>(keep); i < ours.size(); ++i) remove(ours[i].second);
  return removed;
}

}  // namespace praetor
