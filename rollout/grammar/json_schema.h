#pragma once

#include <nlohmann/json_fwd.hpp>

#include "rollout/grammar/expression.h"

namespace praetor::grammar {

/// How deep arrays and objects may lie in one another where a schema does not say what is in them.
constexpr int kAnyJsonDepth = 5;

/// The JSON texts that meet a schema (JSON Schema, draft 2020-12), as a regular language.
///
///   type       string number integer boolean null object array, or a list of these
///   string     minLength maxLength, or pattern (a search, as JSON Schema has it; pattern.h)
///   object     properties, in the order given; required; additionalProperties: false, true, or,
///              without properties, a schema of all values. Other properties are never written.
///   array      items minItems maxItems
///   any        enum const anyOf $ref ("#/..." within the schema, not recursive) and $defs;
///              title description default examples $schema $id $comment deprecated readOnly
///              writeOnly say nothing
///
/// {} or true: any value, with arrays and objects at most kAnyJsonDepth deep. Numbers have at most
/// 16 digits before and behind the point and two in the exponent, so that a double holds them. One
/// space may stand behind a comma or colon, none elsewhere.
///
/// @throws InvalidArgument "#/properties/age/minimum: ..." for all else
ExpressionPtr schema_expression(const nlohmann::ordered_json& schema);

}  // namespace praetor::grammar
