// Where TRL's PPO differs from ours, one case for each difference: numbers of whole updates of its
// PPOTrainer (tests/golden/make_ppo.py), ours beside them, and ours with its convention put in.
#include <ATen/ATen.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/base/fs.h"
#include "learners/algorithms/ppo.h"
#include "learners/learner.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using testing::ids;
using testing::metric;
using testing::vec;
using Lengths = std::vector<int64_t>;

namespace {

const nlohmann::json& golden() {
  static const auto file = nlohmann::json::parse(read_file(testing::golden("ppo_trainer.json")));
  return file;
}
const nlohmann::json& early() {
  return golden()["early"]["batch"];
}

PpoConfig config_of_golden() {
  PpoConfig config;
  config.clip_low = config.clip_high = golden()["cliprange"];
  config.value_clip = golden()["cliprange_value"];
  config.value_coefficient = golden()["vf_coef"];
  config.gamma = golden()["gamma"];
  config.gae_lambda = golden()["lam"];
  config.kl.coefficient = golden()["kl_coef"];
  return config;
}

/// Tokens of each response that ended or was cut.
Lengths own_lengths() {
  return early()["length"].get<Lengths>();
}
/// One more where a response ended before the longest that is sampled.
Lengths lengths_beyond_the_end() {
  Lengths out = own_lengths();
  const int64_t most = golden()["tokens"];
  for (int64_t& length : out) length = std::min(length + 1, most);
  return out;
}

/// The first lengths[i] entries of each row i, end to end.
at::Tensor ragged(const nlohmann::json& rows, const Lengths& lengths) {
  std::vector<double> out;
  for (size_t i = 0; i < lengths.size(); ++i) {
    for (size_t t = 0; t < static_cast<size_t>(lengths[i]); ++t)
      out.push_back(rows[i][t].get<double>());
  }
  return vec(out);
}

at::Tensor sequence_of(const Lengths& lengths) {
  return at::arange(static_cast<int64_t>(lengths.size()), at::kLong)
      .repeat_interleave(ids(lengths));
}

/// The trainer's batch with so many tokens of each response, shaped and estimated by us.
Experience estimated(const Lengths& lengths) {
  Experience e;
  e.offsets = {0};
  for (const int64_t length : lengths) e.offsets.push_back(e.offsets.back() + 1 + length);
  e.prompt_lengths.assign(lengths.size(), 1);
  e.finished.assign(lengths.size(), true);
  e.sequence_of = sequence_of(lengths);
  e.proximal_logprob = e.behavior_logprob = ragged(early()["logprob"], lengths);
  e.reference_logprob = ragged(early()["reference"], lengths);
  e.value = ragged(early()["value"], lengths);
  e.score = vec(early()["score"].get<std::vector<double>>());
  PpoConfig config = config_of_golden();
  config.whiten_advantages = false;
  make_ppo(config)->build_batch(e, {});
  return e;
}

/// A micro-batch of the trainer: the tokens that its critic learns from, of which those of `mask`
/// count.
struct Recorded {
  MicroBatch batch;
  at::Tensor responses;  ///< mask of the responses' own tokens
};

Recorded recorded(const nlohmann::json& micro) {
  const auto rows = micro["rows"].get<std::vector<size_t>>();
  Lengths own, beyond;
  const auto pick = [&](const char* name) {
    nlohmann::json out;
    for (const size_t row : rows) out.push_back(early()[name][row]);
    return ragged(out, beyond);
  };
  for (const size_t row : rows) {
    own.push_back(own_lengths()[row]);
    beyond.push_back(lengths_beyond_the_end()[row]);
  }
  Recorded out;
  std::vector<int> responses;
  for (size_t i = 0; i < rows.size(); ++i) {
    for (int64_t t = 0; t < beyond[i]; ++t) responses.push_back(t < own[i] ? 1 : 0);
  }
  out.responses = testing::mask_of(responses);
  MicroBatch& b = out.batch;
  b.sequences = static_cast<int64_t>(rows.size());
  b.sequence_of = sequence_of(beyond);
  b.logprob = ragged(micro["logprob"], beyond).set_requires_grad(true);
  b.value = ragged(micro["value"], beyond).set_requires_grad(true);
  b.proximal_logprob = b.reference_logprob = pick("logprob");
  b.entropy = at::zeros_like(b.proximal_logprob);
  b.old_value = pick("value");
  b.advantage = pick("whitened");
  b.returns = pick("returns");
  return out;
}

/// Our loss over the tokens of `mask`, divided by `tokens`, of the policy or the critic alone;
/// fills gradients.
double loss_over(MicroBatch& b, const at::Tensor& mask, double tokens, bool policy) {
  b.mask = mask;
  b.denominators = {.tokens = tokens, .sequences = static_cast<double>(b.sequences)};
  b.logprob.mutable_grad() = b.value.mutable_grad() = at::Tensor();
  PpoConfig config = config_of_golden();
  if (policy) config.value_coefficient = 0;
  const at::Tensor both = make_ppo(config)->loss(b).loss;
  both.backward();
  if (policy) return both.item<double>();
  config.value_coefficient = 0;
  return (both - make_ppo(config)->loss(b).loss).item<double>() / golden()["vf_coef"].get<double>();
}

double count(const at::Tensor& mask) {
  return mask.sum().item<double>();
}

/// The trainer's gradient of a micro-batch, over the same tokens.
at::Tensor gradient(const nlohmann::json& micro, const char* name) {
  Lengths beyond;
  for (const size_t row : micro["rows"].get<std::vector<size_t>>())
    beyond.push_back(lengths_beyond_the_end()[row]);
  return ragged(micro[name], beyond);
}

/// What one of our learners has after some epochs on the batch of full responses.
struct Trained {
  StepReport report;
  double policy_change = 0, value_change = 0;              ///< L2, of all weights
  double policy_first_moment = 0, value_first_moment = 0;  ///< L2, Adam's
};

/// A copy of all tensors of the state under `prefix`, end to end.
at::Tensor part_of(const Learner& learner, const std::string& prefix) {
  std::vector<at::Tensor> parts;
  for (const NamedTensor& t : learner.state()) {
    if (t.name.starts_with(prefix)) parts.push_back(t.tensor.detach().flatten().to(at::kDouble));
  }
  return at::cat(parts).clone();
}

/// @param critic_rate  learning rate of the critic's own optimizer
Trained train(int64_t epochs, double max_grad_norm, double critic_rate) {
  const testing::OneThread one_thread;
  const auto policy = [] {
    return std::make_unique<Transformer>(Transformer::load(testing::golden("models/tied_mha")));
  };
  LearnerConfig settings;
  settings.optimizer.learning_rate = golden()["learning_rate"];
  settings.optimizer.max_grad_norm = max_grad_norm;
  PpoConfig ppo = config_of_golden();
  ppo.epochs = epochs;
  ppo.critic.optimizer.learning_rate = critic_rate;
  ppo.critic.optimizer.max_grad_norm = max_grad_norm;
  LearnerModels models;
  models.policy = policy();
  models.reference = policy();
  models.scalar = std::make_unique<ScalarModel>(
      ScalarModel::load(testing::golden("models/classifier"), RandomStream({})));
  for (const NamedTensor& t : models.reference->parameters()) {
    if (t.name == "model.norm.weight")
      t.tensor.set_data(t.tensor * golden()["reference_norm_factor"].get<double>());
  }
  Learner learner(settings, make_ppo(ppo), std::move(models));
  const auto& full = golden()["full"];
  std::vector<testing::Roll> rolls;
  for (size_t i = 0; i < full["prompts"].size(); ++i) {
    rolls.push_back({full["prompts"][i].get<std::vector<int64_t>>(),
                     full["responses"][i].get<std::vector<int64_t>>(),
                     full["score"][i].get<double>()});
  }
  const at::Tensor policy_before = part_of(learner, "policy/");
  const at::Tensor value_before = part_of(learner, "critic/");
  Experience e = testing::make_experience(rolls, learner.policy());
  Trained out;
  out.report = learner.update(e);
  out.policy_change = (part_of(learner, "policy/") - policy_before).norm().item<double>();
  out.value_change = (part_of(learner, "critic/") - value_before).norm().item<double>();
  out.policy_first_moment = part_of(learner, "optimizer/policy/exp_avg/").norm().item<double>();
  out.value_first_moment = part_of(learner, "optimizer/critic/exp_avg/").norm().item<double>();
  return out;
}

}  // namespace

