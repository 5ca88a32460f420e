#include "core/data/direction.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "core/base/error.h"

namespace praetor {

namespace {

constexpr const char* kField = "direction";
constexpr double kMostDegrees = 180.0;

}  // namespace

Direction direction_at(double degrees) {
  const double angle = degrees * std::numbers::pi / 180.0;
  return {std::cos(angle), std::sin(angle)};
}

DirectionPlan::DirectionPlan() : text(TextTemplate::parse(kDirectionText)) {}

DirectionPlan DirectionPlan::from_yaml(YamlReader& in) {
  DirectionPlan plan;
  const auto angle = in.get("angle", std::vector<double>{plan.low, plan.high});
  const auto inside = [](double degrees) { return std::abs(degrees) <= kMostDegrees; };
  if (angle.size() == 2 && angle[0] < angle[1] && std::ranges::all_of(angle, inside)) {
    plan.low = angle[0];
    plan.high = angle[1];
  } else {
    in.error_at("angle",
                "two numbers of degrees in [-180, 180] are wanted, the smaller one first: "
                "directions are of two objectives, and an angle tells one");
  }
  if (!in.has("text")) {
    in.get("text", std::string(kDirectionText));  // for the resolved document
    return plan;
  }
  plan.text = TextTemplate::from_yaml(in, "text", {"a", "b"});
  if (!(plan.text.holds("a") && plan.text.holds("b")))
    in.error_at("text", "does not say the whole direction; {a} and {b} are wanted");
  return plan;
}

Direction DirectionPlan::draw(SampleKey key) const {
  key.purpose = Purpose::kDirection;
  return direction_at(low + (high - low) * uniform(key, 0));
}

Row DirectionPlan::ask(const Row& row, const TextFormat& format, const Direction& direction) const {
  const auto percent = [](double share) { return std::to_string(std::lround(100 * share)); };
  const std::string said = text.fill({{"a", percent(direction[0])}, {"b", percent(direction[1])}});
  Row out = row;
  if (row.messages.empty() && !format.wrap_prompt) {
    out.prompt = said + row.prompt;
    return out;
  }
  if (out.messages.empty()) out.messages = {{"user", row.prompt}};
  if (out.messages.front().role == "system") {
    out.messages.front().content = said + "\n" + out.messages.front().content;
  } else {
    out.messages.insert(out.messages.begin(), {"system", said});
  }
  return out;
}

std::string with_direction(const std::string& metadata, const Direction& direction) {
  auto fields = nlohmann::ordered_json::parse(metadata);
  fields[kField] = direction;
  return fields.dump();
}

std::vector<double> direction_of(const std::string& metadata, size_t size) {
  const auto fields = nlohmann::json::parse(metadata, nullptr, false);
  const auto found = fields.is_object() ? fields.find(kField) : fields.end();
  const bool list =
      fields.is_object() && found != fields.end() && found->is_array() && found->size() == size &&
      std::all_of(
          found->begin(), found->end(), [](const nlohmann::json& one) { return one.is_number(); });
  if (!list) {
    throw DataError("the row has no \"", kField, "\" that is a list of ", size, " numbers");
  }
  return found->get<std::vector<double>>();
}

}  // namespace praetor
