#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/rpc/convert.h"
#include "core/base/error.h"
#include "core/base/str.h"
#include "core/base/text.h"

namespace praetor::rpc {

/// Checks of single fields, each naming the field it refuses.

template <typename... Args>
[[noreturn]] void refuse(std::string_view field, const Args&... what) {
  throw InvalidArgument(field, ": ", what...);
}

/// Runs `convert`; what it refuses is named as a part of `field`.
template <typename Convert>
auto in_field(std::string_view field, Convert&& convert) {
  try {
    return convert();
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(field, ".", error.what());
  }
}

inline int64_t within(std::string_view field,
                      int64_t value,
                      int64_t low,
                      int64_t high = std::numeric_limits<int64_t>::max()) {
  if (value >= low && value <= high) return value;
  if (high == std::numeric_limits<int64_t>::max()) refuse(field, value, " is below ", low);
  refuse(field, value, " is outside [", low, ", ", high, "]");
}

inline double finite(std::string_view field, double value) {
  if (!std::isfinite(value)) refuse(field, value, " is not a finite number");
  return value;
}

inline void check_count(std::string_view field, int64_t count, int64_t limit = kMaxItems) {
  if (count > limit) refuse(field, count, " items, ", limit, " are the most");
}

/// A name of ours: UTF-8 (the wire demands it of `string`), not too long.
inline const std::string& name_field(std::string_view field,
                                     const std::string& name,
                                     bool may_be_empty = false) {
  if (name.empty() && !may_be_empty) refuse(field, "is empty");
  if (name.size() > kMaxName) refuse(field, name.size(), " bytes, ", kMaxName, " are the most");
  if (!is_utf8(name)) refuse(field, "is not UTF-8");
  return name;
}

template <typename Repeated>
std::vector<std::string> names_from(std::string_view field, const Repeated& from) {
  check_count(field, from.size());
  std::vector<std::string> to;
  for (const std::string& name : from) to.push_back(name_field(field, name));
  return to;
}

/// A path below the run directory, and nowhere else. Bytes need not be UTF-8.
inline const std::string& path_field(std::string_view field, const std::string& path) {
  if (path.empty()) refuse(field, "is empty");
  if (path.size() > kMaxPath) refuse(field, path.size(), " bytes, ", kMaxPath, " are the most");
  if (path.find('\0') != std::string::npos) refuse(field, "holds a zero byte");
  const std::filesystem::path parts(path);
  if (parts.is_absolute() || std::ranges::find(parts, "..") != parts.end())
    refuse(field, printable(path), " leads out of the run directory");
  return path;
}

/// Sizes of vectors that belong together.
inline void same_length(std::string_view field, int64_t size, int64_t tokens, bool may_be_empty) {
  if (size == tokens || (may_be_empty && size == 0)) return;
  refuse(field, size, " values for ", tokens, " tokens");
}

template <typename Repeated>
std::vector<int64_t> tokens_from(std::string_view field, const Repeated& from) {
  check_count(field, from.size(), kMaxTokens);
  std::vector<int64_t> to(from.begin(), from.end());
  for (size_t i = 0; i < to.size(); ++i)
    if (to[i] > std::numeric_limits<int32_t>::max())
      refuse(field, "token ", i, " is ", to[i], ", which is not below 2^31");
  return to;
}

template <typename Repeated>
void tokens_to(std::string_view field, const std::vector<int64_t>& from, Repeated* to) {
  check_count(field, static_cast<int64_t>(from.size()), kMaxTokens);
  to->Reserve(static_cast<int>(from.size()));
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i] < 0 || from[i] > std::numeric_limits<int32_t>::max())
      refuse(field, "token ", i, " is ", from[i], ", which is outside [0, 2^31)");
    to->AddAlreadyReserved(static_cast<uint32_t>(from[i]));
  }
}

/// Messages of a list, one after the other; what one refuses is named "field[3].…".
template <typename To, typename Repeated>
std::vector<To> list_from(std::string_view field, const Repeated& from) {
  check_count(field, from.size());
  std::vector<To> to;
  to.reserve(static_cast<size_t>(from.size()));
  for (int i = 0; i < from.size(); ++i) {
    try {
      to.push_back(from_proto(from.Get(i)));
    } catch (const InvalidArgument& error) {
      throw InvalidArgument(field, "[", i, "].", error.what());
    }
  }
  return to;
}

template <typename From, typename Repeated>
void list_to(const std::vector<From>& from, Repeated* to) {
  to->Reserve(static_cast<int>(from.size()));
  for (const From& item : from) to_proto(item, to->Add());
}

inline std::vector<float> floats(const google::protobuf::RepeatedField<float>& from) {
  return {from.begin(), from.end()};
}

inline std::chrono::milliseconds milliseconds(std::string_view field, int64_t value) {
  constexpr int64_t kYear = int64_t{366} * 24 * 3600 * 1000;
  return std::chrono::milliseconds(within(field, value, 0, kYear));
}

}  // namespace praetor::rpc
