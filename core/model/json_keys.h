#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

/// Reads typed keys of one JSON object; a key that is null counts as absent, as in transformers.
class JsonKeys {
 public:
  JsonKeys(const std::filesystem::path& file, std::string prefix, const nlohmann::json& object)
      : file_(file), prefix_(std::move(prefix)), object_(object) {}

  template <typename... Args>
  [[noreturn]] void fail(const char* key, const Args&... args) const {
    throw DataError(file_.string(), ": ", prefix_, key, ": ", args...);
  }
  bool has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }
  bool present(const char* key) const { return object_.contains(key); }  ///< null counts too
  const nlohmann::json& at(const char* key) const {
    if (!has(key)) fail(key, "is missing");
    return object_[key];
  }
  int64_t size(const char* key, int64_t high) const {
    const nlohmann::json& value = at(key);
    if (!value.is_number_integer() ||
        (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t(high)) ||
        value.get<int64_t>() < 1 || value.get<int64_t>() > high) {
      fail(key, text(value), " is not a whole number from 1 to ", high);
    }
    return value.get<int64_t>();
  }
  /// A whole number from 0.
  int64_t count(const char* key, int64_t high) const { return at(key) == 0 ? 0 : size(key, high); }
  double positive(const char* key, double missing) const {
    if (!has(key)) return missing;
    const nlohmann::json& value = at(key);
    if (!value.is_number() || !(value.get<double>() > 0) || !std::isfinite(value.get<double>())) {
      fail(key, text(value), " is not a number above 0");
    }
    return value.get<double>();
  }
  double positive(const char* key) const {
    at(key);
    return positive(key, 0);
  }
  bool flag(const char* key, bool missing) const {
    if (!has(key)) return missing;
    if (!at(key).is_boolean()) fail(key, text(at(key)), " is neither true nor false");
    return at(key).get<bool>();
  }
  std::string word(const char* key, const std::string& missing) const {
    if (!has(key)) return missing;
    if (!at(key).is_string()) fail(key, text(at(key)), " is not a string");
    return at(key).get<std::string>();
  }
  /// A token id, or a list of them; negative ids (old writers' "none") are left out.
  std::vector<int64_t> tokens(const char* key) const {
    std::vector<int64_t> out;
    if (!has(key)) return out;
    const nlohmann::json list = at(key).is_array() ? at(key) : nlohmann::json::array({at(key)});
    for (const nlohmann::json& value : list) {
      if (!value.is_number_integer()) fail(key, text(value), " is not a token id");
      if (value.get<int64_t>() >= 0) out.push_back(value.get<int64_t>());
    }
    return out;
  }
  std::optional<int64_t> token(const char* key) const {
    const auto all = tokens(key);
    return all.empty() ? std::nullopt : std::optional(all.front());
  }
  static std::string text(const nlohmann::json& value) {
    return printable(value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }

 private:
  const std::filesystem::path& file_;
  std::string prefix_;
  const nlohmann::json& object_;
};

}  // namespace praetor
