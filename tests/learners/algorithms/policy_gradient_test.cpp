// What all critic-free policy gradients, and RAFT, have in common.
#include "learners/algorithms/policy_gradient.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/groups.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::algorithm_from;
using testing::flat_state;
using testing::group_learner;
using testing::group_rolls;
using testing::make_groups;
using testing::metric;
using testing::Roll;
using testing::scored;
using testing::vec;

namespace {

const std::vector<std::string> kPolicyGradients{
    "grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce_pp", "remax"};

std::vector<std::string> with_raft() {
  std::vector<std::string> out = kPolicyGradients;
  out.emplace_back("raft");
  return out;
}

StepReport update(Learner& learner, const std::vector<Roll>& rolls, int64_t samples = 4) {
  Experience e = make_groups(rolls, samples, learner.policy(), learner.algorithm());
  return learner.update(e);
}

}  // namespace

TEST_CASE("losses have the gradients of differences", "[learners][cpu]") {
  for (const std::string& name : with_raft()) {
    INFO(name);
    CHECK(testing::loss_gradient_error(*algorithm_from(name)) < 1e-7);
  }
  const std::vector<std::pair<std::string, std::string>> variants{
      {"grpo", "{dual_clip: 1.5, kl: {estimator: k2}, mismatch: {correction: token_tis}}"},
      {"rloo", "{ratio: token, mask_truncated: true, mismatch: {correction: sequence_tis}}"},
      {"reinforce_pp", "{baseline: group, gamma: 0.9}"},
      {"gspo", "{clip_low: 0.3, clip_high: 0.4, kl: {placement: loss, coefficient: 0.5}}"}};
  for (const auto& [name, yaml] : variants) {
    INFO(name << " " << yaml);
    CHECK(testing::loss_gradient_error(*algorithm_from(name, yaml)) < 1e-7);
  }
}

TEST_CASE("updates do not depend on the micro-batch cut", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : with_raft()) {
    INFO(name);
    const std::string yaml = "{epochs: 2, minibatches: 2}";
    const auto after = [&](int64_t budget) {
      return testing::weights_after(name, yaml, 2, budget);
    };
    CHECK(testing::cut_error(after) < 1e-5);
  }
}

TEST_CASE("at the start ratios are 1 and nothing is clipped", "[learners][cpu]") {
  for (const std::string& name : kPolicyGradients) {
    INFO(name);
    Learner learner = group_learner(algorithm_from(name));
    const StepReport report = update(learner, group_rolls());
    CHECK(metric(report, "policy/ratio_max") == Approx(1).margin(1e-5));
    CHECK(metric(report, "policy/approx_kl") < 1e-9);
    CHECK(metric(report, "policy/clip_fraction_high") == 0);
    CHECK(metric(report, "policy/clip_fraction_low") == 0);
    CHECK(metric(report, "mismatch/kl_k3") < 1e-9);
    if (learner.algorithm().models().reference) CHECK(metric(report, "objective/kl") == 0);
    CHECK(report.optimizer_steps == 1);
    for (const auto& [key, value] : report.metrics) {
      INFO(key);
      CHECK(std::isfinite(value));
    }
  }
}

TEST_CASE("scores moved by a constant of the prompt change no update", "[learners][cpu]") {
  for (const std::string name : {"grpo", "dr_grpo", "dapo", "gspo", "rloo", "remax"}) {
    INFO(name);
    Learner a = group_learner(algorithm_from(name)), b = group_learner(algorithm_from(name));
    auto rolls = group_rolls();
    const StepReport first = update(a, rolls);
    for (size_t i = 0; i < rolls.size(); ++i) rolls[i].score += i < 4 ? 8 : -4;
    CHECK(metric(update(b, rolls), "policy/grad_norm") ==
          Approx(metric(first, "policy/grad_norm")).epsilon(1e-5));
  }
}

TEST_CASE("prompts that scored alike teach nothing", "[learners][cpu]") {
  for (const std::string name : {"grpo", "dr_grpo", "dapo", "gspo", "rloo", "remax"}) {
    INFO(name);
    Learner learner = group_learner(algorithm_from(name, "{kl: {placement: none}}"));
    auto rolls = group_rolls();
    for (Roll& roll : rolls) roll = {roll.prompt, roll.response, 0.1, true};
    const StepReport report = update(learner, rolls);
    // Lengths differ, but dapo's punishment of long ones does not reach any here.
    CHECK(metric(report, "policy/grad_norm") == 0);
    CHECK(metric(report, "adv/std") == 0);
  }
}

