#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "core/base/error.h"

namespace praetor {

/// Parses a JSON file. @throws MissingInput; DataError naming the file, line and column of broken
/// JSON, and JSON that is nested deeper than 64 levels or larger than 512 MiB.
nlohmann::json read_json_file(const std::filesystem::path& file);

/// A value of a JSON file that knows where it stands, so that every complaint begins "FILE: a.b[3]:
/// ". Borrows the document.
class JsonView {
 public:
  JsonView(const nlohmann::json& value, std::string where, std::string path = "")
      : value_(&value), where_(std::move(where)), path_(std::move(path)) {}

  template <typename... Args>
  [[noreturn]] void fail(const Args&... what) const {
    throw DataError(place(), ": ", what...);
  }

  const nlohmann::json& json() const { return *value_; }
  std::string place() const { return path_.empty() ? where_ : where_ + ": " + path_; }
  bool is_null() const { return value_->is_null(); }
  bool has(const std::string& key) const;     ///< a member that is not null
  JsonView at(const std::string& key) const;  ///< DataError when there is none
  JsonView child(const std::string& key, const nlohmann::json& value) const;
  JsonView element(size_t index) const;
  size_t size() const { return value_->size(); }

  const JsonView& object() const;  ///< itself, when it is an object
  const JsonView& array() const;   ///< itself, when it is an array
  std::string string() const;
  bool boolean() const;
  int64_t integer(int64_t lowest, int64_t highest) const;
  std::string string_or(const std::string& key, const std::string& otherwise) const;
  bool boolean_or(const std::string& key, bool otherwise) const;
  std::string type() const { return at("type").string(); }

 private:
  [[noreturn]] void wrong_type(std::string_view wanted) const;
  const nlohmann::json* value_;
  std::string where_;
  std::string path_;
};

}  // namespace praetor
