#include "learners/algorithms/online_pairs.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/base/error.h"
#include "learners/preference/prompt_groups.h"

namespace praetor {

PairsConfig PairsConfig::from_yaml(YamlReader& in) {
  PairsConfig c;
  c.preference = preference_source_from_yaml(in);
  c.missing_eos_penalty = in.get("missing_eos_penalty", c.missing_eos_penalty, at_least(0));
  if (c.missing_eos_penalty > 0 && c.preference == PreferenceSource::kPairwise) {
    in.error_at("missing_eos_penalty",
                "is taken from a score, and preference: pairwise asks for none");
  }
  c.prompts_per_step = in.get("prompts_per_step", c.prompts_per_step, at_least(1));
  c.epochs = in.get("epochs", c.epochs, at_least(1));
  c.minibatches = in.get("minibatches", c.minibatches, at_least(1));
  return c;
}

at::Tensor PairLogprobs::gap() const {
  const at::Tensor ratio = policy - reference;
  return ratio.select(1, 0) - ratio.select(1, 1);
}

namespace {

class OnlinePairsAlgorithm final : public Algorithm {
 public:
  explicit OnlinePairsAlgorithm(OnlinePairs method) : method_(std::move(method)) {}

  std::string name() const override { return method_.name; }
  ModelPlan models() const override {
    ModelPlan plan;
    plan.reference = true;
    plan.anchor = method_.anchor;
    return plan;
  }
  SamplePlan sample_plan() const override {
    return {.rows = RowForm::kPrompt,
            .prompts_per_step = method_.config.prompts_per_step,
            .samples_per_prompt = method_.samples_per_prompt,
            .others = method_.others};
  }
  ScorePlan score_plan() const override {
    return method_.config.preference == PreferenceSource::kPairwise ? ScorePlan::kPairs
                                                                    : ScorePlan::kScalar;
  }
  UpdatePlan update_plan() const override {
    return {.epochs = method_.config.epochs, .minibatches = method_.config.minibatches};
  }

  Batch build_batch(Experience& e, const BatchContext& /*context*/) override {
    const Preferences preference(e, method_.config.preference, method_.config.missing_eos_penalty);
    Batch out;
    out.units.emplace();
    out.constants = at::zeros({e.sequences(), 2}, at::kDouble);
    const at::Tensor ratio = (e.proximal_logprob - e.reference_logprob).to(at::kDouble);
    const at::Tensor ratios = segment_sum(ratio, e.sequence_of, e.sequences());
    double win_gap = 0, kl = 0, policy_responses = 0;
    int64_t skipped = 0;
    for (const PromptGroup& group : prompt_groups(e, method_.others.size() + 1)) {
      std::vector<int64_t> trained;
      for (size_t voice = 0; voice < group.voices.size(); ++voice) {
        if (voice > 0 && !method_.others[voice - 1].trained) continue;
        trained.insert(trained.end(), group.voices[voice].begin(), group.voices[voice].end());
      }
      for (const int64_t i : trained) {
        if (is_other(e, i)) continue;
        kl += ratios.const_data_ptr<double>()[i];
        policy_responses += 1;
      }
      const auto pair = choose(e, preference, trained);
      if (!pair) {
        ++skipped;
        continue;
      }
      for (const auto& [sequence, win] : {pair->first, pair->second}) {
        out.constants[sequence][0] = win;
        out.constants[sequence][1] = is_other(e, sequence) ? 1 : 0;
      }
      win_gap += pair->first.win - pair->second.win;
      out.units->push_back({pair->first.sequence, pair->second.sequence});
    }
    const auto pairs = static_cast<double>(out.units->size());
    out.metrics = {{name() + "/pairs", pairs},
                   {name() + "/skipped", static_cast<double>(skipped)},
                   {name() + "/win_gap", win_gap / std::max(pairs, 1.0)}};
    if (policy_responses > 0) out.metrics.emplace_back("objective/kl", kl / policy_responses);
    return out;
  }

  LossResult loss(const MicroBatch& b) const override {
    const auto sums = [&](const at::Tensor& per_token) {
      if (!per_token.defined()) return at::Tensor();
      return segment_sum(per_token, b.sequence_of, b.sequences).view({-1, 2});
    };
    const auto column = [&](int64_t which) {
      return b.constants.select(1, which).to(b.logprob.scalar_type()).view({-1, 2});
    };
    const PairLogprobs pairs{.policy = sums(b.logprob),
                             .reference = sums(b.reference_logprob),
                             .anchor = sums(b.anchor_logprob),
                             .win = column(0),
                             .other = column(1)};
    const PairLosses each = method_.loss(pairs);
    const auto count = static_cast<double>(each.loss.numel());
    LossResult out;
    out.loss = each.loss.sum() / b.denominators.pairs;
    const auto report = [&](const std::string& what, const at::Tensor& values) {
      out.statistics.push_back(
          {name() + "/" + what, values.detach().to(at::kDouble).sum().item<double>(), count});
    };
    report("loss", each.loss);
    for (const auto& [what, values] : each.figures) report(what, values);
    return out;
  }

 private:
  struct Member {
    int64_t sequence = 0;
    double win = 0.5;
  };

  bool is_other(const Experience& e, int64_t sequence) const {
    return !e.voice.empty() && e.voice[static_cast<size_t>(sequence)] != 0;
  }

  static bool same_tokens(const Experience& e, int64_t i, int64_t j) {
    const auto response = [&](int64_t k) {
      const auto at = static_cast<size_t>(k);
      return e.tokens.slice(0, e.offsets[at] + e.prompt_lengths[at], e.offsets[at + 1]);
    };
    return response(i).equal(response(j));
  }

  std::optional<std::pair<Member, Member>> choose(const Experience& e,
                                                  const Preferences& preference,
                                                  const std::vector<int64_t>& from) const {
    if (from.size() < 2) return std::nullopt;
    Member first{from[0]}, second{from[1]};
    if (method_.choice == PairChoice::kFirstTwo) {
      first.win = preference(first.sequence, second.sequence);
      second.win = 1 - first.win;
    } else {
      // Of equal ones the earlier is best, the later worst.
      std::vector<Member> all;
      for (const int64_t i : from) all.push_back({i, *preference.mean(i, from)});
      const auto by_win = [](const Member& a, const Member& b) { return a.win < b.win; };
      first = *std::max_element(all.begin(), all.end(), by_win);
      second = *std::min_element(all.rbegin(), all.rend(), by_win);
    }
    if (first.sequence == second.sequence || same_tokens(e, first.sequence, second.sequence))
      return std::nullopt;
    if (method_.ordered) {
      if (first.win == second.win) return std::nullopt;
      if (first.win < second.win) std::swap(first, second);
    }
    return std::pair{first, second};
  }

  OnlinePairs method_;
};

}  // namespace

std::unique_ptr<Algorithm> make_online_pairs(OnlinePairs method) {
  PRAETOR_CHECK(method.loss, method.name, " has no loss");
  return std::make_unique<OnlinePairsAlgorithm>(std::move(method));
}

}  // namespace praetor
