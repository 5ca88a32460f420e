// ReMax (Li et al. 2023, arXiv:2310.10505): REINFORCE with the greedy response's score as baseline.
#include "learners/algorithms/remax.h"

#include <ATen/ATen.h>

#include <map>
#include <utility>

#include "learners/advantage/gae.h"

namespace praetor {

RemaxConfig::RemaxConfig() {
  samples_per_prompt = 1;
  aggregation = "seq-mean-token-sum";
  kl.coefficient = 0.01;
}

RemaxConfig RemaxConfig::from_yaml(YamlReader in) {
  RemaxConfig c;
  c.read(in);
  in.reject_unknown_keys();
  return c;
}

namespace {

class Remax final : public PolicyGradient {
 public:
  explicit Remax(RemaxConfig config) : PolicyGradient("remax", std::move(config)) {}

  SamplePlan sample_plan() const override {
    SamplePlan plan = PolicyGradient::sample_plan();
    plan.others = {{.voice = {}, .samples = 1, .greedy = true}};
    return plan;
  }

 protected:
  at::Tensor advantages(const ScoredBatch& batch, Metrics& metrics) override {
    const Experience& e = batch.experience;
    const at::Tensor score = batch.shaped.score.to(at::kDouble);
    std::map<int64_t, double> greedy;  // by prompt
    for (int64_t i = 0; i < e.sequences(); ++i) {
      const auto k = static_cast<size_t>(i);
      if (!e.voice.empty() && e.voice[k] == 1)
        greedy[e.prompt_ordinal[k]] = score.const_data_ptr<double>()[i];
    }
    double sum = 0, found = 0, samples = 0;
    at::Tensor baseline = at::zeros_like(score);
    at::Tensor compared = at::zeros_like(score);  // 1 where there is a baseline
    for (const std::vector<int64_t>& group : batch.groups) {
      samples += static_cast<double>(group.size());
      const auto at = greedy.find(e.prompt_ordinal[static_cast<size_t>(group.front())]);
      if (at == greedy.end()) continue;
      for (const int64_t i : group) {
        baseline.mutable_data_ptr<double>()[i] = at->second;
        compared.mutable_data_ptr<double>()[i] = 1;
        sum += at->second;
        found += 1;
      }
    }
    if (found > 0) metrics.emplace_back("remax/greedy_score", sum / found);
    metrics.emplace_back("remax/without_baseline", samples > 0 ? 1 - found / samples : 0);
    const at::Tensor& reward = batch.shaped.reward;
    const at::Tensor to_go =
        gae(reward, at::zeros_like(reward), e.sequence_of, {.gamma = 1, .lambda = 1}).advantage;
    return (to_go - batch.per_token(baseline)) * batch.per_token(compared);
  }
};

}  // namespace

std::unique_ptr<Algorithm> make_remax(RemaxConfig config) {
  return std::make_unique<Remax>(std::move(config));
}

std::unique_ptr<Algorithm> make_remax(const AlgorithmContext& context) {
  return make_remax(RemaxConfig::from_yaml(context.config));
}

}  // namespace praetor
