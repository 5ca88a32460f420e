#include "learners/algorithms/cgpo.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/sigmoid.h"
#include "learners/advantage/reward_shaping.h"
#include "learners/algorithms/bradley_terry.h"
#include "learners/preference/prompt_groups.h"

namespace praetor {

namespace {

CgpoTask task_from_yaml(YamlReader& in, CgpoTask c) {
  c.optimizer = in.get("optimizer", c.optimizer, {"crpg", "codpo", "crraft"});
  c.samples_per_prompt = in.get("samples_per_prompt", c.samples_per_prompt, at_least(1));
  c.kl_max = in.get("kl_max", c.kl_max, greater_than(0));
  c.beta = in.get("beta", c.beta, greater_than(0));
  c.likelihood_coefficient =
      in.get("likelihood_coefficient", c.likelihood_coefficient, at_least(0));
  c.clip_kl_factor_at_one = in.get("clip_kl_factor_at_one", c.clip_kl_factor_at_one);
  c.length_normalise = in.get("length_normalise", c.length_normalise);
  return c;
}

}  // namespace

CgpoConfig CgpoConfig::from_yaml(YamlReader in) {
  CgpoConfig c;
  c.prompts_per_step = in.get("prompts_per_step", c.prompts_per_step, at_least(1));
  c.baseline = in.get("baseline", c.baseline, {"reference", "dataset"});
  c.missing_eos_penalty = in.get("missing_eos_penalty", c.missing_eos_penalty, at_least(0));
  c.alarm_after = in.get("alarm_after", c.alarm_after, at_least(0));
  const CgpoTask common = task_from_yaml(in, {});
  auto tasks = in.optional_child("tasks");
  if (!tasks) {
    c.tasks[""] = common;
  } else {
    for (const std::string& name : tasks->keys()) {
      YamlReader section = tasks->child(name);
      CgpoTask task = task_from_yaml(section, common);
      task.weight = section.get("weight", task.weight, at_least(0));
      section.reject_unknown_keys();
      c.tasks[name] = task;
    }
    if (c.tasks.empty()) in.error_at("tasks", "names no task; leave it out for a job with one");
  }
  in.reject_unknown_keys();
  return c;
}

double calibrated_reward(double score, double baseline_score) {
  return sigmoid(score - baseline_score);
}

double crpg_reward(double calibrated, bool satisfied, double log_ratio, const CgpoTask& task) {
  if (!satisfied) return 0;
  double factor = std::max(1 - log_ratio / task.kl_max, 0.0);
  if (task.clip_kl_factor_at_one) factor = std::min(factor, 1.0);
  return factor * calibrated;
}

at::Tensor codpo_loss(const at::Tensor& gap,
                      const at::Tensor& chosen_logprob,
                      const at::Tensor& likelihood,
                      const at::Tensor& beta) {
  return sigmoid_pair_loss(beta * gap) - likelihood * chosen_logprob;
}

namespace {

/// Columns of Batch::constants.
enum Column : int64_t {
  kForm,        ///< what follows in `Form`
  kWeight,      ///< of the sequence's or the pair's term in the step's loss
  kBeta,        ///< pairs
  kLikelihood,  ///< pairs: lambda / length
  kColumns,
};
/// Likelihood of one sequence, or a pair (its second sequence comes right behind).
enum Form : int { kSingle, kChosen, kRejected };

/// A response of the policy, with what its optimizer asks of it.
struct Answer {
  int64_t sequence = 0;
  double score = 0;
  double calibrated = 0;
  double log_ratio = 0;
  double length = 0;
  bool satisfied = true;
};

/// The answers to one prompt, and the baseline's.
struct Round {
  std::vector<Answer> answers;
  Answer baseline;  ///< calibrated 1/2
};

double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 0 : sum / static_cast<double>(values.size());
}

const Answer* best(const std::vector<const Answer*>& of, bool highest) {
  const auto by_score = [](const Answer* a, const Answer* b) { return a->score < b->score; };
  if (of.empty()) return nullptr;
  return highest ? *std::max_element(of.begin(), of.end(), by_score)
                 : *std::min_element(of.begin(), of.end(), by_score);
}

/// Fills units and constants of a batch, task by task.
class Builder {
 public:
  Builder(const Experience& e, Batch& out) : out_(out) {
    out_.units.emplace();
    out_.constants = at::zeros({e.sequences(), kColumns}, at::kDouble);
  }

