#include "learners/learner.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/model/ops.h"
#include "learners/algorithms/ppo.h"
#include "learners/algorithms/reward_model.h"
#include "learners/algorithms/sft.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::flat_state;
using testing::make_example;
using testing::make_experience;
using testing::metric;
using testing::mixed_rolls;
using testing::tiny_policy;
using testing::tiny_scalar;

namespace {

LearnerConfig quick(int64_t micro_batch_tokens = 1000) {
  LearnerConfig config;
  config.optimizer.learning_rate = 1e-3;
  config.micro_batch_tokens = micro_batch_tokens;
  config.seed = 5;
  return config;
}

PpoConfig busy_ppo() {
  PpoConfig config;
  config.epochs = 2;
  config.minibatches = 2;
  config.critic.optimizer.learning_rate = 2e-3;
  return config;
}

Learner ppo_learner(const PpoConfig& ppo,
                    LearnerConfig config = quick(),
                    at::ScalarType dtype = at::kFloat) {
  LearnerModels models;
  models.policy = tiny_policy(1, dtype);
  return Learner(std::move(config), make_ppo(ppo), std::move(models));
}

std::vector<Example> pairs() {
  return {make_example({1, 2}, {3, 4, 5}, 0.5),
          make_example({1, 2}, {6}),
          make_example({1}, {3, 3}),
          make_example({1}, {8, 9, 7}),
          make_example({1, 7}, {3, 2}),
          make_example({1, 7}, {9, 9, 9, 9})};
}

Learner rm_learner(LearnerConfig config = quick()) {
  LearnerModels models;
  models.scalar = tiny_scalar();
  return Learner(
      std::move(config), make_reward_model(BradleyTerryConfig{.margin = true}), std::move(models));
}

Learner sft_learner(LearnerConfig config = quick()) {
  LearnerModels models;
  models.policy = tiny_policy();
  return Learner(std::move(config), make_sft(SftConfig{}), std::move(models));
}

/// Fresh rollouts for update `step`, the same for every learner of a test.
StepReport ppo_update(Learner& learner, int step) {
  auto rolls = mixed_rolls();
  for (size_t i = 0; i < rolls.size(); ++i)
    rolls[i].score += 0.3 * std::sin(static_cast<double>(i) + step);
  Experience e = make_experience(rolls, learner.policy());
  return learner.update(e);
}

double relative_distance(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

}  // namespace

TEST_CASE("PPO does not depend on the cut into micro-batches", "[learners][cpu]") {
  PpoConfig config = busy_ppo();
  config.entropy_coefficient = 0.01;
  Learner whole = ppo_learner(config, quick(1000)), cut = ppo_learner(config, quick(7));
  for (int step = 0; step < 3; ++step) {
    const StepReport a = ppo_update(whole, step), b = ppo_update(cut, step);
    CHECK(a.optimizer_steps == 4);
    CHECK(metric(a, "policy/loss") == Approx(metric(b, "policy/loss")).margin(1e-6));
    CHECK(metric(a, "value/loss") == Approx(metric(b, "value/loss")).margin(1e-5));
    CHECK(metric(a, "policy/entropy") == Approx(metric(b, "policy/entropy")).margin(1e-5));
  }
  CHECK(relative_distance(flat_state(cut, true), flat_state(whole, true)) < 1e-6);
}

TEST_CASE("ten float64 steps agree to rounding over cuts", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const bool shared : {false, true}) {
    PpoConfig config = busy_ppo();
    config.critic.shared = shared;
    Learner whole = ppo_learner(config, quick(1000), at::kDouble),
            cut = ppo_learner(config, quick(7), at::kDouble);
    for (int step = 0; step < 3; ++step) {
      ppo_update(whole, step);
      ppo_update(cut, step);
    }
    CHECK(relative_distance(flat_state(cut, true), flat_state(whole, true)) < 1e-11);
  }
}

TEST_CASE("SFT and the reward model do not depend on the cut into micro-batches",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  Learner whole = sft_learner(quick(1000)), cut = sft_learner(quick(6));
  Learner rm_whole = rm_learner(quick(1000)), rm_cut = rm_learner(quick(6));
  for (int step = 0; step < 10; ++step) {
    const StepReport a = whole.update(pairs()), b = cut.update(pairs());
    CHECK(metric(a, "sft/loss") == Approx(metric(b, "sft/loss")).margin(1e-6));
    const StepReport c = rm_whole.update(pairs()), d = rm_cut.update(pairs());
    CHECK(metric(c, "rm/loss") == Approx(metric(d, "rm/loss")).margin(1e-6));
  }
  CHECK(relative_distance(flat_state(cut, true), flat_state(whole, true)) < 1e-6);
  CHECK(relative_distance(flat_state(rm_cut, true), flat_state(rm_whole, true)) < 1e-6);
}

