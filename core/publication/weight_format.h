#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/publication/weight_file.h"

namespace praetor::weight_format {

/// What writer and reader of weight files share; for this folder's sources.

inline constexpr const char* kVersion = "1";
inline constexpr const char* kVersionKey = "praetor.weights";
inline constexpr std::string_view kHashPrefix = "sha256:";
inline constexpr size_t kHashDigits = 64;

/// One tensor, as the digest sees it.
struct TensorFacts {
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  std::string sha256;
};

std::string digest_of(const std::map<std::string, TensorFacts>& tensors, std::string_view config);
std::string seal_of(const WeightStamp& stamp, std::string_view digest);

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

}  // namespace praetor::weight_format
