#pragma once

#include <nlohmann/json_fwd.hpp>

#include "rollout/grammar/expression.h"

namespace praetor::grammar {

/// How deep arrays and objects may lie in one another where a schema does not say what is in them.
constexpr int kAnyJsonDepth = 5;

/// The JSON texts that meet a schema (JSON Schema, draft 2020-12), as a regular language.
///
///   type       string number integer boolean null object array, or a list of these
///   string     minLength maxLength pattern (a search, as JSON Schema has it; pattern.h)
///   integer    minimum maximum exclusiveMinimum exclusiveMaximum, multipleOf up to 10,000
///   number     the same bounds; with multipleOf it is written as an integer
///   object     properties, in the order given; required; additionalProperties: false, true, or,
///              without properties, a schema of all values. Other properties are never written.
///   array      items minItems maxItems; prefixItems, behind which items are written only where
///              `items` says of what kind
///   any        enum const, with other keywords beside them that leave values out
///   together   allOf anyOf oneOf, $ref ("#/..." within the schema, not recursive) and $defs, also
///              beside other keywords; two patterns, or prefixItems and items, of one value are
///              refused. The choices of oneOf must be apart by types, const, enum, bounds, lengths
///              or a required property (schema_parts.h), so that it is anyOf
///   nothing    title description default examples $schema $id $comment deprecated readOnly
///              writeOnly are said of no value
///
/// {} or true: any value, with arrays and objects at most kAnyJsonDepth deep. Numbers have at most
/// 16 digits before and behind the point and two in the exponent, so that a double holds them;
/// within bounds fewer and no exponent (numbers.h). One space may stand behind a comma or colon,
/// none elsewhere.
///
/// @throws InvalidArgument "#/properties/age/format: ..." for all else, and where no text is left
ExpressionPtr schema_expression(const nlohmann::ordered_json& schema);

}  // namespace praetor::grammar
