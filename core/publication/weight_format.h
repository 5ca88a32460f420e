#pragma once

#include <charconv>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/publication/published_file.h"

namespace praetor::weight_format {

/// What writer and reader of published files share; for this folder's sources.

inline constexpr const char* kVersion = "1";
inline constexpr const char* kVersionKey = "praetor.weights";
inline constexpr const char* kAdapterVersionKey = "praetor.adapter";
inline constexpr std::string_view kHashPrefix = "sha256:";
inline constexpr size_t kHashDigits = 64;

/// One tensor, as the digest sees it.
struct TensorFacts {
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  std::string sha256;
};

/// What a kind of file says in its header beside stamp, digest and hashes.
struct Contents {
  const char* kind = kVersionKey;               ///< key of its format's version
  const char* what = "config";                  ///< that the digest covers beside the tensors
  std::map<std::string, std::string> metadata;  ///< under keys of its own
  std::string digested;                         ///< of them, behind the tensors
  std::string sealed;                           ///< behind the digest in the seal
};
Contents contents_of_weights(const std::string& config);

std::string digest_of(const std::map<std::string, TensorFacts>& tensors, const Contents& contents);
std::string seal_of(const WeightStamp& stamp, std::string_view digest, const Contents& contents);

/// The metadata of a file; every key is taken once.
class Metadata {
 public:
  explicit Metadata(const SafetensorsFile& file) : path_(file.path()), rest_(file.metadata()) {}

  bool has(const std::string& key) const { return rest_.contains(key); }
  std::string take(const std::string& key);
  template <typename Number>
  Number number(const std::string& key) {
    const std::string text = take(key);
    Number out = 0;
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), out);
    if (failure != std::errc() || end != text.data() + text.size() || text[0] == '-')
      fail("metadata \"", key, "\": \"", printable(text), "\" is not a whole number from 0 up");
    return out;
  }
  /// Of files with `kind` among their keys, which hold `what`. @throws DataError for another one
  void take_version(const char* kind, const char* what);
  void done() const;
  template <typename... Args>
  [[noreturn]] void fail(const Args&... args) const {
    throw DataError(path_.string(), ": ", args...);
  }

 private:
  const std::filesystem::path& path_;
  std::map<std::string, std::string> rest_;
};

/// File name of finished weights.
std::string file_name(const WeightStamp& stamp, std::string_view digest);
/// The stamp in such a name; nothing for another name.
std::optional<WeightStamp> stamp_of(std::string_view file_name);
/// What every temporary's name begins and goes on with.
inline constexpr std::string_view kTemporary = ".weights.tmp.";

/// Calls task(0) .. task(count - 1), each once, on at most `threads` threads (0: as many as tensor
/// work uses). The first exception ends the hand-out and is thrown on.
void run_parallel(int threads, size_t count, const std::function<void(size_t)>& task);

/// Indices of `bytes` from the largest on, so that threads end at about the same time.
std::vector<size_t> largest_first(const std::vector<uint64_t>& bytes);

/// "[2, 3]"
std::string shape_text(at::IntArrayRef shape);

}  // namespace praetor::weight_format
