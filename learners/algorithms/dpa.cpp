// Directional preference alignment (Wang, Lin et al. 2024, arXiv:2402.18571): a policy that is told
// how much of each of two objectives is wanted learns from the best of its samples in that
// direction.
#include "learners/algorithms/dpa.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "learners/advantage/groups.h"
#include "learners/advantage/reward_shaping.h"
#include "learners/algorithms/aggregate.h"
#include "learners/algorithms/raft.h"

namespace praetor {

DpaConfig DpaConfig::from_yaml(YamlReader in) {
  DpaConfig c;
  c.prompts_per_step = in.get("prompts_per_step", c.prompts_per_step, at_least(1));
  c.samples_per_prompt = in.get("samples_per_prompt", c.samples_per_prompt, at_least(1));
  c.epochs = in.get("epochs", c.epochs, at_least(1));
  c.minibatches = in.get("minibatches", c.minibatches, at_least(1));
  c.missing_eos_penalty = in.get("missing_eos_penalty", c.missing_eos_penalty, at_least(0));
  c.direction = DirectionPlan::from_yaml(in);
  c.buckets = in.get("buckets", c.buckets, closed(1, 360));
  const auto point = in.get("reference_point", std::vector<double>{0, 0});
  if (point.size() == 2) {
    c.reference_point = {point[0], point[1]};
  } else {
    in.error_at("reference_point", "two numbers are wanted, one an objective");
  }
  in.reject_unknown_keys();
  return c;
}

double pareto_area(std::vector<std::array<double, 2>> points, std::array<double, 2> reference) {
  std::ranges::sort(points, [](const auto& a, const auto& b) { return a[0] > b[0]; });
  double area = 0, height = reference[1];
  for (const auto& [x, y] : points) {
    if (x <= reference[0] || y <= height) continue;
    area += (x - reference[0]) * (y - height);
    height = y;
  }
  return area;
}

namespace {

class Dpa final : public Algorithm {
 public:
  explicit Dpa(DpaConfig config) : config_(std::move(config)) {}

  std::string name() const override { return "dpa"; }
  SamplePlan sample_plan() const override {
    SamplePlan plan;
    plan.prompts_per_step = config_.prompts_per_step;
    plan.samples_per_prompt = config_.samples_per_prompt;
    plan.direction = config_.direction;
    return plan;
  }
  UpdatePlan update_plan() const override {
    return {.epochs = config_.epochs, .minibatches = config_.minibatches};
  }

  Batch build_batch(Experience& e, const BatchContext& /*context*/) override {
    const at::Tensor score = e.score.to(at::kDouble).contiguous();
    at::Tensor rank = at::empty_like(score);
    for (int64_t i = 0; i < e.sequences(); ++i)
      rank.mutable_data_ptr<double>()[i] = penalised_score(e, i, config_.missing_eos_penalty);
    Batch out;
    out.units.emplace();
    std::vector<int64_t> best;
    for (const std::vector<int64_t>& group : groups_of(e)) {
      best.push_back(keep_best(rank, group, 0).front());
      if (e.response_length(best.back()) > 0) out.units->push_back({best.back()});
    }
    std::ranges::sort(*out.units);
    const at::Tensor kept = at::tensor(best, at::kLong);
    out.metrics.emplace_back("dpa/best_score", score.index_select(0, kept).mean().item<double>());
    const at::Tensor values = objectives(e);
    for (int64_t k = 0; k < 2; ++k) {
      out.metrics.emplace_back("dpa/best_" + e.attribute_names[static_cast<size_t>(k)],
                               values.index_select(0, kept).select(1, k).mean().item<double>());
    }
    const Metrics all = evaluate_samples(e);
    out.metrics.insert(out.metrics.end(), all.begin(), all.end());
    return out;
  }

  LossResult loss(const MicroBatch& b) const override {
    LossResult out;
    out.loss = aggregate(-b.logprob, b.mask, b.sequence_of, b.denominators);
    const double nll = -b.logprob.detach().masked_select(b.mask).sum().item<double>();
    out.statistics = {{"policy/loss", nll, b.mask.sum().item<double>()}};
    return out;
  }

