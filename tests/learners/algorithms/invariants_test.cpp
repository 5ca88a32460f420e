// What holds of every online method, whatever its formula: one table over the registry. A method
// that is registered later is covered by itself, or stands by name, with its reason, among those
// that an invariant is not for.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "learners/learner.h"
#include "tests/learners/support/groups.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"

namespace praetor {

using testing::Roll;
using Reasons = std::map<std::string, std::string>;

namespace {

struct Method {
  std::string title;  ///< the algorithm, and what of it where there are several
  std::string name;
  std::string yaml;  ///< keys that make it this one
};

bool accepts(const Method& method, const std::string& keys) {
  const auto document = YamlDocument::parse("{" + method.yaml + keys + "}");
  make_algorithm(method.name, {document->root()});
  return document->errors().empty();
}

std::unique_ptr<Algorithm> make(const Method& method, const std::string& keys = "") {
  return testing::algorithm_from(method.name, "{" + method.yaml + keys + "}");
}

/// Every online algorithm, cgpo with each of its optimizers.
const std::vector<Method>& methods() {
  static const std::vector<Method> kAll = [] {
    std::vector<Method> out;
    for (const std::string& name : algorithm_names()) {
      if (!testing::algorithm_from(name)->online()) continue;
      if (name != "cgpo") {
        out.push_back({name, name, ""});
        continue;
      }
      for (const std::string optimizer : {"crpg", "codpo", "crraft"})
        out.push_back({"cgpo " + optimizer, name, "optimizer: " + optimizer + ", "});
    }
    return out;
  }();
  return kAll;
}

/// One optimizer step an update, where the method can have more.
std::string one_step(const Method& method) {
  return accepts(method, "epochs: 1") ? "epochs: 1" : "";
}

/// Prompts with what the plan asks for, at most `most` samples of each voice: responses of one to
/// four tokens and different scores, every second one within the constraints.
std::vector<Roll> batch_of(const Algorithm& algorithm, int64_t prompts = 4, int64_t most = 3) {
  const SamplePlan plan = algorithm.sample_plan();
  std::vector<Roll> out;
  for (int64_t prompt = 0; prompt < prompts; ++prompt) {
    int32_t sample = 0;
    const auto add = [&](int64_t count, int32_t voice) {
      for (int64_t k = 0; k < count; ++k, ++sample) {
        const auto n = static_cast<int64_t>(out.size());
        Roll roll{.prompt = {1, prompt}, .response = {(sample + prompt) % 11}};
        for (int64_t t = 0; t < n % 4; ++t) roll.response.push_back((3 * n + 5 * t) % 11);
        roll.score = 0.125 * static_cast<double>(7 * n % 16) - 0.5;
        roll.finished = n % 5 != 0;
        roll.ordinal = prompt;
        roll.sample = sample;
        roll.voice = voice;
        roll.satisfied = voice > 0 || sample % 2 == 0 ? 1 : 0;
        out.push_back(roll);
      }
    };
    add(std::min(plan.samples_per_prompt, most), 0);
    for (size_t v = 0; v < plan.others.size(); ++v)
      add(std::min(plan.others[v].samples, most), static_cast<int32_t>(v) + 1);
  }
  return out;
}

/// The same samples, the prompts and the samples of each voice in the opposite order.
std::vector<Roll> turned(const std::vector<Roll>& rolls) {
  const int64_t last = rolls.back().ordinal;
  std::vector<Roll> out;
  for (int64_t prompt = last; prompt >= 0; --prompt) {
    int32_t sample = 0;
    for (int32_t voice = 0; voice < 4; ++voice) {
      for (auto roll = rolls.rbegin(); roll != rolls.rend(); ++roll) {
        if (roll->ordinal != prompt || roll->voice != voice) continue;
        out.push_back(*roll);
        out.back().ordinal = last - prompt;
        out.back().sample = sample++;
      }
    }
  }
  return out;
}

struct Options {
  int64_t micro_batch_tokens = 8192;
  Collective* ranks = nullptr;
};

/// Gradients are not clipped, so that they can be told from each other by their size.
Learner learner_of(std::unique_ptr<Algorithm> algorithm, const Options& options = {}) {
  LearnerConfig config;
  config.optimizer.learning_rate = 1e-2;
  config.optimizer.max_grad_norm = 0;
  config.micro_batch_tokens = options.micro_batch_tokens;
  config.max_new_tokens = 8;
  LearnerModels models;
  models.policy = testing::tiny_policy();
  return Learner(config, std::move(algorithm), std::move(models), options.ranks);
}

StepReport update(Learner& learner, const std::vector<Roll>& rolls) {
  Experience e = testing::make_experience(rolls, learner.policy());
  if (learner.algorithm().sample_plan().direction) {  // the score is the first of two objectives
    e.attribute_names = {"score", "other"};
    e.attributes = at::stack({e.score, at::zeros_like(e.score)}, 1).to(at::kDouble);
    e.attribute_weights = at::tensor({1.0, 0.0}, at::kDouble).expand_as(e.attributes).contiguous();
  }
  return learner.update(e);
}

at::Tensor policy_weights(const Learner& learner) {
  std::vector<at::Tensor> parts;
  for (const NamedTensor& t : learner.policy().parameters())
    parts.push_back(t.tensor.detach().flatten().to(at::kDouble));
  return at::cat(parts).clone();
}

/// The policy's gradient in the first step on `rolls`, by Adam's first moment.
at::Tensor gradient(const Method& method,
                    const std::vector<Roll>& rolls,
                    int64_t micro_batch_tokens = 8192) {
  Learner learner =
      learner_of(make(method, one_step(method)), {.micro_batch_tokens = micro_batch_tokens});
  update(learner, rolls);
  std::vector<at::Tensor> parts;
  for (const NamedTensor& t : learner.state()) {
    if (t.name.starts_with("optimizer/policy/exp_avg/"))
      parts.push_back(t.tensor.flatten().to(at::kDouble) / 0.1);
  }
  return at::cat(parts);
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

void check_finite(const StepReport& report) {
  for (const auto& [key, value] : report.metrics) {
    INFO(key);
    CHECK(std::isfinite(value));
  }
}

/// Every name of a table is a method's: none is left over from one that is gone or renamed.
template <typename Table>
void check_names(const Table& table) {
  for (const auto& [title, what] : table) {
    INFO(title);
    CHECK(std::any_of(methods().begin(), methods().end(), [&](const Method& method) {
      return method.title == title;
    }));
  }
}

}  // namespace

TEST_CASE("the first step begins at ratio 1 and at the reference", "[learners][cpu]") {
  const Reasons unmeasured{{"raft", "learns by likelihood: no ratio, and by default no reference"},
                           {"dpa", "likewise"},
                           {"ipo_md", "the mixture's samples are no measure of the policy's KL"},
                           {"inpo", "nor are the anchor's"},
                           {"sppo", "nor are the anchor's"}};
  check_names(unmeasured);
  for (const Method& method : methods()) {
    INFO(method.title);
    Learner learner = learner_of(make(method, one_step(method)));
    const StepReport report = update(learner, batch_of(learner.algorithm()));
    check_finite(report);
    CHECK(report.optimizer_steps == 1);
    int measured = 0;
    for (const auto& [key, value] : report.metrics) {
      INFO(key);
      if (key == "objective/kl" || key == "policy/ratio_error") ++measured;
      if (key == "objective/kl") CHECK(value == Approx(0).margin(1e-6));
      if (key == "policy/ratio_max") CHECK(value == Approx(1).margin(1e-5));
      if (key == "policy/ratio_error" || key.starts_with("policy/clip_fraction"))
        CHECK(value == Approx(0).margin(1e-5));
      if (key == "policy/approx_kl" || key == "mismatch/kl_k3") CHECK(std::abs(value) < 1e-9);
    }
    CHECK((measured > 0) == !unmeasured.contains(method.title));
  }
}

TEST_CASE("no update depends on the cut into micro-batches", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const Method& method : methods()) {
    INFO(method.title);
    const std::string several = "epochs: 2, minibatches: 2";
    const auto weights_after = [&](int64_t budget) {
      Learner learner = learner_of(make(method, accepts(method, several) ? several : ""),
                                   {.micro_batch_tokens = budget});
      for (int step = 0; step < 3; ++step) update(learner, batch_of(learner.algorithm()));
      return policy_weights(learner);
    };
    const auto rolls = batch_of(*make(method));
    CHECK(distance(gradient(method, rolls, 1), gradient(method, rolls)) < 1e-6);
    // Up to twelve steps of AdamW, which takes rounding in a gradient near 0 for a direction.
    CHECK(distance(weights_after(1), weights_after(8192)) < 3e-5);
  }
}

TEST_CASE("no gradient depends on the order of prompts or of their samples", "[learners][cpu]") {
  for (const Method& method : methods()) {
    INFO(method.title);
    const auto rolls = batch_of(*make(method));
    const at::Tensor straight = gradient(method, rolls);
    CHECK(straight.norm().item<double>() > 1e-3);
    CHECK(distance(gradient(method, turned(rolls)), straight) < 1e-5);
  }
}

TEST_CASE("two ranks learn what one does, whatever the method", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const Method& method : methods()) {
    INFO(method.title);
    const auto weights_after = [&](Collective* ranks) {
      Learner learner = learner_of(make(method), {.micro_batch_tokens = 9, .ranks = ranks});
      for (int step = 0; step < 2; ++step) update(learner, batch_of(learner.algorithm()));
      return policy_weights(learner);
    };
    std::vector<at::Tensor> weights(2);
    const auto errors = testing::run_ranks(2, [&](Collective& ranks) {
      weights[static_cast<size_t>(ranks.rank())] = weights_after(&ranks);
    });
    REQUIRE(errors == std::vector<std::string>(2));
    CHECK(at::equal(weights[0], weights[1]));
    CHECK(distance(weights[0], weights_after(nullptr)) < 1e-5);
  }
}

