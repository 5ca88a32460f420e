#include "reward/models/reward_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "core/model/model_config.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFile = "praetor_reward.json";

double number(const fs::path& file, const nlohmann::json& of, const char* key) {
  if (!of.is_object() || !of.contains(key) || !of[key].is_number())
    throw DataError(file.string(), ": ", key, ": a number is wanted");
  return of[key].get<double>();
}

double deviation(const fs::path& file, const nlohmann::json& of) {
  const double out = number(file, of, "std");
  if (!(out > 0)) throw DataError(file.string(), ": std: ", out, " is not above 0");
  return out;
}

}  // namespace

bool RewardFile::in(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / kFile, ignored);
}

RewardFile RewardFile::read(const fs::path& folder) {
  const fs::path file = folder / kFile;
  const nlohmann::json json = nlohmann::json::parse(read_file(file), nullptr, false);
  RewardFile out;
  out.mean = number(file, json, "mean");
  out.std = deviation(file, json);
  if (!json.contains("attributes")) return out;
  if (!json["attributes"].is_array())
    throw DataError(file.string(), ": attributes: a list is wanted");
  for (const nlohmann::json& one : json["attributes"]) {
    if (!one.is_object() || !one.contains("name") || !one["name"].is_string())
      throw DataError(file.string(), ": attributes: each wants a name, which is a text");
    out.attributes.push_back({.name = one["name"],
                              .weight = number(file, one, "weight"),
                              .mean = number(file, one, "mean"),
                              .std = deviation(file, one)});
  }
  return out;
}

void RewardFile::write(const fs::path& folder) const {
  nlohmann::ordered_json json{{"mean", mean}, {"std", std}};
  for (const Attribute& one : attributes) {
    json["attributes"].push_back(
        {{"name", one.name}, {"weight", one.weight}, {"mean", one.mean}, {"std", one.std}});
  }
  write_file_atomic(folder / kFile, json.dump() + "\n");
}

std::vector<Attribute> attributes_in(const fs::path& folder) {
  const ModelConfig config = ModelConfig::load(folder);
  if (config.num_labels == 0) {
    throw DataError(folder.string(),
                    ": not a reward model: config.json has no sequence-classification head");
  }
  std::vector<Attribute> out;
  if (RewardFile::in(folder)) out = RewardFile::read(folder).attributes;
  const auto wanted = static_cast<size_t>(config.num_labels);
  if (out.empty()) {
    for (size_t i = 0; i < wanted; ++i) {
      out.push_back(
          {.name = config.label_names.empty() ? str("LABEL_", i) : config.label_names[i]});
    }
  }
  std::set<std::string> names;
  for (const Attribute& one : out) names.insert(one.name);
  if (out.size() != wanted || names.size() != wanted) {
    throw DataError(folder.string(),
                    ": praetor_reward.json and config.json name ",
                    names.size(),
                    " different attributes, but the head gives ",
                    wanted,
                    " numbers");
  }
  return out;
}

std::vector<std::string> names_of(const std::vector<Attribute>& attributes) {
  std::vector<std::string> out;
  for (const Attribute& one : attributes) out.push_back(one.name);
  return out;
}

std::optional<std::string> unknown_attribute(const std::string& name,
                                             const std::vector<std::string>& known) {
  if (std::ranges::find(known, name) != known.end()) return std::nullopt;
  const auto near = nearest(name, known);
  return str("there is no attribute \"",
             printable(name),
             near ? str("\", did you mean \"", *near, "\"") : str("\""),
             "; the model has ",
             join(known, ", "));
}

}  // namespace praetor