TEST_CASE("TRL puts the score of a response that ended behind its end", "[learners][cpu]") {
  const double gamma = golden()["gamma"], lambda = golden()["lam"];
  const Experience ours = estimated(own_lengths());
  const at::Tensor theirs = ragged(early()["advantage"], own_lengths());
  int64_t last = -1;
  for (size_t i = 0; i < own_lengths().size(); ++i) {
    const int64_t length = own_lengths()[i], first = last + 1;
    last += length;
    const at::Tensor more = (theirs - ours.advantage).slice(0, first, last + 1);
    CAPTURE(i, more);
    if (length == golden()["tokens"].get<int64_t>()) {
      CHECK(more.abs().max().item<double>() < 1e-8);
      continue;
    }
    // One step later the score reaches the end by gamma lambda, and the critic's value of what
    // stands there fills in: what it promises beyond the score is more advantage.
    const double score = early()["score"][i];
    const double beyond = early()["value"][i][static_cast<size_t>(length)];
    const double wanted = gamma * (1 - lambda) * beyond - (1 - gamma * lambda) * score;
    CHECK(more[length - 1].item<double>() == Approx(wanted).margin(1e-8));
    CHECK((wanted > 0) == (beyond > score));
    CHECK(std::abs(wanted) > 0.01);
  }
  // Ours, told of a token more that has no KL: the same numbers everywhere.
  const Experience longer = estimated(lengths_beyond_the_end());
  CHECK(at::allclose(
      longer.advantage, ragged(early()["advantage"], lengths_beyond_the_end()), 1e-8, 1e-8));
  CHECK(at::allclose(
      longer.returns, ragged(early()["returns"], lengths_beyond_the_end()), 1e-8, 1e-8));
}