TEST_CASE("a single sample a prompt and empty responses are no trouble", "[learners][cpu]") {
  for (const std::string& name : with_raft()) {
    INFO(name);
    Learner learner = group_learner(algorithm_from(name));
    const StepReport alone = update(learner, {{{1, 2}, {3, 4}, 1.0, true}}, 1);
    for (const auto& [key, value] : alone.metrics) {
      INFO(key);
      CHECK(std::isfinite(value));
    }
    const at::Tensor before = flat_state(learner, true);
    CHECK(update(learner, {{{1, 2}, {}, 1.0, true}, {{1, 2}, {}, 0.5, false}}, 2).optimizer_steps ==
          0);
    CHECK(at::equal(flat_state(learner, true), before));
  }
}

TEST_CASE("masked truncated responses do not touch the weights but by their scores",
          "[learners][cpu]") {
  for (const std::string& name : kPolicyGradients) {
    INFO(name);
    const auto make = [&] { return group_learner(algorithm_from(name, "{mask_truncated: true}")); };
    Learner a = make(), b = make();
    auto rolls = group_rolls();
    update(a, rolls);
    rolls[2].response = {1, 1, 1};  // another text of the same score, cut as well
    update(b, rolls);
    CHECK(at::equal(flat_state(a, true), flat_state(b, true)));
    for (Roll& roll : rolls) roll.finished = false;
    const at::Tensor before = flat_state(a);
    CHECK(update(a, rolls).optimizer_steps == 0);
    CHECK(at::equal(flat_state(a), before));
  }
}

TEST_CASE("a drifted engine is measured and its weight corrected", "[learners][cpu]") {
  const auto norm_of = [](const std::string& yaml, double drift) {
    Learner learner = group_learner(algorithm_from("rloo", yaml));
    Experience e = make_groups(group_rolls(), 4, learner.policy(), learner.algorithm());
    e.behavior_logprob = e.behavior_logprob - drift;  // the engine found every token less likely
    const StepReport report = learner.update(e);
    CHECK(metric(report, "mismatch/kl_k1") == Approx(-drift).epsilon(1e-4));
    return metric(report, "policy/grad_norm");
  };
  const double plain = norm_of("{}", 0.5);
  // Every token weighs min(e^0.5, C).
  CHECK(norm_of("{mismatch: {correction: token_tis}}", 0.5) ==
        Approx(std::exp(0.5) * plain).epsilon(1e-4));
  CHECK(norm_of("{mismatch: {correction: token_tis, cap: 1.25}}", 0.5) ==
        Approx(1.25 * plain).epsilon(1e-4));
  // All sequences are outside the band: nothing is left to learn from.
  Learner learner =
      group_learner(algorithm_from("rloo", "{mismatch: {correction: sequence_mask, cap: 1.01}}"));
  Experience e = make_groups(group_rolls(), 4, learner.policy(), learner.algorithm());
  e.behavior_logprob = e.behavior_logprob - 0.5;
  CHECK(learner.update(e).optimizer_steps == 0);
}

TEST_CASE("the KL of the whole sequence is taken from its score", "[learners][cpu]") {
  const auto rloo = algorithm_from("rloo", "{kl: {coefficient: 0.1}}");
  Experience e = scored({1, 2}, 2, {2, 1});
  e.reference_logprob = vec({-1.5, -0.8, -2});  // k1 sums: 0.3 and 1
  const Batch batch = rloo->build_batch(e, {});
  const StepReport report{.metrics = batch.metrics};
  CHECK(metric(report, "objective/kl") == Approx(0.65));
  CHECK(metric(report, "objective/score") == Approx(1.5));
  CHECK(metric(report, "objective/reward") == Approx(1.5 - 0.065));
  // 0.97 and 1.9, each less the other.
  CHECK(at::allclose(e.advantage, vec({-0.93, -0.93, 0.93})));
}

TEST_CASE("the adaptive coefficient moves and is part of the state", "[learners][cpu]") {
  Learner learner = group_learner(
      algorithm_from("grpo", "{kl: {controller: adaptive, horizon: 80, coefficient: 0.05}}"));
  update(learner, group_rolls());
  const auto state = nlohmann::json::parse(learner.state_json());
  CHECK(state["state"]["kl_coefficient"].get<double>() == Approx(0.05 * (1 - 0.2 * 8 / 80)));
  CHECK_THROWS_AS(algorithm_from("grpo")->load_state_json("{}"), CheckpointError);
  const auto other = algorithm_from("grpo");
  other->load_state_json(R"({"kl_coefficient": 0.5})");
  CHECK(nlohmann::json::parse(other->state_json())["kl_coefficient"] == 0.5);
}