  /// Means of the objectives, of all samples and by angle; the area under the front of the latter.
  Metrics evaluate_samples(const Experience& e) const override {
    if (e.sequences() == 0) return {};
    const at::Tensor values = objectives(e);
    const at::Tensor wanted = e.attribute_weights.slice(1, 0, 2);
    const at::Tensor along = (values * wanted).sum(1);
    Metrics out;
    for (int64_t k = 0; k < 2; ++k)
      out.emplace_back("dpa/" + objective(e, k), values.select(1, k).mean().item<double>());
    const std::vector<std::vector<int64_t>> buckets = by_angle(wanted);
    std::vector<std::array<double, 2>> front;
    for (size_t b = 0; b < buckets.size(); ++b) {
      if (buckets[b].empty()) continue;
      const at::Tensor which = at::tensor(buckets[b], at::kLong);
      const std::string name = "dpa/" + bucket_name(b) + "/";
      const at::Tensor mean = values.index_select(0, which).mean(0);
      out.emplace_back(name + "score", along.index_select(0, which).mean().item<double>());
      for (int64_t k = 0; k < 2; ++k)
        out.emplace_back(name + objective(e, k), mean[k].item<double>());
      front.push_back({sign(0) * mean[0].item<double>(), sign(1) * mean[1].item<double>()});
    }
    out.emplace_back(
        "dpa/pareto_area",
        pareto_area(front,
                    {sign(0) * config_.reference_point[0], sign(1) * config_.reference_point[1]}));
    return out;
  }

 private:
  static std::string objective(const Experience& e, int64_t k) {
    return e.attribute_names[static_cast<size_t>(k)];
  }

  /// [N,2]: the part that scores by direction lists its objectives first.
  static at::Tensor objectives(const Experience& e) {
    if (!e.attributes.defined() || e.attributes.size(1) < 2) {
      throw InvalidArgument(
          "dpa: the samples carry no objectives; a reward part of kind attributes with a direction "
          "is wanted");
    }
    return e.attributes.slice(1, 0, 2);
  }

  double width() const {
    return (config_.direction.high - config_.direction.low) / static_cast<double>(config_.buckets);
  }

  /// Sequences of each part of the angles.
  std::vector<std::vector<int64_t>> by_angle(const at::Tensor& directions) const {
    std::vector<std::vector<int64_t>> out(static_cast<size_t>(config_.buckets));
    const at::Tensor v = directions.to(at::kDouble).contiguous();
    for (int64_t i = 0; i < v.size(0); ++i) {
      const double* one = v.const_data_ptr<double>() + 2 * i;
      const double angle = std::atan2(one[1], one[0]) * 180 / std::numbers::pi;
      const auto part = static_cast<int64_t>(std::floor((angle - config_.direction.low) / width()));
      out[static_cast<size_t>(std::clamp<int64_t>(part, 0, config_.buckets - 1))].push_back(i);
    }
    return out;
  }

  /// "angle_-45_-30"
  std::string bucket_name(size_t bucket) const {
    const double begin = config_.direction.low + width() * static_cast<double>(bucket);
    return str("angle_", begin, "_", begin + width());
  }

  /// Which way the directions point in objective `k`: there, more is better for the front.
  double sign(int k) const {
    const double middle = (config_.direction.low + config_.direction.high) / 2;
    return direction_at(middle)[static_cast<size_t>(k)] < 0 ? -1 : 1;
  }

  const DpaConfig config_;
};

}  // namespace

std::unique_ptr<Algorithm> make_dpa(DpaConfig config) {
  return std::make_unique<Dpa>(std::move(config));
}

std::unique_ptr<Algorithm> make_dpa(const AlgorithmContext& context) {
  return make_dpa(DpaConfig::from_yaml(context.config));
}

}  // namespace praetor
