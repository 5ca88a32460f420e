#include "learners/algorithms/ppo.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "learners/learner.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::flat_state;
using testing::make_experience;
using testing::metric;
using testing::mixed_rolls;
using testing::Roll;
using testing::tiny_policy;
using testing::vec;

namespace {

Learner learner_of(const PpoConfig& ppo, double learning_rate = 1e-3) {
  LearnerConfig config;
  config.optimizer.learning_rate = learning_rate;
  LearnerModels models;
  models.policy = tiny_policy();
  return Learner(config, make_ppo(ppo), std::move(models));
}

PpoConfig once() {
  PpoConfig config;
  config.epochs = 1;
  return config;
}

/// Two sequences of two and one tokens, with everything the learner fills.
Experience filled() {
  Experience e =
      make_experience({{{1}, {2, 3}, 1.0, true}, {{1}, {4}, 3.0, false}}, *tiny_policy());
  e.proximal_logprob = vec({-1, -2, -1}).to(at::kFloat);
  e.reference_logprob = vec({-1.5, -1.8, -1}).to(at::kFloat);
  e.value = vec({0.5, 0.25, 1}).to(at::kFloat);
  return e;
}

at::Tensor floats(std::vector<double> values) {
  return vec(std::move(values)).to(at::kFloat);
}

}  // namespace

TEST_CASE("every key of ppo is read and wrong ones are all reported at once", "[learners][cpu]") {
  auto good = YamlDocument::parse(
      "ppo: {clip_high: 0.28, kl: {placement: loss, estimator: k3+}, critic: {shared: true}}");
  const PpoConfig c = PpoConfig::from_yaml(good->root().child("ppo"));
  CHECK(good->errors().empty());
  CHECK(c.clip_high == 0.28);
  CHECK(c.kl.estimator == "k3+");
  CHECK(c.critic.shared);
  CHECK(c.critic.optimizer.learning_rate == 1e-5);

  auto bad = YamlDocument::parse(
      "ppo:\n  clip_low: 1.7\n  clip_hgih: 0.3\n  dual_clip: 0.5\n  epochs: 0\n  kl: {placement: "
      "loss, estimator: k1}\n"
      "  critic: {shared: true, init: reward, optimizer: {beta1: 1}}\n");
  PpoConfig::from_yaml(bad->root().child("ppo"));
  CHECK(bad->errors().size() == 7);
  const std::string all = [&] {
    std::string out;
    for (const auto& error : bad->errors()) out += error + "\n";
    return out;
  }();
  for (const char* key :
       {"clip_low", "clip_high", "dual_clip", "epochs", "kl.estimator", "critic.init", "beta1"}) {
    CHECK_THAT(all, Catch::Contains(key));
  }
  for (const char* text : {"{kl: {placement: reward, estimator: k3+}}",
                           "{kl: {placement: none, controller: adaptive}}",
                           "{per_sample_kl: true, kl: {placement: none}}"}) {
    auto document = YamlDocument::parse(text);
    PpoConfig::from_yaml(document->root());
    CHECK(document->errors().size() == 1);
  }
}

TEST_CASE("PPO asks for the networks its configuration needs", "[learners][cpu]") {
  PpoConfig config;
  CHECK(make_ppo(config)->models().reference);
  CHECK(make_ppo(config)->models().critic == CriticKind::kSeparate);
  config.kl.placement = "none";
  config.critic.shared = true;
  config.samples_per_prompt = 4;
  CHECK_FALSE(make_ppo(config)->models().reference);
  CHECK(make_ppo(config)->models().critic == CriticKind::kShared);
  CHECK(make_ppo(config)->sample_plan().samples_per_prompt == 4);
  CHECK(make_ppo(config)->online());
}

TEST_CASE("a batch is shaped, estimated and whitened as worked by hand", "[learners][cpu]") {
  PpoConfig config;
  config.kl.coefficient = 0.1;
  config.gae_lambda = 1;
  config.whiten_advantages = false;
  Experience e = filled();
  const Batch batch = make_ppo(config)->build_batch(e, {});
  // rewards -0.05, 1.02 | 3; returns 0.97, 1.02 | 3.
  CHECK(at::allclose(e.reward, floats({-0.05, 1.02, 3})));
  CHECK(at::allclose(e.returns, floats({0.97, 1.02, 3})));
  CHECK(at::allclose(e.advantage, floats({0.47, 0.77, 2})));
  CHECK(batch.mask.all().item<bool>());
  const StepReport report{.metrics = batch.metrics};
  CHECK(metric(report, "objective/kl") == Approx(0.15));  // (0.5 - 0.2 + 0) / 2 sequences
  CHECK(metric(report, "objective/score") == Approx(2));
  CHECK(metric(report, "objective/reward") == Approx(2 - 0.03 / 2));
  CHECK(metric(report, "objective/kl_coefficient") == Approx(0.1));
  // Residuals G - V are the advantages: 1 - Var(A) / Var(G).
  const double wanted = 1 - floats({0.47, 0.77, 2}).var().item<double>() /
                                floats({0.97, 1.02, 3}).var().item<double>();
  CHECK(metric(report, "value/explained_variance") == Approx(wanted));
}

