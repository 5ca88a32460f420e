#include "learners/algorithms/nash_policy_gradient.h"

#include <ATen/ATen.h>

#include <utility>

#include "core/base/error.h"
#include "learners/preference/prompt_groups.h"

namespace praetor {

NashConfig NashConfig::from_yaml(YamlReader& in) {
  NashConfig c;
  c.kl_coefficient = in.get("kl_coefficient", c.kl_coefficient, at_least(0));
  c.kl_form = in.get("kl_form", c.kl_form, {"reward_to_go", "sequence", "token"});
  c.preference = preference_source_from_yaml(in);
  c.opponents = in.get("opponents", c.opponents, at_least(1));
  c.missing_eos_penalty = in.get("missing_eos_penalty", c.missing_eos_penalty, at_least(0));
  if (c.missing_eos_penalty > 0 && c.preference == PreferenceSource::kPairwise) {
    in.error_at("missing_eos_penalty",
                "is taken from a score, and preference: pairwise asks for none; a judge of length "
                "or format among the rewards can tell what did not end");
  }
  c.prompts_per_step = in.get("prompts_per_step", c.prompts_per_step, at_least(1));
  c.samples_per_prompt = in.get("samples_per_prompt", c.samples_per_prompt, at_least(1));
  return c;
}

at::Tensor nash_coefficients(const at::Tensor& probability,
                             const at::Tensor& logprob,
                             const at::Tensor& reference_logprob,
                             const at::Tensor& sequence_of,
                             double kl_coefficient,
                             const std::string& kl_form) {
  const at::Tensor ratio = (logprob - reference_logprob).detach().to(at::kDouble);
  if (ratio.numel() != sequence_of.numel())
    throw ShapeError("nash: ", ratio.numel(), " log-ratios of ", sequence_of.numel(), " tokens");
  at::Tensor share = ratio;
  if (kl_form != "token") {
    const at::Tensor whole = at::zeros({probability.numel()}, ratio.options())
                                 .index_add(0, sequence_of, ratio)
                                 .index_select(0, sequence_of);
    share = whole;
    if (kl_form == "reward_to_go") {
      // What comes before token t within its own sequence is taken off.
      const at::Tensor before = ratio.cumsum(0) - ratio;
      at::Tensor first = at::zeros({probability.numel()}, ratio.options());
      const at::Tensor starts = sequence_of.slice(0, 1).ne(sequence_of.slice(0, 0, -1)).nonzero();
      if (ratio.numel() > 0) {
        const at::Tensor heads = at::cat({at::zeros({1}, at::kLong), starts.view(-1) + 1});
        first.index_put_({sequence_of.index_select(0, heads)}, before.index_select(0, heads));
      }
      share = whole - (before - first.index_select(0, sequence_of));
    }
  }
  return probability.to(at::kDouble).index_select(0, sequence_of) - 0.5 - kl_coefficient * share;
}

namespace {

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

class NashPolicyGradient final : public Algorithm {
 public:
  NashPolicyGradient(NashConfig config, NashPlayers players)
      : config_(std::move(config)), players_(std::move(players)) {}

  std::string name() const override { return players_.name; }

  ModelPlan models() const override {
    ModelPlan plan;
    plan.reference = true;
    plan.anchor = players_.anchor;
    return plan;
  }

  SamplePlan sample_plan() const override {
    SamplePlan plan{.rows = RowForm::kPrompt,
                    .prompts_per_step = config_.prompts_per_step,
                    .samples_per_prompt = config_.samples_per_prompt,
                    .others = {players_.opponent}};
    if (players_.reference_samples > 0) {
      plan.others.push_back(
          {.voice = {.kind = VoiceKind::kCompanion}, .samples = players_.reference_samples});
    }
    return plan;
  }

  ScorePlan score_plan() const override {
    return config_.preference == PreferenceSource::kPairwise ? ScorePlan::kRivals
                                                             : ScorePlan::kScalar;
  }

  UpdatePlan update_plan() const override { return {.entropy = true}; }

  Batch build_batch(Experience& e, const BatchContext& /*context*/) override {
    const Preferences preference(e, config_.preference, config_.missing_eos_penalty);
    Batch out;
    std::vector<std::vector<int64_t>> units;
    std::vector<double> wins, against_reference, lengths, ended;
    at::Tensor probability = at::full({e.sequences()}, 0.5, at::kDouble);
    for (const PromptGroup& group : prompt_groups(e, sample_plan().others.size() + 1)) {
      for (const int64_t j : group.voices[1]) {
        lengths.push_back(static_cast<double>(e.response_length(j)));
        ended.push_back(e.finished[static_cast<size_t>(j)] ? 1 : 0);
      }
      for (const int64_t i : group.voices[0]) {
        const auto win = preference.mean(i, group.voices[1]);
        if (!win) continue;  // its opponents were lost
        probability[i] = *win;
        wins.push_back(*win);
        units.push_back({i});
        if (group.voices.size() < 3) continue;
        if (const auto known = preference.mean(i, group.voices[2]))
          against_reference.push_back(*known);
      }
    }
    if (units.empty())
      throw DataError(name(), ": no sample of this step has an opponent that was scored");
    e.advantage = nash_coefficients(probability,
                                    e.proximal_logprob,
                                    e.reference_logprob,
                                    e.sequence_of,
                                    config_.kl_coefficient,
                                    config_.kl_form)
                      .to(at::kFloat);
    const at::Tensor ratio = (e.proximal_logprob - e.reference_logprob).to(at::kDouble);
    const at::Tensor ratios = segment_sum(ratio, e.sequence_of, e.sequences());
    double kl = 0;
    for (const auto& unit : units) kl += ratios.const_data_ptr<double>()[unit[0]];
    out.metrics = {{"nash/prob_mean", mean_of(wins)},
                   {"objective/kl", kl / static_cast<double>(units.size())},
                   {"nash/opponent_length", mean_of(lengths)},
                   {"nash/opponent_finished", mean_of(ended)}};
    if (!against_reference.empty())
      out.metrics.emplace_back("nash/prob_vs_ref", mean_of(against_reference));
    out.units = std::move(units);
    return out;
  }

  LossResult loss(const MicroBatch& b) const override {
    LossResult out;
    out.loss = aggregate(-b.advantage * b.logprob,
                         b.mask,
                         b.sequence_of,
                         b.denominators,
                         Aggregation::kSeqMeanTokenSum);
    const double tokens = b.mask.sum().item<double>();
    const auto mean = [&](const char* what, const at::Tensor& per_token) {
      return Statistic{
          what,
          per_token.detach().masked_fill(b.mask.logical_not(), 0.0).sum().item<double>(),
          tokens};
    };
    out.statistics = {{"policy/loss", out.loss.item<double>(), 1, Statistic::Kind::kSum},
                      mean("policy/entropy", b.entropy),
                      mean("nash/coefficient_mean", b.advantage)};
    return out;
  }

 private:
  NashConfig config_;
  NashPlayers players_;
};

}  // namespace

std::unique_ptr<Algorithm> make_nash(NashConfig config, NashPlayers players) {
  players.opponent.samples = config.opponents;
  return std::make_unique<NashPolicyGradient>(std::move(config), std::move(players));
}

}  // namespace praetor