TEST_CASE("the order of sequences in a batch changes nothing but rounding", "[learners][cpu]") {
  PpoConfig config = busy_ppo();
  config.minibatches = 1;
  Learner forward = ppo_learner(config), backward = ppo_learner(config);
  auto rolls = mixed_rolls();
  Experience a = make_experience(rolls, forward.policy());
  std::reverse(rolls.begin(), rolls.end());
  Experience b = make_experience(rolls, backward.policy());
  CHECK(metric(forward.update(a), "policy/loss") ==
        Approx(metric(backward.update(b), "policy/loss")).margin(1e-6));
  CHECK(relative_distance(flat_state(forward, true), flat_state(backward, true)) < 1e-6);
}

TEST_CASE("two steps, save, load and three more are bitwise the five of one run",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  PpoConfig separate = busy_ppo();
  separate.kl.controller = "adaptive";
  separate.score_normalise = true;
  PpoConfig shared = separate;
  shared.critic.shared = true;
  LearnerConfig config = quick(9);
  config.optimizer.schedule = {.shape = "cosine", .warmup_steps = 1, .total_steps = 6};

  using Make = std::function<Learner()>;
  using Update = std::function<StepReport(Learner&, int)>;
  const Update offline = [](Learner& learner, int) { return learner.update(pairs()); };
  const std::vector<std::pair<Make, Update>> cases{
      {[&] { return ppo_learner(separate, config); }, ppo_update},
      {[&] { return ppo_learner(shared, config); }, ppo_update},
      {[&] { return sft_learner(config); }, offline},
      {[&] { return rm_learner(config); }, offline},
  };
  for (const auto& [make, update] : cases) {
    Learner straight = make(), first = make();
    for (int step = 0; step < 2; ++step) update(first, step);
    std::vector<NamedTensor> saved;
    for (const NamedTensor& t : first.state()) saved.push_back({t.name, t.tensor.detach().clone()});
    Learner resumed = make();
    resumed.load_state(saved, first.state_json());
    CHECK(resumed.step() == 2);
    for (int step = 0; step < 5; ++step) {
      const StepReport a = update(straight, step);
      if (step < 2) continue;
      const StepReport b = update(resumed, step);
      CHECK(a.metrics == b.metrics);
      CHECK(a.loss_digest == b.loss_digest);
      CHECK(a.gradient_digest == b.gradient_digest);
      CHECK(a.manifest == b.manifest);
    }
    CHECK(at::equal(flat_state(straight), flat_state(resumed)));
    CHECK(straight.state_json() == resumed.state_json());
  }
}

TEST_CASE("a state that does not fit is refused, named, and changes nothing", "[learners][cpu]") {
  Learner learner = ppo_learner(busy_ppo());
  const at::Tensor before = flat_state(learner);
  const std::string json = learner.state_json();
  const auto copy = [&] {
    std::vector<NamedTensor> out;
    for (const NamedTensor& t : learner.state())
      out.push_back({t.name, t.tensor.detach().clone() + 1});
    return out;
  };
  auto missing = copy();
  missing.pop_back();
  CHECK_THROWS_WITH(learner.load_state(missing, json), Catch::Contains("missing"));
  auto wide = copy();
  wide[0].tensor = at::zeros({2, 2});
  CHECK_THROWS_WITH(learner.load_state(wide, json),
                    Catch::Contains(wide[0].name) && Catch::Contains("[2, 2]"));
  auto more = copy();
  more.push_back({"critic/else", at::zeros({1})});
  CHECK_THROWS_WITH(learner.load_state(more, json), Catch::Contains("critic/else"));
  more.back().name = more.front().name;
  CHECK_THROWS_WITH(learner.load_state(more, json), Catch::Contains("twice"));
  CHECK_THROWS_WITH(learner.load_state(copy(), "{"), Catch::Contains("learner state"));
  CHECK_THROWS_WITH(learner.load_state(copy(), sft_learner().state_json()), Catch::Contains("sft"));
  auto hollow = nlohmann::json::parse(json);
  hollow["state"] = nlohmann::json::object();
  CHECK_THROWS_AS(learner.load_state(copy(), hollow.dump()), CheckpointError);
  CHECK(at::equal(flat_state(learner), before));
}