  void crpg(const CgpoTask& task, const std::vector<Round>& rounds) {
    std::vector<const Answer*> all;
    std::vector<double> rewards;
    for (const Round& round : rounds) {
      for (const Answer& answer : round.answers) {
        all.push_back(&answer);
        rewards.push_back(crpg_reward(answer.calibrated, answer.satisfied, answer.log_ratio, task));
      }
    }
    const double mean = mean_of(rewards), n = static_cast<double>(all.size());
    for (size_t i = 0; i < all.size(); ++i)
      single(*all[i], task, task.weight * (rewards[i] - mean) / n);
    metrics_ = {{"reward", mean}};
  }

  void codpo(const CgpoTask& task, const std::vector<Round>& rounds) {
    std::vector<std::pair<const Answer*, const Answer*>> pairs;
    for (const Round& round : rounds) {
      std::vector<const Answer*> good, bad, all;
      for (const Answer& answer : round.answers) {
        all.push_back(&answer);
        (answer.satisfied ? good : bad).push_back(&answer);
      }
      const Answer* chosen = best(good, true);
      const Answer* rejected = best(bad.empty() ? all : bad, false);
      if (!chosen || chosen == rejected || chosen->length == 0) continue;
      pairs.emplace_back(chosen, rejected);
    }
    const double weight = task.weight / std::max(1.0, static_cast<double>(pairs.size()));
    for (const auto& [chosen, rejected] : pairs) {
      use(*chosen, kChosen, weight);
      use(*rejected, kRejected, weight);
      const auto set = [&](Column column, double value) {
        out_.constants[chosen->sequence][column] = value;
      };
      set(kBeta, task.beta);
      set(kLikelihood, task.likelihood_coefficient / chosen->length);
      out_.units->push_back({chosen->sequence, rejected->sequence});
    }
    skipped(rounds.size() - pairs.size(), rounds.size());
  }

  void crraft(const CgpoTask& task, const std::vector<Round>& rounds) {
    std::vector<const Answer*> kept;
    double fallbacks = 0;
    for (const Round& round : rounds) {
      std::vector<const Answer*> good;
      for (const Answer& answer : round.answers) {
        if (answer.satisfied && answer.log_ratio <= task.kl_max) good.push_back(&answer);
      }
      if (const Answer* chosen = best(good, true)) {
        kept.push_back(chosen);
      } else if (round.baseline.satisfied) {
        kept.push_back(&round.baseline);
        fallbacks += 1;
      }
    }
    const double n = std::max(1.0, static_cast<double>(kept.size()));
    for (const Answer* answer : kept) single(*answer, task, task.weight * answer->calibrated / n);
    skipped(rounds.size() - kept.size(), rounds.size());
    metrics_.emplace_back("baseline_used",
                          rounds.empty() ? 0 : fallbacks / static_cast<double>(rounds.size()));
  }

  /// What the last optimizer has to say.
  Metrics take_metrics() { return std::exchange(metrics_, {}); }

 private:
  void use(const Answer& answer, Form form, double weight) {
    out_.constants[answer.sequence][kForm] = static_cast<int>(form);
    out_.constants[answer.sequence][kWeight] = weight;
  }
  void single(const Answer& answer, const CgpoTask& task, double weight) {
    if (answer.length == 0) return;
    use(answer, kSingle, task.length_normalise ? weight / answer.length : weight);
    out_.units->push_back({answer.sequence});
  }
  void skipped(size_t count, size_t of) {
    metrics_.emplace_back("skipped",
                          of == 0 ? 0 : static_cast<double>(count) / static_cast<double>(of));
  }

  Batch& out_;
  Metrics metrics_;
};

class Cgpo final : public Algorithm {
 public:
  explicit Cgpo(CgpoConfig config) : config_(std::move(config)) {}

  std::string name() const override { return "cgpo"; }
  ModelPlan models() const override {
    ModelPlan plan;
    plan.reference = true;
    return plan;
  }

