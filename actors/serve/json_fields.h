#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"

namespace praetor::serve {

/// The fields of a JSON request, each read once by its name; null is as good as absent. All
/// complaints are ApiError and name the field.
class JsonFields {
 public:
  /// @throws ApiError when `body` is no JSON object
  explicit JsonFields(const std::string& body);
  JsonFields(const nlohmann::json& object, std::string where);

  bool has(const std::string& name);
  /// Of any form; null when it is absent.
  const nlohmann::json& value(const std::string& name);
  std::optional<double> number(const std::string& name, const Range& range);
  std::optional<int64_t> integer(const std::string& name, const Range& range);
  bool flag(const std::string& name, bool otherwise);
  std::optional<std::string> text(const std::string& name);
  /// A string, or a list of them.
  std::vector<std::string> texts(const std::string& name);
  /// A list of token ids; empty when it is absent.
  std::vector<int64_t> token_ids(const std::string& name);
  /// Fields that change nothing here.
  void ignore(std::initializer_list<const char*> names);
  /// Fields that would change the answer: they may be given as null, false or empty only.
  void refuse(std::initializer_list<const char*> names);
  void reject_unknown() const;
  [[noreturn]] void fail(const std::string& name, const std::string& complaint) const;

 private:
  nlohmann::json object_;
  std::string where_;  ///< "messages[2].", before a field's name
  std::set<std::string> known_;
};

/// @throws ApiError naming `where` when `list` is not a list of token ids
std::vector<int64_t> token_ids_of(const nlohmann::json& list, const std::string& where);

}  // namespace praetor::serve
