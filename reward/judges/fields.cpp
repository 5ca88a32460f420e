#include "reward/judges/fields.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

namespace {
constexpr std::string_view kMetadata = "metadata.";
}  // namespace

Field Field::from_yaml(YamlReader& in, const std::string& key, const std::string& fallback) {
  Field field;
  field.name_ = in.get(key, fallback);
  const bool metadata = field.name_.starts_with(kMetadata) && field.name_.size() > kMetadata.size();
  if (field.name_ != "response" && field.name_ != "prompt" && !metadata) {
    in.error_at(key,
                str("\"", printable(field.name_), "\" is not response, prompt or metadata.NAME"));
  }
  return field;
}

Field Field::of_metadata(YamlReader& in, const std::string& key, const std::string& fallback) {
  Field field;
  field.name_ = in.get(key, fallback);
  if (!field.name_.starts_with(kMetadata) || field.name_.size() == kMetadata.size())
    in.error_at(key, str("\"", printable(field.name_), "\" is not metadata.NAME"));
  return field;
}

std::optional<std::string> Field::text(const Sample& sample) const {
  if (name_ == "response") return sample.response;
  if (name_ == "prompt") return sample.prompt;
  const auto found = json(sample);
  if (!found) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (found->is_structured()) {
    throw DataError(name_, ": ", found->type_name(), ", but a string or number is wanted");
  }
  return found->dump();
}

std::optional<nlohmann::json> Field::json(const Sample& sample) const {
  nlohmann::json metadata = nlohmann::json::parse(sample.metadata, nullptr, false);
  if (!metadata.is_object()) {
    throw DataError("the metadata is not a JSON object: ", printable(sample.metadata));
  }
  const auto found = metadata.find(name_.substr(kMetadata.size()));
  if (found == metadata.end() || found->is_null()) return std::nullopt;
  return std::move(*found);
}

Missing missing_from_yaml(YamlReader& in) {
  return in.get("missing", "error", {"error", "skip"}) == "skip" ? Missing::kSkip : Missing::kError;
}

Verdict missing_field(const Field& field, Missing missing) {
  if (missing == Missing::kError) throw DataError("the row has no field ", field.name());
  return {.score = 0.0,
          .passed = std::nullopt,
          .reason = "not applicable: the row has no field " + field.name(),
          .not_applicable = true};
}

}  // namespace praetor