TEST_CASE("a single sample to each prompt is no trouble", "[learners][cpu]") {
  const Reasons pairs{{"online_dpo", "two samples of the policy make a pair"},
                      {"online_ipo", "two of the policy"},
                      {"ipo_md", "two of the mixture"},
                      {"inpo", "the best and the worst"},
                      {"sppo", "the best and the worst"},
                      {"cgpo codpo", "the best and the worst"}};
  check_names(pairs);
  for (const Method& method : methods()) {
    INFO(method.title);
    Learner learner = learner_of(make(method));
    const auto rolls = batch_of(learner.algorithm(), 2, 1);
    const at::Tensor before = policy_weights(learner);
    const StepReport report = update(learner, rolls);
    check_finite(report);
    CHECK((report.optimizer_steps == 0) == pairs.contains(method.title));
    CHECK(at::equal(policy_weights(learner), before) == pairs.contains(method.title));
  }
}

TEST_CASE("empty responses are no trouble, and nothing is learned from them alone",
          "[learners][cpu]") {
  for (const Method& method : methods()) {
    INFO(method.title);
    Learner learner = learner_of(make(method));
    auto rolls = batch_of(learner.algorithm());
    rolls[0].response.clear();
    const StepReport report = update(learner, rolls);
    check_finite(report);
    CHECK(report.optimizer_steps > 0);
    const at::Tensor before = policy_weights(learner);
    for (Roll& roll : rolls) roll.response.clear();
    CHECK(update(learner, rolls).optimizer_steps == 0);
    CHECK(at::equal(policy_weights(learner), before));
  }
}