TEST_CASE("wrong keys are all reported at once", "[learners][cpu]") {
  const std::string text =
      "clip_low: 1.7\nclip_hgih: 0.3\ndual_clip: 0.5\nepochs: 0\nratio: tokens\n"
      "aggregation: mean\noverlong_buffer: 2\nkl: {placement: loss, estimator: k1}\n"
      "mismatch: {correction: tis}\n";
  for (const std::string& name : kPolicyGradients) {
    const auto document = YamlDocument::parse(text);
    make_algorithm(name, {document->root()});
    std::string all;
    for (const auto& error : document->errors()) all += error + "\n";
    INFO(name << ": " << all);
    CHECK(document->errors().size() == 9);
    for (const char* key : {"clip_low",
                            "clip_high",
                            "dual_clip",
                            "epochs",
                            "ratio",
                            "aggregation",
                            "overlong_buffer",
                            "kl.estimator",
                            "mismatch.correction"})
      CHECK_THAT(all, Catch::Contains(key));
  }
}

TEST_CASE("the mean gradient over all samples is that of the objective", "[learners][cpu]") {
  // A bandit of four actions, two samples: J = sum pi (r - beta log(pi / pi_ref)), enumerated.
  const at::Tensor reward = vec({1, 0, -0.5, 2}), reference = vec({0.3, 0, -0.2, 0.1});
  const auto both =
      [&](const std::string& name, const std::string& yaml, double beta, const at::Tensor& logits) {
        const auto method = algorithm_from(name, yaml);
        const at::Tensor x = logits.clone().set_requires_grad(true);
        const at::Tensor policy = at::log_softmax(x, 0), anchor = at::log_softmax(reference, 0);
        at::Tensor loss = at::zeros({}, at::kDouble);
        for (int64_t a = 0; a < 4; ++a) {
          for (int64_t b = 0; b < 4; ++b) {
            const at::Tensor pair = testing::ids({a, b});
            Experience e = scored({reward[a].item<double>(), reward[b].item<double>()}, 2);
            const at::Tensor logprob = policy.index_select(0, pair);
            e.proximal_logprob = e.behavior_logprob = logprob.detach();
            e.reference_logprob = anchor.index_select(0, pair);
            const Batch batch = method->build_batch(e, {});
            loss = loss + logprob.detach().sum().exp() *
                              method->loss(testing::whole_batch(e, batch, logprob)).loss;
          }
        }
        loss.backward();
        const at::Tensor y = logits.clone().set_requires_grad(true);
        const at::Tensor pi = at::log_softmax(y, 0);
        (-(pi.exp() * (reward - beta * (pi - anchor))).sum()).backward();
        return std::pair(x.grad(), y.grad());
      };
  const at::Tensor start = vec({0.1, -0.4, 0.7, 0});
  const auto [rloo, wanted] = both("rloo", "{kl: {coefficient: 0.3}}", 0.3, start);
  CHECK(at::allclose(rloo, wanted, 1e-10, 1e-12));
  CHECK(wanted.abs().max().item<double>() > 0.05);
  // It vanishes where the policy is pi_ref exp(r / beta).
  const auto [at_best, zero] =
      both("rloo", "{kl: {coefficient: 0.3}}", 0.3, reference + reward / 0.3);
  CHECK(at_best.abs().max().item<double>() < 1e-12);
  // A mean that holds the sample itself takes 1 / K off.
  const auto [dr_grpo, plain] = both("dr_grpo", "{max_tokens: 1}", 0, start);
  CHECK(at::allclose(dr_grpo, plain / 2, 1e-10, 1e-12));
}

TEST_CASE("every method raises the probability of the rewarded token", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : with_raft()) {
    const std::string yaml = name == "raft" ? "{}" : "{kl: {placement: none}}";
    Learner learner = group_learner(algorithm_from(name, yaml), 1e-2);
    const auto distribution = [&] {
      const at::NoGradGuard no_grad;
      return at::softmax(learner.policy().logits(learner.policy().hidden(pack({{1}}))), -1)[0].to(
          at::kDouble);
    };
    const double before = distribution()[3].item<double>();
    RandomStream stream({.job_seed = 9});
    for (int step = 0; step < 25; ++step) {
      const at::Tensor cumulative = distribution().cumsum(0);
      std::vector<Roll> rolls;
      for (int i = 0; i < 32; ++i) {
        const int64_t token =
            std::min<int64_t>(cumulative.le(stream.uniform()).sum().item<int64_t>(), 10);
        rolls.push_back({{1}, {token}, token == 3 ? 1.0 : 0.0, true});
      }
      if (name == "remax") {
        for (size_t i = 7; i < rolls.size(); i += 8) {
          const int64_t likely = distribution().argmax().item<int64_t>();
          rolls[i] = {{1}, {likely}, likely == 3 ? 1.0 : 0.0, true};
        }
      }
      update(learner, rolls, 8);
    }
    const double after = distribution()[3].item<double>();
    INFO(name << ": " << before << " to " << after);
    CHECK(before < 0.3);
    CHECK(after > 0.7);
  }
}

}  // namespace praetor