TEST_CASE("truncated responses can pay, be left out, or bootstrap", "[learners][cpu]") {
  PpoConfig config;
  config.kl.coefficient = 0;
  config.gae_lambda = 1;
  config.whiten_advantages = false;
  config.missing_eos_penalty = 0.5;
  Experience pay = filled();
  make_ppo(config)->build_batch(pay, {});
  CHECK(pay.reward[2].item<float>() == 2.5f);
  config.missing_eos_penalty = 0;
  config.mask_truncated = true;
  Experience out = filled();
  CHECK(at::equal(make_ppo(config)->build_batch(out, {}).mask, testing::mask_of({1, 1, 0})));
  config.mask_truncated = false;
  config.bootstrap_truncated = true;
  config.gamma = 0.5;
  Experience boot = filled();
  make_ppo(config)->build_batch(boot, {floats({100, 8})});
  CHECK(boot.returns[2].item<float>() == 7.0f);  // 3 + 0.5 * 8; the finished one has no bootstrap
  CHECK(boot.returns[1].item<float>() == 1.0f);
}

TEST_CASE("scores are normalised by the moments of all steps so far", "[learners][cpu]") {
  PpoConfig config;
  config.kl.placement = "none";
  config.score_normalise = true;
  const auto ppo = make_ppo(config);
  Experience e = filled();
  e.reference_logprob = at::Tensor();
  ppo->build_batch(e, {});
  const double root = std::sqrt(2.0);  // of the scores 1 and 3: mean 2, variance 2
  CHECK(at::allclose(e.reward, floats({0, -1 / root, 1 / root})));
  Experience next = filled();
  next.reference_logprob = at::Tensor();
  next.score = floats({2, 6});
  ppo->build_batch(next, {});
  // 1, 3, 2, 6: mean 3, variance 14 / 3.
  CHECK(next.reward[2].item<float>() == Approx(3 / std::sqrt(14.0 / 3)));
}

TEST_CASE("weights of the engine's mismatch reach PPO's advantages and not its critic",
          "[learners][cpu]") {
  PpoConfig config;
  config.whiten_advantages = false;
  Experience plain = filled(), drifted = filled();
  plain.behavior_logprob = plain.proximal_logprob;
  drifted.behavior_logprob = drifted.proximal_logprob - floats({0, 0.4, 5});
  make_ppo(config)->build_batch(plain, {});
  config.mismatch = {.correction = "token_tis", .cap = 2};
  const Batch batch = make_ppo(config)->build_batch(drifted, {});
  CHECK(at::allclose(drifted.advantage, plain.advantage * floats({1, std::exp(0.4), 2})));
  CHECK(at::equal(drifted.returns, plain.returns));
  CHECK(metric(StepReport{.metrics = batch.metrics}, "mismatch/weight_max") == 2);
  config.mismatch = {.correction = "sequence_mask", .cap = 2, .floor = 0.5};
  CHECK(at::equal(make_ppo(config)->build_batch(drifted, {}).mask, testing::mask_of({1, 1, 0})));
}

TEST_CASE("at the start the ratio is 1 and the divergence from the reference 0",
          "[learners][cpu]") {
  Learner learner = learner_of(once());
  Experience e = make_experience(mixed_rolls(), learner.policy());
  const StepReport report = learner.update(e);
  CHECK(metric(report, "objective/kl") == 0);
  CHECK(metric(report, "policy/ratio_max") == Approx(1).margin(1e-5));
  CHECK(metric(report, "policy/ratio_error") < 1e-5);
  CHECK(metric(report, "policy/approx_kl") < 1e-9);
  CHECK(metric(report, "policy/clip_fraction_low") == 0);
  CHECK(metric(report, "policy/clip_fraction_high") == 0);
  CHECK(metric(report, "mismatch/logprob_max") < 1e-5);
  // The advantages are whitened: at ratio 1 the loss is minus their mean.
  CHECK(metric(report, "policy/loss") == Approx(0).margin(1e-6));
  CHECK(metric(report, "lr") == 1e-3);
  Experience later = make_experience(mixed_rolls(), learner.policy());
  CHECK(metric(learner.update(later), "objective/kl") != 0);
}

TEST_CASE("an empty response changes nothing and a batch of them does no step", "[learners][cpu]") {
  Learner without = learner_of(once()), with = learner_of(once());
  auto rolls = mixed_rolls();
  Experience a = make_experience(rolls, without.policy());
  rolls.push_back({{1, 2, 3}, {}, 100.0, false});
  Experience b = make_experience(rolls, with.policy());
  CHECK(metric(without.update(a), "policy/loss") ==
        Approx(metric(with.update(b), "policy/loss")).margin(1e-6));
  CHECK(at::allclose(flat_state(without, true), flat_state(with, true), 1e-4, 1e-6));

  Learner idle = learner_of(once());
  const at::Tensor before = flat_state(idle);
  Experience none = make_experience({{{1, 2}, {}, 1.0, true}}, idle.policy());
  CHECK(idle.update(none).optimizer_steps == 0);
  CHECK(at::equal(flat_state(idle), before));
  CHECK(idle.step() == 1);
}