TEST_CASE("TRL's critic learns one token beyond a response that ended", "[learners][cpu]") {
  const nlohmann::json& micro = golden()["early"]["micro_batches"][0];
  Recorded r = recorded(micro);
  const at::Tensor beyond = r.responses.logical_not(), all = at::ones_like(beyond);
  CHECK(count(beyond) == 3);  // of three that ended
  // Ours has no such token. Its share of TRL's sum is half its squared distance from the score.
  const double mine = loss_over(r.batch, r.responses, count(r.responses), false);
  CHECK(r.batch.value.grad().masked_select(beyond).abs().max().item<double>() == 0);
  const double theirs = micro["vf_loss"];
  const at::Tensor gap = (r.batch.value.detach() - r.batch.returns).masked_select(beyond);
  CHECK(theirs * count(all) - mine * count(r.responses) ==
        Approx(0.5 * gap.square().sum().item<double>()).epsilon(1e-7));
  CHECK(at::allclose(gradient(micro, "value_grad").masked_select(beyond),
                     golden()["vf_coef"].get<double>() * gap / count(all),
                     1e-7,
                     1e-9));
  CHECK(gap.abs().min().item<double>() > 0.1);
  // Over all tokens that TRL takes, loss and gradient are its.
  CHECK(loss_over(r.batch, all, count(all), false) == Approx(theirs).epsilon(1e-7));
  CHECK(at::allclose(r.batch.value.grad(), gradient(micro, "value_grad"), 1e-7, 1e-9));
  // The policy's tokens are the same ones.
  CHECK(loss_over(r.batch, r.responses, count(r.responses), true) ==
        Approx(micro["pg_loss"].get<double>()).margin(1e-8));
  CHECK(at::allclose(r.batch.logprob.grad(), gradient(micro, "logprob_grad"), 1e-7, 1e-9));
}