TEST_CASE("the same seed repeats an update bit for bit and another shuffles otherwise",
          "[learners][cpu]") {
  Learner a = ppo_learner(busy_ppo()), b = ppo_learner(busy_ppo());
  LearnerConfig other = quick();
  other.seed = 6;
  Learner c = ppo_learner(busy_ppo(), other);
  const StepReport ra = ppo_update(a, 0), rb = ppo_update(b, 0), rc = ppo_update(c, 0);
  CHECK(ra.gradient_digest == rb.gradient_digest);
  CHECK(ra.loss_digest.size() == 64);
  CHECK(ra.manifest == rb.manifest);
  CHECK(ra.manifest != rc.manifest);
  // Every epoch holds each sequence once.
  const auto manifest = nlohmann::json::parse(ra.manifest);
  for (const auto& epoch : manifest.at("epochs")) {
    std::vector<int64_t> seen;
    for (const auto& minibatch : epoch) {
      CHECK(minibatch.size() == 1);  // ranks
      for (const auto& micro : minibatch[0]) seen.insert(seen.end(), micro.begin(), micro.end());
    }
    std::sort(seen.begin(), seen.end());
    CHECK(seen == std::vector<int64_t>{0, 1, 2, 3, 4});
  }
}

TEST_CASE("a loss that is not a number ends the update before the weights move",
          "[learners][cpu]") {
  Learner learner = ppo_learner(busy_ppo());
  const at::Tensor before = flat_state(learner);
  auto rolls = mixed_rolls();
  rolls[0].score = std::nan("");
  Experience e = make_experience(rolls, learner.policy());
  CHECK_THROWS_WITH(learner.update(e),
                    Catch::Contains("loss is nan") || Catch::Contains("loss is -nan"));
  CHECK(at::equal(flat_state(learner), before));
}

namespace {

/// Reports a ratio far from 1 at once, as a learner would whose two forwards differ.
class Drifted final : public Algorithm {
 public:
  std::string name() const override { return "drifted"; }
  LossResult loss(const MicroBatch& b) const override {
    return {b.logprob.sum(), {{"policy/ratio_error", 0.5, 1}}};
  }
};

}  // namespace

TEST_CASE("exact log-probabilities of the engine make an update the same bits with a forward less",
          "[learners][cpu]") {
  const auto after_two = [](bool exact, bool shared) {
    LearnerConfig config = quick(20);
    config.exact_rollouts = exact;
    PpoConfig ppo = busy_ppo();
    if (shared) ppo.critic.shared = true;
    Learner learner = ppo_learner(ppo, config);
    std::string digests;
    for (int64_t step = 0; step < 2; ++step) {
      Experience e = make_experience(mixed_rolls(), learner.policy());
      e.weight_version.assign(e.weight_version.size(), step);
      const StepReport report = learner.update(e);
      CHECK(metric(report, "mismatch/logprob_max") == 0);
      digests += report.loss_digest + report.gradient_digest;
    }
    return digests + learner.policy().digest();
  };
  CHECK(after_two(true, false) == after_two(false, false));
  CHECK(after_two(true, true) == after_two(false, true));

  // What older weights sampled is computed anew; what the present ones are said to have sampled is
  // believed, and held against the first forward.
  for (const int64_t version : {-1, 0}) {
    LearnerConfig config = quick();
    config.exact_rollouts = true;
    Learner learner = ppo_learner(busy_ppo(), config);
    Experience e = make_experience(mixed_rolls(), learner.policy());
    e.weight_version.assign(e.weight_version.size(), version);
    e.behavior_logprob = e.behavior_logprob - 0.5;
    if (version == 0) {
      CHECK_THROWS_WITH(learner.update(e), Catch::Contains("ratio"));
    } else {
      const StepReport report = learner.update(e);
      CHECK(metric(report, "mismatch/kl_k1") == Approx(-0.5).epsilon(1e-3));
      // That is how far the weights have moved, which says nothing of the engine.
      for (const auto& [name, value] : report.metrics) CHECK(name != "mismatch/logprob_max");
    }
  }
}

