#include "learners/algorithms/policy_gradient.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "learners/advantage/whiten.h"
#include "learners/algorithms/policy_objective.h"

namespace praetor {
namespace {

/// Each sequence with a token that counts, by itself.
std::vector<std::vector<int64_t>> units_within(const at::Tensor& mask,
                                               const at::Tensor& sequence_of,
                                               int64_t sequences) {
  const at::Tensor lengths = segment_sum(mask.to(at::kLong), sequence_of, sequences);
  std::vector<std::vector<int64_t>> out;
  for (int64_t i = 0; i < sequences; ++i) {
    if (lengths.const_data_ptr<int64_t>()[i] > 0) out.push_back({i});
  }
  return out;
}

}  // namespace

void PolicyGradientConfig::read(YamlReader& in) {
  prompts_per_step = in.get("prompts_per_step", prompts_per_step, at_least(1));
  samples_per_prompt = in.get("samples_per_prompt", samples_per_prompt, at_least(1));
  epochs = in.get("epochs", epochs, at_least(1));
  minibatches = in.get("minibatches", minibatches, at_least(1));
  clip_low = in.get("clip_low", clip_low, open(0, 1));
  clip_high = in.get("clip_high", clip_high, greater_than(0));
  dual_clip = in.get("dual_clip", dual_clip, at_least(0));
  if (dual_clip > 0 && dual_clip <= 1) in.error_at("dual_clip", "must be above 1, or 0 for off");
  ratio = in.get("ratio", ratio, ratio_names());
  aggregation = in.get("aggregation", aggregation, aggregation_names());
  max_tokens = in.get("max_tokens", max_tokens, at_least(0));
  score_clip = in.get("score_clip", score_clip, at_least(0));
  missing_eos_penalty = in.get("missing_eos_penalty", missing_eos_penalty, at_least(0));
  overlong_buffer = in.get("overlong_buffer", overlong_buffer, closed(0, 1));
  mask_truncated = in.get("mask_truncated", mask_truncated);
  entropy_coefficient = in.get("entropy_coefficient", entropy_coefficient, at_least(0));
  target_kl_update = in.get("target_kl_update", target_kl_update, at_least(0));
  kl = KlConfig::from_yaml(in.child("kl"), kl);
  mismatch = MismatchConfig::from_yaml(in.child("mismatch"));
}

at::Tensor ScoredBatch::per_token(const at::Tensor& per_sequence) const {
  return per_sequence.index_select(0, experience.sequence_of)
      .to(experience.proximal_logprob.scalar_type());
}

PolicyGradient::PolicyGradient(std::string name, PolicyGradientConfig config)
    : name_(std::move(name)),
      config_(std::move(config)),
      kl_form_(kl_form_from_name(config_.kl.estimator)),
      controller_(config_.kl.make_controller()),
      max_tokens_(config_.max_tokens) {}

ModelPlan PolicyGradient::models() const {
  ModelPlan plan;
  plan.reference = config_.kl.measured();
  return plan;
}

SamplePlan PolicyGradient::sample_plan() const {
  return {.rows = RowForm::kPrompt,
          .prompts_per_step = config_.prompts_per_step,
          .samples_per_prompt = config_.samples_per_prompt};
}

UpdatePlan PolicyGradient::update_plan() const {
  return {.epochs = config_.epochs,
          .minibatches = config_.minibatches,
          .target_kl = config_.target_kl_update,
          .entropy = true};
}

Batch PolicyGradient::build_batch(Experience& e, const BatchContext& context) {
  max_tokens_ = config_.max_tokens > 0 ? config_.max_tokens : context.max_new_tokens;
  const Groups groups = groups_of(e);
  std::vector<bool> own(static_cast<size_t>(e.sequences()), false);
  for (const std::vector<int64_t>& group : groups) {
    for (const int64_t i : group) own[static_cast<size_t>(i)] = true;
  }
  const at::Tensor own_sequences = flags_tensor(own);
  Batch out;
  out.mask =
      (config_.mask_truncated ? own_sequences.logical_and(flags_tensor(e.finished)) : own_sequences)
          .index_select(0, e.sequence_of);

  const double in_reward = config_.kl.in_reward() ? controller_.coefficient() : 0;
  const ShapedReward shaped =
      shape_reward(e.score,
                   e.finished,
                   e.proximal_logprob,
                   e.reference_logprob,
                   e.sequence_of,
                   {.estimator = kl_form_.estimator,
                    .kl_coefficient = in_reward,
                    .score_clip = config_.score_clip,
                    .missing_eos_penalty = config_.missing_eos_penalty,
                    .overlong_limit = static_cast<double>(max_tokens_),
                    .overlong_buffer = config_.overlong_buffer * static_cast<double>(max_tokens_)});
  e.reward = shaped.reward;
  at::Tensor reward = shaped.score.to(at::kDouble);
  if (in_reward > 0) {
    reward =
        reward - in_reward * segment_sum(shaped.kl, e.sequence_of, e.sequences()).to(at::kDouble);
  }

  const double n = std::max(own_sequences.sum().item<double>(), 1.0);
  const auto own_mean = [&](const at::Tensor& per_sequence) {
    return per_sequence.to(at::kDouble).masked_select(own_sequences).sum().item<double>() / n;
  };
  if (e.reference_logprob.defined()) {
    const at::Tensor kl = kl_per_token(e.proximal_logprob, e.reference_logprob, KlEstimator::kK1);
    step_kl_ = own_mean(segment_sum(kl, e.sequence_of, e.sequences()));
    step_sequences_ = n;
    out.metrics.emplace_back("objective/kl", step_kl_);
    out.metrics.emplace_back("objective/kl_coefficient", controller_.coefficient());
  }
  out.metrics.emplace_back("objective/score", own_mean(e.score));
  out.metrics.emplace_back("objective/reward", own_mean(reward));

  const at::Tensor made = advantages({e, shaped, reward, groups, out.mask}, out.metrics);
  const Moments spread = masked_moments(made, out.mask);
  out.metrics.emplace_back("adv/mean", spread.mean);
  out.metrics.emplace_back("adv/std", std::sqrt(spread.variance()));
  const MismatchWeights weights = mismatch_weights(
      e.proximal_logprob, e.behavior_logprob, out.mask, e.sequence_of, config_.mismatch);
  e.advantage = weights.weight.defined() ? made * weights.weight : made;
  out.metrics.insert(out.metrics.end(), weights.metrics.begin(), weights.metrics.end());
  out.mask = weights.mask;
  out.units = units_within(out.mask, e.sequence_of, e.sequences());
  return out;
}

void PolicyGradient::report_groups(const ScoredBatch& batch, Metrics& metrics) {
  const GroupSummary summary = summarise_groups(batch.reward, batch.groups);
  metrics.emplace_back("group/size", summary.size);
  metrics.emplace_back("group/std", summary.deviation);
  metrics.emplace_back("group/equal", summary.equal);
  if (summary.lone == 0 || warned_) return;
  warned_ = true;
  log::warn(str(name_,
                ": ",
                summary.lone,
                " of ",
                batch.groups.size(),
                " prompts have a single sample: its reward is compared with none; "
                "samples_per_prompt of 2 and more is wanted"));
}

LossResult PolicyGradient::loss(const MicroBatch& b) const {
  return policy_objective(b,
                          {.clip = {config_.clip_low, config_.clip_high, config_.dual_clip},
                           .ratio = ratio_from_name(config_.ratio),
                           .aggregation = aggregation_from_name(config_.aggregation),
                           .max_tokens = max_tokens_,
                           .entropy_coefficient = config_.entropy_coefficient,
                           .kl_form = kl_form_,
                           .kl_coefficient = config_.kl.in_loss() ? controller_.coefficient() : 0});
}

void PolicyGradient::after_step() {
  if (config_.kl.measured()) controller_.update(step_kl_, step_sequences_);
}

std::string PolicyGradient::state_json() const {
  return nlohmann::json{{"kl_coefficient", controller_.coefficient()}}.dump();
}

void PolicyGradient::load_state_json(const std::string& text) {
  try {
    controller_.set_coefficient(nlohmann::json::parse(text).at("kl_coefficient").get<double>());
  } catch (const nlohmann::json::exception& error) {
    throw CheckpointError("state of ", name_, ": ", error.what());
  }
}

}  // namespace praetor