TEST_CASE("masked truncated responses do not touch the weights, whatever they scored",
          "[learners][cpu]") {
  PpoConfig config = once();
  config.mask_truncated = true;
  Learner a = learner_of(config), b = learner_of(config);
  auto rolls = mixed_rolls();
  Experience ea = make_experience(rolls, a.policy());
  rolls[1].score = 1e6;  // the one that was cut
  Experience eb = make_experience(rolls, b.policy());
  CHECK(a.update(ea).gradient_digest == b.update(eb).gradient_digest);
  CHECK(at::equal(flat_state(a), flat_state(b)));
}

TEST_CASE("equal scores and one single token give finite updates", "[learners][cpu]") {
  for (const std::vector<Roll>& rolls :
       {std::vector<Roll>{{{1}, {2}, 1, true}},
        std::vector<Roll>{{{1}, {2}, 1, true}, {{1}, {2}, 1, true}}}) {
    Learner learner = learner_of(PpoConfig{});
    Experience e = make_experience(rolls, learner.policy());
    const StepReport report = learner.update(e);
    for (const auto& [name, value] : report.metrics) {
      INFO(name);
      CHECK(std::isfinite(value));
    }
    CHECK(e.advantage.abs().max().item<float>() < 1e-3);
  }
}

TEST_CASE("the value of a token does not see the token itself", "[learners][cpu]") {
  Learner a = learner_of(once()), b = learner_of(once());
  auto rolls = mixed_rolls();
  Experience ea = make_experience(rolls, a.policy());
  rolls[0].response.back() = 9;
  rolls[2].response.back() = 9;  // a single token: its value is the prompt's
  Experience eb = make_experience(rolls, b.policy());
  a.update(ea);
  b.update(eb);
  CHECK(at::allclose(ea.value, eb.value, 1e-5, 1e-6));
  CHECK_FALSE(at::allclose(ea.proximal_logprob, eb.proximal_logprob));
}

TEST_CASE("the update ends early when it has moved too far", "[learners][cpu]") {
  const testing::OneThread one_thread;
  PpoConfig config;
  config.epochs = 50;
  config.target_kl_update = 1e-4;
  Learner learner = learner_of(config, 1e-2);
  Experience e = make_experience(mixed_rolls(), learner.policy());
  const StepReport report = learner.update(e);
  CHECK(report.optimizer_steps >= 1);
  CHECK(report.optimizer_steps < 50);
  CHECK(metric(report, "policy/approx_kl") <= 1e-4);
  CHECK(nlohmann::json::parse(report.manifest)["stopped_early"] == true);
}

TEST_CASE("the adaptive coefficient falls while the divergence is below its target",
          "[learners][cpu]") {
  PpoConfig config = once();
  config.kl.controller = "adaptive";
  config.kl.horizon = 50;
  Learner learner = learner_of(config);
  for (int step = 0; step < 2; ++step) {
    Experience e = make_experience(mixed_rolls(), learner.policy());
    learner.update(e);
  }
  // KL is near 0, so e = -0.2 twice over 5 of 50 sequences.
  const auto state = nlohmann::json::parse(learner.state_json());
  CHECK(state["state"]["kl_coefficient"].get<double>() == Approx(0.05 * 0.98 * 0.98));
}

TEST_CASE("a KL loss pulls the policy back to its reference", "[learners][cpu]") {
  const testing::OneThread one_thread;
  PpoConfig config = once();
  config.kl.placement = "loss";
  config.kl.estimator = "k2";
  config.kl.coefficient = 100;
  config.value_coefficient = 0;
  LearnerConfig settings;
  settings.optimizer.learning_rate = 1e-3;
  LearnerModels models;
  models.policy = tiny_policy(1);
  models.reference = tiny_policy(3);
  Learner learner(settings, make_ppo(config), std::move(models));
  const auto gap = [&](const Experience& e) {
    return (learner.policy_logprobs(e) - learner.reference_logprobs(e))
        .square()
        .sum()
        .item<double>();
  };
  Experience e = make_experience(mixed_rolls(), learner.policy());
  const double before = gap(e);
  for (int step = 0; step < 20; ++step) {
    Experience now = make_experience(mixed_rolls(), learner.policy());
    learner.update(now);
  }
  CHECK(gap(e) < 0.5 * before);
}

TEST_CASE("PPO raises the probability of the rewarded token", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const bool shared : {false, true}) {
    PpoConfig config;
    config.kl.coefficient = 0;
    config.critic.shared = shared;
    config.critic.optimizer.learning_rate = 1e-2;
    Learner learner = learner_of(config, 3e-3);
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
      Experience e = make_experience(rolls, learner.policy());
      learner.update(e);
    }
    CHECK(before < 0.3);
    CHECK(distribution()[3].item<double>() > 0.8);
  }
}

}  // namespace praetor
