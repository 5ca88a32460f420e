#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"

namespace praetor::grammar {

/// @throws InvalidArgument "#/properties/age: ..."
template <typename... Args>
[[noreturn]] void refuse_schema(const std::string& at, const Args&... what) {
  throw InvalidArgument(at, ": ", what...);
}

/// The JSON pointer of a member.
std::string pointer_below(const std::string& at, const std::string& key);

/// True for keywords that say nothing of a value.
bool is_silent(std::string_view keyword);
const std::vector<std::string>& silent_keywords();

/// Whether the value is of the type that a schema names.
bool has_type(const nlohmann::ordered_json& value, const std::string& type);

/// A schema without allOf, anyOf, oneOf and $ref beside other keywords.
struct SchemaPart {
  nlohmann::ordered_json schema;
  std::string at;                          ///< its JSON pointer, for complaints
  std::vector<std::string> followed = {};  ///< references on the way to it
  int depth = 0;                           ///< schemas that it lies in
};

/// Takes schemas apart: each is a choice of parts, and what allOf (or keywords beside one another)
/// asks for together becomes one schema. One thread.
class SchemaParts {
 public:
  /// `root` is borrowed.
  explicit SchemaParts(const nlohmann::ordered_json& root) : root_(root) {}

  /// The choices of `whole`, one and more. Those of oneOf are held to be apart: no value can meet
  /// two. @throws InvalidArgument where that does not show, for keywords that cannot be held
  /// together, for references that lead nowhere or back, and when no value meets it all
  std::vector<SchemaPart> of(const SchemaPart& whole) const;

 private:
  SchemaPart target(const SchemaPart& reference) const;
  std::vector<SchemaPart> listed(const SchemaPart& whole, const char* keyword) const;
  bool apart(const SchemaPart& a, const SchemaPart& b, int depth) const;
  bool properties_apart(const SchemaPart& a, const SchemaPart& b, int depth) const;

  const nlohmann::ordered_json& root_;
  mutable int64_t taken_ = 0;  ///< schemas taken apart
};

}  // namespace praetor::grammar