  SamplePlan sample_plan() const override {
    SamplePlan plan{.rows = RowForm::kPrompt, .prompts_per_step = config_.prompts_per_step};
    plan.samples_per_prompt = 0;
    bool trains_baseline = false;
    for (const auto& [name, task] : config_.tasks) {
      plan.samples_per_prompt = std::max(plan.samples_per_prompt, task.samples_per_prompt);
      if (!name.empty()) plan.samples_by_task[name] = task.samples_per_prompt;
      trains_baseline = trains_baseline || task.optimizer == "crraft";
    }
    const bool given = config_.baseline == "dataset";
    plan.others = {{.voice = given ? Voice{} : Voice{.kind = VoiceKind::kCompanion},
                    .trained = trains_baseline,
                    .from_data = given}};
    return plan;
  }

  Batch build_batch(Experience& e, const BatchContext& /*context*/) override {
    std::map<std::string, std::vector<Round>> rounds;
    const double lost = gather(e, rounds);
    Batch out;
    Builder builder(e, out);
    bool any_satisfied = false;
    double kl = 0, responses = 0;
    for (const auto& [name, of_task] : rounds) {
      const CgpoTask& task = config_.tasks.at(name);
      if (task.optimizer == "crpg") builder.crpg(task, of_task);
      if (task.optimizer == "codpo") builder.codpo(task, of_task);
      if (task.optimizer == "crraft") builder.crraft(task, of_task);
      const std::string prefix = name.empty() ? "cgpo/" : "cgpo/" + name + "/";
      for (const auto& [what, value] : builder.take_metrics())
        out.metrics.emplace_back(prefix + what, value);
      describe(task, of_task, prefix, out.metrics);
      for (const Round& round : of_task) {
        for (const Answer& answer : round.answers) {
          any_satisfied = any_satisfied || answer.satisfied;
          kl += answer.log_ratio;
          responses += 1;
        }
      }
    }
    out.metrics.emplace_back("cgpo/lost", lost);
    out.metrics.emplace_back("objective/kl", kl / std::max(1.0, responses));
    watch(any_satisfied);
    return out;
  }

  LossResult loss(const MicroBatch& b) const override {
    const auto sums = [&](const at::Tensor& per_token) {
      return segment_sum(per_token, b.sequence_of, b.sequences);
    };
    const at::Tensor logprob = sums(b.logprob);
    const at::Tensor ratio = logprob - sums(b.reference_logprob);
    const at::Tensor form = b.constants.select(1, kForm);
    const auto column = [&](Column which, const at::Tensor& rows) {
      return b.constants.select(1, which).index_select(0, rows).to(logprob.scalar_type());
    };
    const at::Tensor single = form.eq(kSingle).nonzero().view(-1);
    const at::Tensor chosen = form.eq(kChosen).nonzero().view(-1);
    LossResult out;
    out.loss = -(column(kWeight, single) * logprob.index_select(0, single)).sum();
    out.statistics.push_back(
        {"cgpo/likelihood_loss", out.loss.item<double>(), 1, Statistic::Kind::kSum});
    if (chosen.numel() == 0) return out;
    const at::Tensor gap = ratio.index_select(0, chosen) - ratio.index_select(0, chosen + 1);
    const at::Tensor each = codpo_loss(
        gap, logprob.index_select(0, chosen), column(kLikelihood, chosen), column(kBeta, chosen));
    out.loss = out.loss + (column(kWeight, chosen) * each).sum();
    const auto count = static_cast<double>(gap.numel());
    const auto sum = [](const at::Tensor& t) {
      return t.detach().to(at::kDouble).sum().item<double>();
    };
    out.statistics.push_back({"cgpo/pair_loss", sum(each), count});
    out.statistics.push_back({"cgpo/pair_gap", sum(gap), count});
    return out;
  }

  std::string state_json() const override {
    return nlohmann::json{{"violated_steps", violated_steps_}}.dump();
  }
  void load_state_json(const std::string& text) override {
    try {
      violated_steps_ = nlohmann::json::parse(text).at("violated_steps").get<int64_t>();
    } catch (const nlohmann::json::exception& error) {
      throw CheckpointError("state of cgpo: ", error.what());
    }
  }

