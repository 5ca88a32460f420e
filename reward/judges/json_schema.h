#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "core/base/deadline.h"

namespace praetor {

/// A JSON Schema of the keywords type, enum, const, properties, required, additionalProperties,
/// items, minItems, maxItems, minLength, maxLength (code points), pattern (PCRE2, found anywhere),
/// minimum, maximum, exclusiveMinimum and exclusiveMaximum, with the meaning of draft 2020-12;
/// $schema, $id, $comment, title, description, default and examples say nothing. Immutable; any
/// thread.
class JsonSchema {
 public:
  /// @throws DataError "schema /items: unknown keyword "oneOf"", for any other keyword, a value
  /// that a keyword cannot have, and more than 64 levels
  explicit JsonSchema(const nlohmann::json& schema);
  ~JsonSchema();
  JsonSchema(JsonSchema&&) noexcept;
  JsonSchema& operator=(JsonSchema&&) noexcept;

  /// The first thing wrong with a value, "/items/0: 3 is not of type string"; empty when nothing
  /// is.
  /// @throws TimeoutError; RegexLimitError
  std::string violation(const nlohmann::json& value, const Deadline& deadline) const;

  struct Rules;  // implementation

 private:
  std::unique_ptr<const Rules> rules_;
};

}  // namespace praetor
