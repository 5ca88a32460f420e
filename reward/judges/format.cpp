#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/bounded_regex.h"
#include "core/base/error.h"
#include "core/base/text.h"
#include "reward/judges/fields.h"
#include "reward/judges/json_schema.h"
#include "reward/judges/registry.h"
#include "reward/judges/text_tools.h"

namespace praetor {

namespace {

/// Passes when the response is JSON (RFC 8259), and satisfies a JSON Schema where one is given.
///   score = 1 or 0
struct FormatConfig {
  /// response: all of it; fence: what stands in its first ``` fence; either: the fence where there
  /// is one
  std::string part = "response";
  std::optional<Field> schema_field;  ///< a schema of the row, as JSON or as text
  Missing missing = Missing::kError;
};

class FormatJudge final : public Judge {
 public:
  FormatJudge(FormatConfig config, std::optional<JsonSchema> schema)
      : config_(std::move(config)),
        schema_(std::move(schema)),
        fence_("(*LF)(?ms)^[ \\t]*```[^\\n`]*\\n(.*?)^[ \\t]*```[ \\t]*$") {}

  Verdict judge(const Sample& sample, const Deadline& deadline) const override {
    std::optional<JsonSchema> own;
    if (config_.schema_field) {
      const auto given = config_.schema_field->json(sample);
      if (!given) return missing_field(*config_.schema_field, config_.missing);
      own = schema_of(*given);
    }
    const auto text = part_of(sample.response, deadline);
    if (!text) return failed("there is no code fence");
    nlohmann::json value;
    try {
      value = nlohmann::json::parse(*text);
    } catch (const nlohmann::json::exception& failure) {
      return failed(complaint(failure.what()));
    }
    const JsonSchema* schema = own ? &*own : schema_ ? &*schema_ : nullptr;
    const std::string violation = schema ? schema->violation(value, deadline) : "";
    if (!violation.empty()) return failed(violation);
    return {.score = 1.0, .passed = true, .reason = schema ? "satisfies the schema" : "JSON"};
  }

 private:
  static Verdict failed(std::string reason) {
    return {.score = 0.0, .passed = false, .reason = std::move(reason)};
  }

  /// The parser's message without its own name in front.
  static std::string complaint(std::string_view message) {
    if (const size_t end = message.find("] "); end != std::string_view::npos)
      message.remove_prefix(end + 2);
    return "not JSON: " + printable(message, 200);
  }

  JsonSchema schema_of(const nlohmann::json& given) const {
    try {
      return JsonSchema(
          given.is_string() ? nlohmann::json::parse(given.get_ref<const std::string&>()) : given);
    } catch (const nlohmann::json::exception& failure) {
      throw DataError(config_.schema_field->name(), ": ", complaint(failure.what()));
    } catch (const DataError& failure) {
      throw DataError(config_.schema_field->name(), ": ", failure.what());
    }
  }

  std::optional<std::string_view> part_of(std::string_view response,
                                          const Deadline& deadline) const {
    if (config_.part == "response") return response;
    const auto match = fence_.search(response, deadline);
    if (match) return match->groups[0];
    return config_.part == "either" ? std::optional(response) : std::nullopt;
  }

  FormatConfig config_;
  std::optional<JsonSchema> schema_;
  BoundedRegex fence_;
};

std::optional<JsonSchema> schema_from_yaml(YamlReader& in) {
  const auto text = in.get_optional_string("schema");
  if (!text) return std::nullopt;
  try {
    return JsonSchema(nlohmann::json::parse(*text));
  } catch (const nlohmann::json::exception& failure) {
    in.error_at("schema", str("not JSON: ", printable(failure.what(), 200)));
  } catch (const DataError& failure) {
    in.error_at("schema", failure.what());
  }
  return std::nullopt;
}

}  // namespace

std::shared_ptr<const Judge> make_format(YamlReader& in) {
  FormatConfig config;
  config.part = in.get("part", config.part, {"response", "fence", "either"});
  std::optional<JsonSchema> schema = schema_from_yaml(in);
  if (in.has("schema_field")) {
    config.schema_field = Field::of_metadata(in, "schema_field", "metadata.schema");
    config.missing = missing_from_yaml(in);
    if (in.has("schema"))
      in.error_at("schema_field", "schema is given as well; keep one of the two");
  }
  return std::make_shared<FormatJudge>(std::move(config), std::move(schema));
}

}  // namespace praetor