TEST_CASE(
    "stale samples are weighted, and only the present weights' tokens are held against the engine",
    "[learners][cpu]") {
  PpoConfig ppo = busy_ppo();
  ppo.mismatch.correction = "token_tis";
  Learner learner = ppo_learner(ppo, quick());
  Experience first = make_experience(mixed_rolls(), learner.policy());
  learner.update(first);
  Experience e = make_experience(mixed_rolls(), learner.policy());
  // All of weights 0, but for the tokens after the first of the first response.
  e.token_version = at::zeros_like(e.sequence_of);
  const at::Tensor fresh = e.sequence_of.eq(0);
  fresh[0] = false;
  e.token_version.masked_fill_(fresh, 1);
  REQUIRE(fresh.sum().item<int64_t>() > 0);
  e.behavior_logprob = at::where(fresh, e.behavior_logprob, e.behavior_logprob - 0.25);
  const StepReport report = learner.update(e);
  CHECK(metric(report, "mismatch/logprob_max") < 1e-5);
  CHECK(metric(report, "mismatch/weight_max") == Approx(std::exp(0.25)).epsilon(1e-4));
  CHECK(metric(report, "mismatch/weight_min") == Approx(1).epsilon(1e-4));
}

TEST_CASE("a ratio away from 1 before the first step is an error of ours", "[learners][cpu]") {
  LearnerModels models;
  models.policy = tiny_policy();
  Learner learner(quick(), std::make_unique<Drifted>(), std::move(models));
  Experience e = make_experience(mixed_rolls(), learner.policy());
  CHECK_THROWS_AS(learner.update(e), InternalError);
}

TEST_CASE("networks that cannot be made are asked for by name", "[learners][cpu]") {
  CHECK_THROWS_WITH(Learner(quick(), make_ppo(PpoConfig{}), LearnerModels{}),
                    Catch::Contains("policy"));
  CHECK_THROWS_WITH(Learner(quick(), make_reward_model({}), LearnerModels{}),
                    Catch::Contains("scalar head"));
  PpoConfig reward_critic;
  reward_critic.critic.init = "reward";
  LearnerModels lone;
  lone.policy = tiny_policy();
  CHECK_THROWS_WITH(Learner(quick(), make_ppo(reward_critic), std::move(lone)),
                    Catch::Contains("reward"));
  LearnerConfig cold = quick();
  cold.temperature = 0;
  LearnerModels models;
  models.policy = tiny_policy();
  CHECK_THROWS_WITH(Learner(cold, make_ppo(PpoConfig{}), std::move(models)),
                    Catch::Contains("temperature"));
  CHECK_THROWS_AS(sft_learner().reference_logprobs(make_experience(mixed_rolls(), *tiny_policy())),
                  InvalidArgument);
  CHECK_THROWS_AS(rm_learner().policy(), InvalidArgument);
  CHECK_THROWS_AS(sft_learner().scalar(), InvalidArgument);
}

TEST_CASE("online and offline updates do not take each other's data", "[learners][cpu]") {
  Learner sft = sft_learner();
  Experience e = make_experience(mixed_rolls(), sft.policy());
  CHECK_THROWS_AS(sft.update(e), InvalidArgument);
  Learner ppo = ppo_learner(busy_ppo());
  CHECK_THROWS_AS(ppo.update(pairs()), InvalidArgument);
}

TEST_CASE("log-probabilities are those of the softmax at the sampling temperature",
          "[learners][cpu]") {
  LearnerConfig warm = quick(6);
  warm.temperature = 0.7;
  const Learner learner = ppo_learner(PpoConfig{}, warm);
  const Experience e =
      make_experience({{{1, 2}, {3, 4}, 0, true}, {{5}, {6}, 0, true}}, learner.policy());
  const at::NoGradGuard no_grad;
  const at::Tensor hidden = learner.policy().hidden({e.tokens, e.offsets});
  const at::Tensor all = at::log_softmax(learner.policy().logits(hidden) / 0.7, -1);
  const at::Tensor got = learner.policy_logprobs(e);
  CHECK(got[0].item<float>() == Approx(all[1][3].item<float>()).epsilon(1e-5));
  CHECK(got[1].item<float>() == Approx(all[2][4].item<float>()).epsilon(1e-5));
  CHECK(got[2].item<float>() == Approx(all[4][6].item<float>()).epsilon(1e-5));
  CHECK(at::allclose(got, learner.reference_logprobs(e)));
}

TEST_CASE("evaluation is at temperature 1 whatever the sampling was", "[learners][cpu]") {
  LearnerConfig warm = quick(6);
  warm.temperature = 0.5;
  CHECK(ppo_learner(PpoConfig{}, warm).evaluate(pairs()) ==
        sft_learner(quick(6)).evaluate(pairs()));
}

}  // namespace praetor