TEST_CASE("when every response is masked nothing is learned", "[learners][cpu]") {
  const std::string pays = "has no mask: a truncated response pays missing_eos_penalty";
  const Reasons unmasked{{"nash_md", pays},
                         {"nash_ema", pays},
                         {"online_dpo", pays},
                         {"online_ipo", pays},
                         {"ipo_md", pays},
                         {"xpo", pays},
                         {"inpo", pays},
                         {"sppo", pays},
                         {"cgpo crpg", pays},
                         {"cgpo codpo", pays},
                         {"cgpo crraft", pays},
                         {"raft", pays},
                         {"dpa", pays}};
  check_names(unmasked);
  const std::string masked = "mask_truncated: true";
  for (const Method& method : methods()) {
    INFO(method.title);
    CHECK(accepts(method, masked) == !unmasked.contains(method.title));
    if (!accepts(method, masked)) {
      CHECK(accepts(method, "missing_eos_penalty: 1"));
      continue;
    }
    Learner learner = learner_of(make(method, masked));
    auto rolls = batch_of(learner.algorithm());
    for (Roll& roll : rolls) roll.finished = false;
    const at::Tensor before = testing::flat_state(learner).clone();
    CHECK(update(learner, rolls).optimizer_steps == 0);
    CHECK(at::equal(testing::flat_state(learner), before));
  }
}

