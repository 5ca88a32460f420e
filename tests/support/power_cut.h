#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "core/base/file_layer.h"

namespace praetor::testing {

/// One call that a file layer was asked for, or a mark of the test's. Files and folders go by
/// numbers, as names change; the root is 0.
struct FileOperation {
  enum class Kind { kEnter, kRemove, kRename, kExchange, kWrite, kSyncFile, kSyncFolder, kMark };
  Kind kind = Kind::kMark;
  int64_t folder = 0;  ///< that has the names; of kSyncFolder itself
  std::string name;    ///< kRename, kExchange: the first
  std::string other;   ///< kRename, kExchange: the second; kMark: its text
  int64_t node = 0;    ///< what the name stands for
  std::string bytes;   ///< kWrite
  uint64_t at = 0;     ///< kWrite
};

/// Does what is asked of it below `root`, and writes it down. Any thread.
class RecordingFiles final : public FileLayer {
 public:
  /// @param root  an empty folder, which is taken as durable itself
  explicit RecordingFiles(std::filesystem::path root);

  /// Notes that the test has come to a point.
  void mark(const std::string& text);

  struct Node {
    enum class Kind { kFile, kFolder, kLink } kind = Kind::kFile;
    std::string target;  ///< of a link
  };
  const std::vector<FileOperation>& operations() const { return operations_; }
  const std::vector<Node>& nodes() const { return nodes_; }

  int create(const std::filesystem::path& file) override;
  ssize_t write_at(int fd, const void* bytes, size_t size, uint64_t at) override;
  int sync(int fd) override;
  int close(int fd) override;
  int sync_folder(const std::filesystem::path& folder) override;
  int make_folder(const std::filesystem::path& folder) override;
  int link(const std::filesystem::path& target, const std::filesystem::path& name) override;
  int rename(const std::filesystem::path& from, const std::filesystem::path& to) override;
  int exchange(const std::filesystem::path& one, const std::filesystem::path& other) override;
  int remove_file(const std::filesystem::path& file) override;
  int remove_folder(const std::filesystem::path& folder) override;

 private:
  struct Place {
    int64_t folder = 0;
    std::string name;
  };
  Place place_of(const std::filesystem::path& path) const;
  int64_t node_at(const Place& place) const;
  void enter(const Place& place, Node node);
  int remove(const std::filesystem::path& path, int result);

  std::filesystem::path root_;
  std::mutex mutex_;
  std::vector<FileOperation> operations_;
  std::vector<Node> nodes_ = {{.kind = Node::Kind::kFolder}};
  std::map<int64_t, std::map<std::string, int64_t>> entries_;  ///< of each folder, now
  std::map<int, int64_t> open_;
};

/// What a power cut leaves of what was not synced. A name that was entered, removed, renamed or
/// exchanged is safe once its folder was synced, written bytes once their file was; the rest may
/// have reached the disk or not, in any combination.
enum class Survival {
  kNothing,   ///< none of it
  kAll,       ///< all of it
  kNames,     ///< all names, no bytes: files of the right name and length, full of zeros
  kBytes,     ///< all bytes, no names
  kInOrder,   ///< of each file and folder the first few, the last write perhaps torn
  kArbitrary  ///< any, each write whole, torn or absent
};

/// Makes in the empty folder `to` what a power cut after the first `count` operations may leave.
/// @param forgotten  kSyncFile or kSyncFolder: a disk on which these do nothing
void replay_power_cut(const RecordingFiles& recorded,
                      size_t count,
                      Survival survival,
                      uint64_t seed,
                      const std::filesystem::path& to,
                      FileOperation::Kind forgotten = FileOperation::Kind::kMark);

}  // namespace praetor::testing
