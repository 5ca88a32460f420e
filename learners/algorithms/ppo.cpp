// Proximal policy optimisation for language models (arXiv:1707.06347, arXiv:2009.01325,
// arXiv:2203.02155), top to bottom in the order it runs.
#include "learners/algorithms/ppo.h"

#include <ATen/ATen.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "learners/advantage/gae.h"
#include "learners/advantage/reward_shaping.h"
#include "learners/advantage/whiten.h"
#include "learners/algorithms/kl.h"
#include "learners/algorithms/kl_controller.h"
#include "learners/algorithms/policy_objective.h"
#include "learners/algorithms/value_loss.h"

namespace praetor {

PpoConfig PpoConfig::from_yaml(YamlReader in) {
  PpoConfig c;
  c.clip_low = in.get("clip_low", c.clip_low, open(0, 1));
  c.clip_high = in.get("clip_high", c.clip_high, greater_than(0));
  c.dual_clip = in.get("dual_clip", c.dual_clip, at_least(0));
  if (c.dual_clip > 0 && c.dual_clip <= 1)
    in.error_at("dual_clip", "must be above 1, or 0 for off");
  c.value_clip = in.get("value_clip", c.value_clip, at_least(0));
  c.gamma = in.get("gamma", c.gamma, left_open(0, 1));
  c.gae_lambda = in.get("gae_lambda", c.gae_lambda, closed(0, 1));
  c.epochs = in.get("epochs", c.epochs, at_least(1));
  c.minibatches = in.get("minibatches", c.minibatches, at_least(1));
  c.prompts_per_step = in.get("prompts_per_step", c.prompts_per_step, at_least(1));
  c.samples_per_prompt = in.get("samples_per_prompt", c.samples_per_prompt, at_least(1));
  c.per_sample_kl = in.get("per_sample_kl", c.per_sample_kl);
  c.whiten_advantages = in.get("whiten_advantages", c.whiten_advantages);
  c.whiten_rewards = in.get("whiten_rewards", c.whiten_rewards);
  c.score_clip = in.get("score_clip", c.score_clip, at_least(0));
  c.score_normalise = in.get("score_normalise", c.score_normalise);
  c.missing_eos_penalty = in.get("missing_eos_penalty", c.missing_eos_penalty, at_least(0));
  c.mask_truncated = in.get("mask_truncated", c.mask_truncated);
  c.bootstrap_truncated = in.get("bootstrap_truncated", c.bootstrap_truncated);
  c.entropy_coefficient = in.get("entropy_coefficient", c.entropy_coefficient, at_least(0));
  c.value_coefficient = in.get("value_coefficient", c.value_coefficient, at_least(0));
  c.target_kl_update = in.get("target_kl_update", c.target_kl_update, at_least(0));

  c.kl = KlConfig::from_yaml(in.child("kl"), c.kl);
  if (!c.kl.in_reward() && c.per_sample_kl) {
    in.error_at("per_sample_kl",
                "speaks of the penalty in the reward; kl.placement is " + c.kl.placement);
  }
  c.mismatch = MismatchConfig::from_yaml(in.child("mismatch"));

  YamlReader critic = in.child("critic");
  c.critic.init = critic.get("init", c.critic.init, {"policy", "reward"});
  c.critic.shared = critic.get("shared", c.critic.shared);
  if (c.critic.shared && c.critic.init == "reward") {
    critic.error_at("init",
                    "a shared critic lives on the policy; use init: policy, or shared: false");
  }
  c.critic.optimizer = OptimizerConfig::from_yaml(critic.child("optimizer"), c.critic.optimizer);
  critic.reject_unknown_keys();
  in.reject_unknown_keys();
  return c;
}

namespace {

class Ppo final : public Algorithm {
 public:
  explicit Ppo(PpoConfig config)
      : config_(std::move(config)),
        kl_form_(kl_form_from_name(config_.kl.estimator)),
        controller_(config_.kl.make_controller()) {}

  std::string name() const override { return "ppo"; }
  bool corrects_staleness() const override { return true; }

  ModelPlan models() const override {
    return {.policy = true,
            .reference = config_.kl.measured(),
            .critic = config_.critic.shared ? CriticKind::kShared : CriticKind::kSeparate,
            .critic_init = config_.critic.init,
            .critic_optimizer = config_.critic.optimizer,
            .reward_model = false};
  }

  SamplePlan sample_plan() const override {
    return {.rows = RowForm::kPrompt,
            .prompts_per_step = config_.prompts_per_step,
            .samples_per_prompt = config_.samples_per_prompt};
  }

  UpdatePlan update_plan() const override {
    return {.epochs = config_.epochs,
            .minibatches = config_.minibatches,
            .target_kl = config_.target_kl_update,
            .entropy = true};
  }

