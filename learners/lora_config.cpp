#include "learners/lora_config.h"

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/str.h"

namespace praetor {
namespace {

std::vector<std::string> targets_from_yaml(YamlReader& in, std::vector<std::string> fallback) {
  const auto given = in.get_optional_json("targets");
  if (!given) {
    in.get("targets", fallback.front());  // for the resolved document
    return fallback;
  }
  const auto value = nlohmann::json::parse(*given);
  const auto list = value.is_array() ? value : nlohmann::json::array({value});
  std::vector<std::string> out;
  for (const auto& item : list) {
    if (!item.is_string() || item.get<std::string>().empty()) {
      in.error_at("targets", str(item.dump(), " is not the name of a linear layer"));
      return fallback;
    }
    out.push_back(item.get<std::string>());
  }
  if (!out.empty()) return out;
  in.error_at("targets", "names no layer; all_linear means each of them");
  return fallback;
}

}  // namespace

LoraConfig lora_from_yaml(YamlReader in) {
  LoraConfig c;
  c.rank = in.get("rank", c.rank, closed(1, 65536));
  c.alpha = in.get("alpha", c.alpha, greater_than(0));
  c.dropout = in.get("dropout", c.dropout, Range{0, 1, false, true});
  c.rslora = in.get("rslora", c.rslora);
  c.targets = targets_from_yaml(in, c.targets);
  in.reject_unknown_keys();
  return c;
}

std::string lora_to_json(const LoraConfig& config) {
  return nlohmann::json{{"rank", config.rank},
                        {"alpha", config.alpha},
                        {"dropout", config.dropout},
                        {"rslora", config.rslora},
                        {"targets", config.targets}}
      .dump();
}

LoraConfig lora_from_json(const std::string& text) {
  try {
    const auto json = nlohmann::json::parse(text);
    LoraConfig out;
    out.rank = json.at("rank").get<int64_t>();
    out.alpha = json.at("alpha").get<double>();
    out.dropout = json.at("dropout").get<double>();
    out.rslora = json.at("rslora").get<bool>();
    out.targets = json.at("targets").get<std::vector<std::string>>();
    return out;
  } catch (const nlohmann::json::exception& error) {
    throw CheckpointError("learner state: lora: ", error.what());
  }
}

}  // namespace praetor
