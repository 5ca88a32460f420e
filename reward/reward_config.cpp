#include "reward/reward_config.h"

#include <algorithm>

#include "core/base/str.h"
#include "core/base/text.h"
#include "reward/judges/registry.h"

namespace praetor {

namespace {

constexpr const char* kModel = "model";

bool is_plain_name(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  });
}

PartConfig part_from_yaml(YamlReader& in) {
  std::vector<std::string> kinds = judge_kinds();
  kinds.insert(kinds.begin(), kModel);
  PartConfig part;
  part.kind = in.require_string("kind", kinds);
  part.name = in.get("name", part.kind);
  part.weight = in.get("weight", part.weight, closed(-1e9, 1e9));
  if (in.has("name") && !is_plain_name(part.name)) {
    in.error_at("name",
                str("\"",
                    printable(part.name),
                    "\" may hold letters, digits, \"_\", \"-\" and \".\" only"));
  }
  if (part.kind == kModel) {
    part.model = RewardModelConfig::from_yaml(in);
  } else if (std::ranges::find(kinds, part.kind) != kinds.end()) {
    part.judge = make_judge(part.kind, in);
  } else {
    return part;  // without a kind there is no telling which keys are known
  }
  in.reject_unknown_keys();
  return part;
}

}  // namespace

RewardConfig RewardConfig::from_yaml(YamlReader in) {
  RewardConfig config;
  config.timeout = std::chrono::milliseconds(
      in.get("timeout_ms", static_cast<int64_t>(config.timeout.count()), closed(1, 600'000)));
  const std::string on_error = in.get("on_error", "drop", {"drop", "fail", "value"});
  if (on_error == "fail") config.on_error = OnError::kFail;
  if (on_error == "value") {
    config.on_error = OnError::kValue;
    config.error_value = in.require_number("error_value", closed(-1e9, 1e9));
  } else if (in.has("error_value")) {
    in.get_optional_number("error_value");
    in.error_at("error_value",
                str("has no effect with on_error: ", on_error, "; it needs on_error: value"));
  }
  std::vector<YamlReader> parts = in.list("parts");
  if (parts.empty()) in.error_at("parts", "at least one part is needed");
  for (YamlReader& reader : parts) {
    PartConfig part = part_from_yaml(reader);
    const auto same = [&](const PartConfig& other) { return other.name == part.name; };
    if (!part.name.empty() && std::ranges::any_of(config.parts, same)) {
      reader.error_at("name", str("another part is named \"", printable(part.name), "\" already"));
    }
    config.parts.push_back(std::move(part));
  }
  in.reject_unknown_keys();
  return config;
}

}  // namespace praetor
