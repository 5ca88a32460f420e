#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/model/safetensors.h"

namespace praetor {

/// Which weights a file holds; the wire's WeightVersion without its digest.
struct WeightStamp {
  uint32_t stage = 0;   ///< index in the job
  int64_t lineage = 0;  ///< times that training went back to a checkpoint before these weights
  int64_t step = 0;     ///< updates they have seen
  bool operator==(const WeightStamp&) const = default;
};

struct WeightWriteOptions {
  int threads = 0;    ///< that hash and write, at most one a tensor; 0: those of tensor work
  bool sync = false;  ///< fsync; not needed for a version that a restart makes again
  /// A whole file of this name with the same weights stays as it is, so that whoever has it mapped
  /// goes on reading it, on a file system of another host too.
  bool keep_equal = false;
};

struct WrittenWeights {
  std::filesystem::path file;
  std::string digest;
  int64_t bytes = 0;  ///< of the file
};

namespace weight_format {
struct Contents;
struct TensorFacts;
class Metadata;
}  // namespace weight_format

/// What files of whole weights and of adapters have in common: mapped tensors with a hash each, a
/// stamp and a digest of it all. Opening reads the header alone; the tensors are hashed by
/// verify(). Stays readable when the file is removed or replaced (never cut) meanwhile. Copies
/// share the mapping. Const calls from any thread.
class PublishedFile {
 public:
  const std::filesystem::path& path() const { return tensors_.path(); }
  const WeightStamp& stamp() const { return stamp_; }
  const std::string& digest() const { return digest_; }
  int64_t tensor_bytes() const { return tensor_bytes_; }

  /// Hashes every tensor on `threads` threads (0: those of tensor work). Once it has succeeded,
  /// further calls do nothing. @throws DataError naming tensor, file and both hashes
  void verify(int threads = 0) const;

  /// A tensor's bytes in the file, [begin, end).
  struct Extent {
    std::string name;
    uint64_t begin = 0, end = 0;
  };
  /// Of every tensor, in the order of the file: for who hashes them as they come over a wire.
  std::vector<Extent> extents() const;
  /// verify() by hashes that the caller took, by tensor. @throws as verify()
  void verify_with(const std::map<std::string, std::string>& found) const;

 protected:
  explicit PublishedFile(SafetensorsFile tensors) : tensors_(std::move(tensors)) {}
  using Facts = std::map<std::string, weight_format::TensorFacts>;
  /// The rest of the header, behind what its kind of file has taken from `in`.
  /// @param digest  the one that is wanted; empty: any. @throws DataError
  Facts read_head(weight_format::Metadata& in,
                  const weight_format::Contents& contents,
                  std::string_view digest);
  /// @param release  what was hashed does not stay mapped in
  void verify(int threads, bool release) const;
  void check_hash(const std::string& name, const std::string& found) const;
  size_t tensor_count() const { return hashes_.size(); }

  SafetensorsFile tensors_;

 private:
  WeightStamp stamp_;
  std::string digest_;
  int64_t tensor_bytes_ = 0;
  std::map<std::string, std::string> hashes_;  // by tensor
  std::shared_ptr<std::atomic<bool>> verified_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace praetor
