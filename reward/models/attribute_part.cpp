#include "reward/models/attribute_part.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>

#include "core/base/error.h"
#include "core/data/direction.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr double kMost = 1e9;

}  // namespace

AttributePartConfig AttributePartConfig::from_yaml(YamlReader& in) {
  AttributePartConfig config;
  const ModelFolder folder = ModelFolder::from_yaml(in);
  config.path = folder.path;
  config.stage = folder.stage;
  config.read(in);
  config.rescale = ScoreNormaliser::from_yaml(in, "rescale");
  if (auto section = in.optional_child("weights")) {
    for (const std::string& name : section->keys())
      config.weights.emplace_back(name, section->get(name, 1.0, closed(-kMost, kMost)));
    if (config.weights.empty()) in.error_at("weights", "the weight of an attribute is wanted");
  }
  config.direction = in.get("direction", config.direction);
  const std::set<std::string> distinct(config.direction.begin(), config.direction.end());
  if (config.direction.size() == 1 || distinct.size() < config.direction.size())
    in.error_at("direction", "at least two different attributes are wanted");
  if (!config.direction.empty() && in.has("weights")) {
    in.error_at("weights",
                "direction is given as well, which weighs each sample; keep one of the two");
  }
  return config;
}

std::optional<std::pair<std::string, std::string>> AttributePartConfig::misfit(
    const std::vector<std::string>& known) const {
  for (const auto& [name, weight] : weights) {
    if (const auto wrong = unknown_attribute(name, known)) return std::pair("weights", *wrong);
  }
  for (const std::string& name : direction) {
    if (const auto wrong = unknown_attribute(name, known)) return std::pair("direction", *wrong);
  }
  return std::nullopt;
}

size_t AttributePart::place(const std::string& name) const {
  const auto found = std::ranges::find(attributes_, name, &Attribute::name);
  PRAETOR_CHECK(found != attributes_.end(), "no attribute ", name);
  return static_cast<size_t>(found - attributes_.begin());
}

std::unique_ptr<AttributePart> AttributePart::load(const fs::path& folder,
                                                   const AttributePartConfig& config) {
  std::vector<Attribute> attributes = attributes_in(folder);
  if (const auto misfit = config.misfit(names_of(attributes)))
    throw DataError(folder.string(), ": ", misfit->first, ": ", misfit->second);
  const auto count = static_cast<int64_t>(attributes.size());
  std::unique_ptr<AttributePart> out(new AttributePart(SampleReader(folder, config, count)));
  out->attributes_ = std::move(attributes);
  if (AttributeGate::in(folder))
    out->gate_ = AttributeGate::load(folder, out->reader_.hidden_size(), count);
  out->gated_ = out->gate_ && config.weights.empty() && config.direction.empty();
  if (config.rescale && out->gated_) {
    throw DataError(folder.string(),
                    ": rescale: the folder's gate was trained on the attributes as they are; give "
                    "weights or a direction, or leave it out");
  }
  for (Attribute& one : out->attributes_) {
    const auto given =
        std::ranges::find(config.weights, one.name, &std::pair<std::string, double>::first);
    if (!config.weights.empty()) one.weight = given == config.weights.end() ? 0.0 : given->second;
    if (!config.rescale) {
      one.mean = 0.0;
      one.std = 1.0;
    } else if (!config.rescale->from_model) {
      one.mean = config.rescale->mean;
      one.std = config.rescale->std;
    }
  }
  if (config.rescale && config.rescale->from_model && !RewardFile::in(folder))
    RewardFile::read(folder);  // says what is missing
  for (const std::string& name : config.direction) out->direction_.push_back(out->place(name));
  return out;
}

std::vector<BatchResult> AttributePart::score(std::span<const BatchItem> items) const {
  std::vector<Sample> samples;
  for (const BatchItem& item : items) samples.push_back(*item.sample);
  const size_t count = attributes_.size();
  const auto numbers = [&](const SampleReader::Hidden& hidden) {
    at::Tensor values = reader_.head()(hidden.response).view({-1, static_cast<int64_t>(count)});
    if (!gate_) return values;
    return at::cat({gate_->corrected(values), (*gate_)(hidden.prompt)}, 1);
  };
  const auto read = reader_.read(samples, numbers);
  std::vector<BatchResult> out(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    BatchResult& result = out[i];
    result.error = read[i].error;
    if (!result.error.empty()) continue;
    std::vector<AttributeScore> all;
    for (size_t a = 0; a < count; ++a) {
      const Attribute& one = attributes_[a];
      all.push_back({.name = one.name,
                     .value = (read[i].values[a] - one.mean) / one.std,
                     .weight = gated_ ? read[i].values[count + a] : one.weight});
    }
    if (!direction_.empty()) {
      std::vector<double> direction;
      try {
        direction = direction_of(samples[i].metadata, direction_.size());
      } catch (const DataError& failure) {
        result.error = failure.what();
        continue;
      }
      for (AttributeScore& one : all) one.weight = 0.0;
      for (size_t k = 0; k < direction_.size(); ++k) {
        all[direction_[k]].weight = direction[k];
        result.attributes.push_back(all[direction_[k]]);
      }
    }
    double score = 0.0;
    for (size_t a = 0; a < count; ++a) {
      score += all[a].weight * all[a].value;
      if (std::ranges::find(direction_, a) == direction_.end()) result.attributes.push_back(all[a]);
    }
    result.score = score;
  }
  return out;
}

}  // namespace praetor
