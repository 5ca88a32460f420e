#include "actors/train/experience_builder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace praetor {

namespace {

/// The numbers of the first part that gives several; nothing without one.
const std::vector<AttributeScore>* attributes_of(const ScoredSample& sample) {
  const auto& parts = sample.score.score.parts;
  const auto found =
      std::ranges::find_if(parts, [](const PartScore& part) { return !part.attributes.empty(); });
  return found == parts.end() ? nullptr : &found->attributes;
}

/// Where every sample has the same ones.
void add_attributes(const std::vector<ScoredSample>& samples, Experience& experience) {
  std::vector<double> values, weights;
  std::vector<std::string> names;
  for (const ScoredSample& sample : samples) {
    const auto* all = attributes_of(sample);
    if (!all) return;
    std::vector<std::string> own;
    for (const AttributeScore& one : *all) {
      own.push_back(one.name);
      values.push_back(one.value);
      weights.push_back(one.weight);
    }
    if (names.empty()) names = own;
    if (own != names) return;
  }
  if (names.empty()) return;
  const std::vector<int64_t> shape{-1, static_cast<int64_t>(names.size())};
  experience.attribute_names = std::move(names);
  experience.attributes = at::tensor(values, at::kDouble).view(shape);
  experience.attribute_weights = at::tensor(weights, at::kDouble).view(shape);
}

}  // namespace

Experience make_experience(const std::vector<ScoredSample>& samples) {
  Experience experience;
  std::vector<int64_t> tokens, sequence_of;
  std::vector<float> logprobs, scores;
  std::vector<int64_t> versions;
  bool mixed = false;
  experience.offsets.push_back(0);
  for (const ScoredSample& sample : samples) {
    const RolloutRecord& rollout = sample.rollout;
    const auto index = static_cast<int64_t>(experience.prompt_lengths.size());
    tokens.insert(tokens.end(), rollout.tokens.begin(), rollout.tokens.end());
    experience.offsets.push_back(static_cast<int64_t>(tokens.size()));
    experience.prompt_lengths.push_back(rollout.prompt_length);
    sequence_of.insert(sequence_of.end(), rollout.behavior_logprobs.size(), index);
    logprobs.insert(
        logprobs.end(), rollout.behavior_logprobs.begin(), rollout.behavior_logprobs.end());
    scores.push_back(static_cast<float>(*sample.score.score.score));
    experience.finished.push_back(rollout.finish == FinishReason::kStop);
    experience.prompt_ordinal.push_back(rollout.id.ordinal);
    experience.sample_index.push_back(rollout.id.sample);
    experience.weight_version.push_back(rollout.weight_version);
    mixed = mixed || !rollout.versions.empty();
    if (rollout.versions.empty()) {
      versions.insert(versions.end(), rollout.behavior_logprobs.size(), rollout.weight_version);
    } else {
      versions.insert(versions.end(), rollout.versions.begin(), rollout.versions.end());
    }
    const Score& score = sample.score.score;
    experience.voice.push_back(rollout.voice);
    experience.satisfied.push_back(score.satisfied ? static_cast<int8_t>(*score.satisfied) : -1);
    experience.task.push_back(score.task);
    experience.preferences.push_back(score.preferences);
  }
  experience.tokens = at::tensor(tokens, at::kLong);
  experience.sequence_of = at::tensor(sequence_of, at::kLong);
  experience.behavior_logprob = at::tensor(logprobs, at::kFloat);
  if (mixed) experience.token_version = at::tensor(versions, at::kLong);
  experience.score = at::tensor(scores, at::kFloat);
  add_attributes(samples, experience);
  return experience;
}

namespace {

/// What make_experience reads of a sample.
nlohmann::json to_json(const ScoredSample& sample) {
  const RolloutRecord& rollout = sample.rollout;
  const Score& score = sample.score.score;
  nlohmann::json preferences = nlohmann::json::array();
  for (const Preference& one : score.preferences)
    preferences.push_back({one.rival, one.probability});
  nlohmann::json attributes = nlohmann::json::array();
  if (const auto* all = attributes_of(sample)) {
    for (const AttributeScore& one : *all) attributes.push_back({one.name, one.value, one.weight});
  }
  return {rollout.id.ordinal,
          rollout.id.sample,
          rollout.tokens,
          rollout.prompt_length,
          rollout.behavior_logprobs,
          static_cast<int>(rollout.finish),
          rollout.weight_version,
          *score.score,
          rollout.voice,
          score.satisfied ? static_cast<int>(*score.satisfied) : -1,
          score.task,
          std::move(preferences),
          std::move(attributes),
          rollout.versions};
}

ScoredSample from_json(const nlohmann::json& in) {
  ScoredSample sample;
  RolloutRecord& rollout = sample.rollout;
  rollout.id = {in[0].get<int64_t>(), in[1].get<int32_t>()};
  rollout.tokens = in[2].get<std::vector<int64_t>>();
  rollout.prompt_length = in[3].get<int64_t>();
  rollout.behavior_logprobs = in[4].get<std::vector<float>>();
  rollout.finish = static_cast<FinishReason>(in[5].get<int>());
  rollout.weight_version = in[6].get<int64_t>();
  Score& score = sample.score.score;
  score.score = in[7].get<double>();
  rollout.voice = in[8].get<int32_t>();
  if (in[9].get<int>() >= 0) score.satisfied = in[9].get<int>() == 1;
  score.task = in[10].get<std::string>();
  for (const auto& one : in[11])
    score.preferences.push_back({one[0].get<int32_t>(), one[1].get<double>()});
  rollout.versions = in[13].get<std::vector<int64_t>>();
  if (in[12].empty()) return sample;
  PartScore& part = score.parts.emplace_back();
  for (const auto& one : in[12])
    part.attributes.push_back(
        {one[0].get<std::string>(), one[1].get<double>(), one[2].get<double>()});
  return sample;
}

}  // namespace

Experience gather_experience(Collective& ranks, const std::vector<ScoredSample>& mine) {
  if (ranks.world_size() == 1) return make_experience(mine);
  nlohmann::json list = nlohmann::json::array();
  for (const ScoredSample& sample : mine) list.push_back(to_json(sample));
  std::string bytes;
  nlohmann::json::to_cbor(list, bytes);
  std::vector<ScoredSample> all;
  for (const std::string& part : ranks.all_gather_bytes(bytes)) {
    for (const nlohmann::json& sample : nlohmann::json::from_cbor(part))
      all.push_back(from_json(sample));
  }
  return make_experience(all);
}

}  // namespace praetor
