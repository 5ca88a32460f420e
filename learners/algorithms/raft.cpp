// RAFT, also known as rejection sampling or best-of-n fine-tuning (Dong et al. 2023,
// arXiv:2304.06767): the best of a prompt's samples become training data.
#include "learners/algorithms/raft.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "learners/advantage/reward_shaping.h"
#include "learners/algorithms/aggregate.h"
#include "learners/algorithms/kl.h"

namespace praetor {

RaftConfig RaftConfig::from_yaml(YamlReader in) {
  RaftConfig c;
  c.prompts_per_step = in.get("prompts_per_step", c.prompts_per_step, at_least(1));
  c.samples_per_prompt = in.get("samples_per_prompt", c.samples_per_prompt, at_least(1));
  c.epochs = in.get("epochs", c.epochs, at_least(1));
  c.minibatches = in.get("minibatches", c.minibatches, at_least(1));
  c.keep = in.get("keep", c.keep, closed(0, 1));
  c.unique = in.get("unique", c.unique);
  c.weights = in.get("weights", c.weights, {"none", "softmax"});
  c.weight_temperature = in.get("weight_temperature", c.weight_temperature, greater_than(0));
  c.missing_eos_penalty = in.get("missing_eos_penalty", c.missing_eos_penalty, at_least(0));
  c.kl_coefficient = in.get("kl_coefficient", c.kl_coefficient, at_least(0));
  in.reject_unknown_keys();
  return c;
}

double best_of_n_kl_bound(double n) {
  return std::log(n) - (n - 1) / n;
}

std::vector<int64_t> keep_best(const at::Tensor& rank,
                               const std::vector<int64_t>& group,
                               double keep) {
  const double* value = rank.const_data_ptr<double>();
  std::vector<int64_t> order = group;
  std::ranges::stable_sort(order, [&](int64_t a, int64_t b) { return value[a] > value[b]; });
  // A little is taken off before rounding up: 0.3 of 10 is 3, though 0.3 * 10 may be above it.
  const auto count =
      static_cast<int64_t>(std::ceil(keep * static_cast<double>(order.size()) - 1e-9));
  order.resize(
      static_cast<size_t>(std::clamp<int64_t>(count, 1, static_cast<int64_t>(order.size()))));
  return order;
}

namespace {

class Raft final : public Algorithm {
 public:
  explicit Raft(RaftConfig config) : config_(std::move(config)) {}

  std::string name() const override { return "raft"; }
  ModelPlan models() const override {
    ModelPlan plan;
    plan.reference = config_.kl_coefficient > 0;
    return plan;
  }
  SamplePlan sample_plan() const override {
    return {.rows = RowForm::kPrompt,
            .prompts_per_step = config_.prompts_per_step,
            .samples_per_prompt = config_.samples_per_prompt};
  }
  UpdatePlan update_plan() const override {
    return {.epochs = config_.epochs, .minibatches = config_.minibatches};
  }

  Batch build_batch(Experience& e, const BatchContext& /*context*/) override {
    const Groups groups = groups_of(e);
    const ShapedReward shaped = shape_reward(
        e.score,
        e.finished,
        e.proximal_logprob,
        e.reference_logprob,
        e.sequence_of,
        {.estimator = KlEstimator::kK1, .missing_eos_penalty = config_.missing_eos_penalty});
    e.reward = shaped.reward;
    at::Tensor rank = shaped.score.to(at::kDouble);
    Batch out;
    if (shaped.kl.defined()) {
      const at::Tensor kl = segment_sum(shaped.kl, e.sequence_of, e.sequences()).to(at::kDouble);
      rank = rank - config_.kl_coefficient * kl;
      out.metrics.emplace_back("objective/kl", kl.mean().item<double>());
    }
    rank = rank.contiguous();

    at::Tensor weight = at::zeros_like(rank);
    std::vector<std::vector<int64_t>> units;
    double best = 0, bound = 0, ties = 0, kept = 0, samples = 0;
    for (const std::vector<int64_t>& group : groups) {
      const std::vector<int64_t> chosen = keep_best(rank, first_of_each(e, group), config_.keep);
      weigh(chosen, rank, weight);
      const double top = rank.const_data_ptr<double>()[chosen.front()];
      ties += std::ranges::count_if(
                  group, [&](int64_t i) { return rank.const_data_ptr<double>()[i] == top; }) > 1
                  ? 1
                  : 0;
      best += e.score[chosen.front()].item<double>();
      bound += best_of_n_kl_bound(static_cast<double>(group.size()));
      kept += static_cast<double>(chosen.size());
      samples += static_cast<double>(group.size());
      for (const int64_t i : chosen) {
        if (e.response_length(i) > 0) units.push_back({i});
      }
    }
    std::ranges::sort(units);
    out.units = std::move(units);
    const double prompts = std::max(static_cast<double>(groups.size()), 1.0);
    out.metrics.emplace_back("raft/best_score", best / prompts);
    out.metrics.emplace_back("raft/unique_best", 1 - ties / prompts);
    out.metrics.emplace_back("raft/kept", kept / std::max(samples, 1.0));
    out.metrics.emplace_back("raft/kl_bound", bound / prompts);
    out.mask = weight.gt(0).index_select(0, e.sequence_of);
    e.advantage = weight.index_select(0, e.sequence_of).to(e.proximal_logprob.scalar_type());
    return out;
  }

  LossResult loss(const MicroBatch& b) const override {
    LossResult out;
    out.loss = aggregate(-b.logprob * b.advantage, b.mask, b.sequence_of, b.denominators);
    const double count = b.mask.sum().item<double>();
    const double nll = -b.logprob.detach().masked_select(b.mask).sum().item<double>();
    out.statistics = {
        {"policy/loss", (out.loss.detach() * b.denominators.tokens).item<double>(), count},
        {"raft/nll", nll, count}};
    return out;
  }

 private:
  /// Without repeats, where those are not wanted.
  std::vector<int64_t> first_of_each(const Experience& e, const std::vector<int64_t>& group) const {
    if (!config_.unique) return group;
    std::set<std::vector<int64_t>> seen;
    std::vector<int64_t> out;
    for (const int64_t i : group) {
      const auto k = static_cast<size_t>(i);
      const int64_t* tokens = e.tokens.const_data_ptr<int64_t>();
      if (seen.emplace(tokens + e.offsets[k] + e.prompt_lengths[k], tokens + e.offsets[k + 1])
              .second)
        out.push_back(i);
    }
    return out;
  }

  /// Weights of the kept ones, of mean 1.
  void weigh(const std::vector<int64_t>& chosen, const at::Tensor& rank, at::Tensor& weight) const {
    const at::Tensor which = at::tensor(chosen, at::kLong);
    const auto count = static_cast<double>(chosen.size());
    const at::Tensor scaled = rank.index_select(0, which) / config_.weight_temperature;
    // Above 0, as the mask is read from it.
    const at::Tensor values = config_.weights == "softmax"
                                  ? (at::softmax(scaled, 0) * count).clamp_min(1e-12)
                                  : at::ones_like(scaled);
    weight.index_copy_(0, which, values);
  }

  const RaftConfig config_;
};

}  // namespace

std::unique_ptr<Algorithm> make_raft(RaftConfig config) {
  return std::make_unique<Raft>(std::move(config));
}

std::unique_ptr<Algorithm> make_raft(const AlgorithmContext& context) {
  return make_raft(RaftConfig::from_yaml(context.config));
}

}  // namespace praetor