TEST_CASE("where every response violates a constraint CGPO learns nothing or the baseline",
          "[learners][cpu]") {
  for (const Method& method : methods()) {
    INFO(method.title);
    auto rolls = batch_of(*make(method));
    for (Roll& roll : rolls) roll.satisfied = roll.voice > 0 ? 1 : 0;
    const at::Tensor violated = gradient(method, rolls);
    if (method.title == "cgpo crpg" || method.title == "cgpo codpo") {
      CHECK(violated.abs().max().item<double>() == 0);
      continue;
    }
    if (method.title == "cgpo crraft") {
      // The reference's answers alone, each at R_calib 1/2; and nothing where they violate too.
      CHECK(violated.norm().item<double>() > 1e-3);
      auto others = rolls;
      for (Roll& roll : others) {
        if (roll.voice == 0) roll.score += 1, roll.response = {2};
      }
      CHECK(distance(gradient(method, others), violated) < 1e-5);
      for (Roll& roll : rolls) roll.satisfied = 0;
      CHECK(gradient(method, rolls).abs().max().item<double>() == 0);
      continue;
    }
    for (Roll& roll : rolls) roll.satisfied = -1;  // no other method hears of constraints
    CHECK(at::equal(gradient(method, rolls), violated));
  }
}

TEST_CASE("scores moved by a constant of the prompt change no gradient", "[learners][cpu]") {
  const Reasons moved{{"ppo", "scores are held against the critic's values"},
                      {"reinforce_pp", "the baseline is the mean of the whole batch"}};
  check_names(moved);
  for (const Method& method : methods()) {
    INFO(method.title);
    auto rolls = batch_of(*make(method));
    const at::Tensor before = gradient(method, rolls);
    for (Roll& roll : rolls) roll.score += roll.ordinal % 2 == 0 ? 8 : -4;
    const double change = distance(gradient(method, rolls), before);
    CAPTURE(change);
    CHECK((moved.contains(method.title) ? change > 1e-2 : change < 1e-5));
  }
}

TEST_CASE("scores four times as large change gradients as their method says", "[learners][cpu]") {
  enum class Change { kNone, kFourfold, kOther };
  const std::map<std::string, Change> wanted{
      {"ppo", Change::kOther},      // against values that are not scaled
      {"nash_md", Change::kOther},  // through a sigmoid, as are all others of this kind
      {"nash_ema", Change::kOther},    {"online_dpo", Change::kNone},  // the order alone
      {"online_ipo", Change::kOther},  {"ipo_md", Change::kOther},
      {"xpo", Change::kNone},          {"inpo", Change::kNone},
      {"sppo", Change::kOther},        {"cgpo crpg", Change::kOther},
      {"cgpo codpo", Change::kNone},   {"cgpo crraft", Change::kOther},
      {"grpo", Change::kNone},  // divided by their deviation
      {"dr_grpo", Change::kFourfold},  {"dapo", Change::kNone},
      {"gspo", Change::kNone},         {"rloo", Change::kFourfold},
      {"reinforce_pp", Change::kNone},  // whitened
      {"remax", Change::kFourfold},    {"raft", Change::kNone},
      {"dpa", Change::kNone}};
  check_names(wanted);
  for (const Method& method : methods()) {
    INFO(method.title);
    auto rolls = batch_of(*make(method));
    for (Roll& roll : rolls) roll.finished = true;  // what a cut one pays is not scaled
    const at::Tensor before = gradient(method, rolls);
    for (Roll& roll : rolls) roll.score *= 4;
    const at::Tensor after = gradient(method, rolls);
    const double same = distance(after, before), fourfold = distance(after, 4 * before);
    CAPTURE(same, fourfold);
    REQUIRE(wanted.contains(method.title));  // a new method says which
    const Change change = wanted.at(method.title);
    CHECK((same < 1e-3) == (change == Change::kNone));
    CHECK((fourfold < 1e-5) == (change == Change::kFourfold));
  }
}

TEST_CASE("responses that all scored alike teach nothing", "[learners][cpu]") {
  const Reasons teach{{"ppo", "the critic's values differ from token to token"},
                      {"raft", "the first of the best is as good as any"},
                      {"dpa", "the first of the best is as good as any"},
                      {"cgpo crraft", "the first of the best, at R_calib 1/2"}};
  check_names(teach);
  for (const Method& method : methods()) {
    INFO(method.title);
    auto rolls = batch_of(*make(method));
    for (Roll& roll : rolls) {
      roll.score = 0.1;
      roll.finished = true;
      roll.satisfied = 1;
    }
    const double largest = gradient(method, rolls).abs().max().item<double>();
    CAPTURE(largest);
    CHECK((teach.contains(method.title) ? largest > 1e-3 : largest < 1e-7));
  }
}

}  // namespace praetor