  Batch build_batch(Experience& e, const BatchContext& context) override {
    Batch out;
    const int64_t sequences = e.sequences();
    const at::Tensor all = at::ones_like(e.sequence_of, at::kBool);
    const at::Tensor finished = flags_tensor(e.finished);
    out.mask = config_.mask_truncated ? finished.index_select(0, e.sequence_of) : all;

    const ShapedReward shaped =
        shape_reward(normalised(e.score),
                     e.finished,
                     e.proximal_logprob,
                     e.reference_logprob,
                     e.sequence_of,
                     {.estimator = kl_form_.estimator,
                      .kl_coefficient = config_.kl.in_reward() ? controller_.coefficient() : 0,
                      .per_sample_kl = config_.per_sample_kl,
                      .score_clip = config_.score_clip,
                      .missing_eos_penalty = config_.missing_eos_penalty});
    e.reward =
        config_.whiten_rewards ? whiten(shaped.reward, out.mask, /*shift=*/false) : shaped.reward;

    at::Tensor bootstrap;
    if (config_.bootstrap_truncated) {
      bootstrap = context.bootstrap_value.masked_fill(finished, 0.0);
    }
    const Gae estimate =
        gae(e.reward, e.value, e.sequence_of, {config_.gamma, config_.gae_lambda}, all, bootstrap);
    e.returns = estimate.returns;
    const Moments spread = masked_moments(estimate.advantage, out.mask);
    e.advantage = config_.whiten_advantages
                      ? whiten(estimate.advantage, out.mask, spread, /*shift=*/true)
                      : estimate.advantage;
    MismatchWeights weights = mismatch_weights(
        e.proximal_logprob, e.behavior_logprob, out.mask, e.sequence_of, config_.mismatch);
    if (weights.weight.defined()) e.advantage = e.advantage * weights.weight;

    const double n = static_cast<double>(std::max<int64_t>(sequences, 1));
    if (e.reference_logprob.defined()) {
      step_kl_ = kl_per_token(e.proximal_logprob, e.reference_logprob, KlEstimator::kK1)
                     .sum()
                     .item<double>() /
                 n;
      step_sequences_ = static_cast<double>(sequences);
      out.metrics.emplace_back("objective/kl", step_kl_);
      out.metrics.emplace_back("objective/kl_coefficient", controller_.coefficient());
    }
    out.metrics.emplace_back("objective/score", e.score.sum().item<double>() / n);
    out.metrics.emplace_back("objective/reward", shaped.reward.sum().item<double>() / n);
    out.metrics.emplace_back("adv/mean", spread.mean);
    out.metrics.emplace_back("adv/std", std::sqrt(spread.variance()));
    const double target_spread = masked_moments(e.returns, out.mask).variance();
    if (target_spread > 0) {
      const double residual = masked_moments(e.returns - e.value, out.mask).variance();
      out.metrics.emplace_back("value/explained_variance", 1 - residual / target_spread);
    }
    out.metrics.insert(out.metrics.end(), weights.metrics.begin(), weights.metrics.end());
    out.mask = weights.mask;
    return out;
  }

  LossResult loss(const MicroBatch& b) const override {
    LossResult out =
        policy_objective(b,
                         {.clip = {config_.clip_low, config_.clip_high, config_.dual_clip},
                          .entropy_coefficient = config_.entropy_coefficient,
                          .kl_form = kl_form_,
                          .kl_coefficient = config_.kl.in_loss() ? controller_.coefficient() : 0});
    const ValueLoss value = value_loss(b.value, b.old_value, b.returns, b.mask, config_.value_clip);
    const at::Tensor critic_loss =
        aggregate(value.per_token, b.mask, b.sequence_of, b.denominators, Aggregation::kTokenMean);
    out.loss = out.loss + config_.value_coefficient * critic_loss;
    const double count = b.mask.sum().item<double>();
    out.statistics.push_back(
        {"value/loss", (critic_loss.detach() * b.denominators.tokens).item<double>(), count});
    out.statistics.push_back({"value/clip_fraction", value.clipped.item<double>(), count});
    return out;
  }

  void after_step() override {
    if (config_.kl.measured()) controller_.update(step_kl_, step_sequences_);
  }

  std::string state_json() const override {
    return nlohmann::json{{"kl_coefficient", controller_.coefficient()},
                          {"score_count", scores_.count},
                          {"score_mean", scores_.mean},
                          {"score_squares", scores_.squares}}
        .dump();
  }

  void load_state_json(const std::string& text) override {
    try {
      const auto state = nlohmann::json::parse(text);
      const Moments scores{state.at("score_count").get<double>(),
                           state.at("score_mean").get<double>(),
                           state.at("score_squares").get<double>()};
      controller_.set_coefficient(state.at("kl_coefficient").get<double>());
      scores_ = scores;
    } catch (const nlohmann::json::exception& error) {
      throw CheckpointError("state of ppo: ", error.what());
    }
  }

 private:
  /// Running normalisation; the moments take in this step's scores first.
  at::Tensor normalised(const at::Tensor& score) {
    if (!config_.score_normalise) return score;
    scores_.merge(masked_moments(score));
    const double deviation = scores_.count < 2 ? 1.0 : std::sqrt(scores_.variance()) + 1e-8;
    return (score - scores_.mean) / deviation;
  }

  PpoConfig config_;
  KlForm kl_form_;
  KlController controller_;
  Moments scores_;
  double step_kl_ = 0;
  double step_sequences_ = 0;
};

}  // namespace

std::unique_ptr<Algorithm> make_ppo(PpoConfig config) {
  return std::make_unique<Ppo>(std::move(config));
}

std::unique_ptr<Algorithm> make_ppo(const AlgorithmContext& context) {
  return make_ppo(PpoConfig::from_yaml(context.config));
}

}  // namespace praetor