TEST_CASE("TRL averages micro-batches whatever their tokens are", "[learners][cpu]") {
  const nlohmann::json& cut = golden()["early"]["cut"];
  const Lengths lengths = own_lengths();
  const auto tokens = static_cast<double>(std::accumulate(lengths.begin(), lengths.end(), 0LL));
  const auto parts = static_cast<double>(cut.size());
  REQUIRE(parts == 2);
  double mine = 0, theirs = 0, mine_its_way = 0;
  for (const nlohmann::json& micro : cut) {
    Recorded r = recorded(micro);
    const double own = count(r.responses);
    const at::Tensor its_gradient = gradient(micro, "logprob_grad");
    mine += loss_over(r.batch, r.responses, tokens, true);
    // A token of the micro-batch with fewer of them weighs more with TRL.
    const double factor = tokens / (parts * own);
    CHECK((factor > 1) == (own < tokens / parts));
    CHECK(std::abs(factor - 1) > 0.1);
    CHECK(at::allclose(its_gradient, factor * r.batch.logprob.grad(), 1e-7, 1e-9));
    // Divided by its own tokens and by the number of micro-batches, ours is the same.
    mine_its_way += loss_over(r.batch, r.responses, own * parts, true);
    CHECK(at::allclose(r.batch.logprob.grad(), its_gradient, 1e-7, 1e-9));
    theirs += micro["pg_loss"].get<double>() / parts;
  }
  // The advantages are whitened: over all tokens they sum to nothing, by micro-batches they do not.
  CHECK(mine == Approx(0).margin(1e-7));
  CHECK(std::abs(theirs) > 0.05);
  CHECK(mine_its_way == Approx(theirs).epsilon(1e-6));
}

TEST_CASE("TRL never clips the gradients of PPO", "[learners][cpu]") {
  const double rate = golden()["learning_rate"], bound = golden()["max_grad_norm"];
  const auto& steps = golden()["full"]["steps"];
  REQUIRE(steps.size() == 3);
  Trained before;
  for (size_t k = 0; k < steps.size(); ++k) {
    // Its settings name the bound; without one, ours goes its way: losses, norms, moments, weights.
    const auto epochs = static_cast<int64_t>(k) + 1;
    const Trained free = train(epochs, 0, rate);
    const auto step = [&](const char* name) {  // reports are means over the steps of an update
      const double sum = metric(free.report, name) * static_cast<double>(epochs);
      return k == 0 ? sum : sum - metric(before.report, name) * static_cast<double>(k);
    };
    CAPTURE(k);
    for (const auto& [own, its] :
         {std::pair(step("policy/loss"), steps[k]["pg_loss"]),
          std::pair(step("value/loss"), steps[k]["vf_loss"]),
          std::pair(step("policy/grad_norm"), steps[k]["policy_grad_norm"]),
          std::pair(step("value/grad_norm"), steps[k]["value_grad_norm"]),
          std::pair(free.policy_change, steps[k]["policy_change"]),
          std::pair(free.value_change, steps[k]["value_change"])}) {
      CAPTURE(own, its);
      CHECK(std::abs(own - its.get<double>()) <= 2e-3 * std::max(std::abs(its.get<double>()), 0.1));
    }
    before = free;
    CHECK(free.policy_first_moment ==
          Approx(steps[k]["policy_first_moment"].get<double>()).epsilon(1e-3));
    CHECK(free.value_first_moment ==
          Approx(steps[k]["value_first_moment"].get<double>()).epsilon(1e-3));
    // With the bound, what ours remembers of k gradients is no longer than 1 - 0.9^k of it.
    const Trained clipped = train(epochs, bound, rate);
    const double most = bound * (1 - std::pow(0.9, static_cast<double>(epochs)));
    CHECK(clipped.policy_first_moment <= most * 1.0001);
    CHECK(clipped.value_first_moment <= most * 1.0001);
    CHECK(steps[k]["policy_first_moment"].get<double>() > 10 * clipped.policy_first_moment);
    CHECK(steps[k]["value_first_moment"].get<double>() > 5 * clipped.value_first_moment);
  }
}

TEST_CASE("TRL steps policy and critic with one optimizer", "[learners][cpu]") {
  const double rate = golden()["learning_rate"];
  const auto& first = golden()["full"]["steps"][0];
  // Ours of the critic has a rate of its own: a hundredth of the rate is a hundredth of the step.
  const double own_rate = PpoConfig{}.critic.optimizer.learning_rate;
  CHECK(own_rate == Approx(rate / 100));
  const Trained apart = train(1, 0, own_rate), together = train(1, 0, rate);
  CHECK(apart.policy_change == Approx(first["policy_change"].get<double>()).epsilon(1e-3));
  CHECK(apart.value_change ==
        Approx(first["value_change"].get<double>() * own_rate / rate).epsilon(5e-3));
  // Told the policy's rate, it moves as TRL's.
  CHECK(together.value_change == Approx(first["value_change"].get<double>()).epsilon(1e-3));
}

}  // namespace praetor
