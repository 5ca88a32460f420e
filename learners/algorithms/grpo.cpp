// Group relative policy optimisation (Shao et al. 2024, arXiv:2402.03300) and, by its options,
// those that stand on it.
#include "learners/algorithms/grpo.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "learners/advantage/groups.h"

namespace praetor {

GrpoConfig::GrpoConfig() {
  aggregation = "seq-mean-token-mean";
  kl = {.estimator = "k3", .placement = "loss", .coefficient = 0.04};
}

GrpoConfig GrpoConfig::from_yaml(YamlReader in, GrpoConfig defaults) {
  GrpoConfig c = std::move(defaults);
  c.read(in);
  c.scale_by_std = in.get("scale_by_std", c.scale_by_std);
  c.std_eps = in.get("std_eps", c.std_eps, greater_than(0));
  c.drop_equal = in.get("drop_equal", c.drop_equal);
  if (c.drop_equal && c.samples_per_prompt < 2) {
    in.error_at("samples_per_prompt",
                "drop_equal compares the samples of a prompt; at least 2 are wanted");
  }
  in.reject_unknown_keys();
  return c;
}

namespace {

class Grpo final : public PolicyGradient {
 public:
  Grpo(GrpoConfig config, std::string name)
      : PolicyGradient(std::move(name), config), config_(std::move(config)) {}

  std::optional<std::string> accept(const Group& group) const override {
    if (!config_.drop_equal || group.scores.empty()) return std::nullopt;
    const bool equal = std::ranges::all_of(
        group.scores, [&](double score) { return score == group.scores.front(); });
    if (!equal) return std::nullopt;
    return "all samples of the prompt scored alike";
  }

 protected:
  at::Tensor advantages(const ScoredBatch& batch, Metrics& metrics) override {
    report_groups(batch, metrics);
    return batch.per_token(group_advantage(
        batch.reward,
        batch.groups,
        config_.scale_by_std ? std::optional<double>(config_.std_eps) : std::nullopt));
  }

 private:
  const GrpoConfig config_;
};

}  // namespace

std::unique_ptr<Algorithm> make_grpo(GrpoConfig config, std::string name) {
  return std::make_unique<Grpo>(std::move(config), std::move(name));
}

std::unique_ptr<Algorithm> make_grpo(const AlgorithmContext& context) {
  return make_grpo(GrpoConfig::from_yaml(context.config));
}

}  // namespace praetor