 private:
  /// The rounds of each task. @return the share of prompts whose baseline was lost
  double gather(const Experience& e, std::map<std::string, std::vector<Round>>& rounds) const {
    const at::Tensor ratio = (e.proximal_logprob - e.reference_logprob).to(at::kDouble);
    const at::Tensor ratios = segment_sum(ratio, e.sequence_of, e.sequences());
    const auto answer_of = [&](int64_t i) {
      const auto k = static_cast<size_t>(i);
      return Answer{.sequence = i,
                    .score = penalised_score(e, i, config_.missing_eos_penalty),
                    .calibrated = 0.5,
                    .log_ratio = ratios[i].item<double>(),
                    .length = static_cast<double>(e.response_length(i)),
                    .satisfied = e.satisfied.empty() || e.satisfied[k] != 0};
    };
    double lost = 0, all = 0;
    for (const PromptGroup& group : prompt_groups(e, 2)) {
      all += 1;
      if (group.voices[0].empty() || group.voices[1].empty()) {
        lost += 1;
        continue;
      }
      Round round{.baseline = answer_of(group.voices[1].front())};
      for (const int64_t i : group.voices[0]) {
        round.answers.push_back(answer_of(i));
        round.answers.back().calibrated =
            calibrated_reward(round.answers.back().score, round.baseline.score);
      }
      rounds[task_of(e, group.voices[0].front())].push_back(std::move(round));
    }
    return all == 0 ? 0 : lost / all;
  }

  std::string task_of(const Experience& e, int64_t sequence) const {
    if (config_.tasks.contains("")) return "";
    const std::string task = e.task.empty() ? "" : e.task[static_cast<size_t>(sequence)];
    if (config_.tasks.contains(task)) return task;
    throw DataError("cgpo: a prompt of task \"",
                    task,
                    "\", but cgpo.tasks names none of that name; do the tasks of rewards and of "
                    "cgpo agree?");
  }

  static void describe(const CgpoTask& task,
                       const std::vector<Round>& rounds,
                       const std::string& prefix,
                       Metrics& out) {
    std::vector<double> satisfied, calibrated, kl, over, wins, length;
    for (const Round& round : rounds) {
      for (const Answer& answer : round.answers) {
        satisfied.push_back(answer.satisfied ? 1 : 0);
        if (answer.satisfied) calibrated.push_back(answer.calibrated);
        kl.push_back(answer.log_ratio);
        over.push_back(answer.log_ratio >= task.kl_max ? 1 : 0);
        const double gap = answer.score - round.baseline.score;
        wins.push_back(gap > 0 ? 1 : (gap == 0 ? 0.5 : 0));
        length.push_back(answer.length);
      }
    }
    const Metrics figures = {{"satisfied", mean_of(satisfied)},
                             {"calibrated", mean_of(calibrated)},
                             {"win_rate", mean_of(wins)},
                             {"kl_mean", mean_of(kl)},
                             {"kl_max", kl.empty() ? 0 : *std::max_element(kl.begin(), kl.end())},
                             {"kl_over", mean_of(over)},
                             {"length", mean_of(length)}};
    for (const auto& [what, value] : figures) out.emplace_back(prefix + what, value);
  }

  void watch(bool any_satisfied) {
    violated_steps_ = any_satisfied ? 0 : violated_steps_ + 1;
    if (config_.alarm_after == 0 || violated_steps_ == 0 ||
        violated_steps_ % config_.alarm_after != 0)
      return;
    log::warn(str("cgpo: no response of the last ",
                  violated_steps_,
                  " steps satisfied its constraints, so nothing is learned; look at the judges' "
                  "reasons in samples/, or begin with a warm-up stage (dpo)"));
  }

  CgpoConfig config_;
  int64_t violated_steps_ = 0;  ///< in a row
};

}  // namespace

std::unique_ptr<Algorithm> make_cgpo(CgpoConfig config) {
  return std::make_unique<Cgpo>(std::move(config));
}

std::unique_ptr<Algorithm> make_cgpo(const AlgorithmContext& context) {
  return make_cgpo(CgpoConfig::from_yaml(context.config));
}

}  // namespace praetor
