#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/base/error.h"
#include "learners/algorithms/nash_policy_gradient.h"
#include "learners/learner.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/tabular_nash.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::Distribution;
using testing::ids;
using testing::make_experience;
using testing::metric;
using testing::PreferenceMatrix;
using testing::Roll;
using testing::vec;

namespace {

const PreferenceMatrix kCycle = {{.5, .8, .2}, {.2, .5, .8}, {.8, .2, .5}};
const Distribution kReference = {.2, .5, .3};

/// A model of three tokens whose next token after a prompt [0] has some distribution.
std::unique_ptr<Transformer> three_tokens(uint64_t seed) {
  ModelConfig c;
  c.vocab_size = 3;
  c.hidden_size = 16;
  c.intermediate_size = 24;
  c.num_layers = 1;
  c.num_heads = 2;
  c.num_kv_heads = 2;
  c.head_dim = 8;
  c.max_positions = 4;
  c.initializer_range = 0.3;
  return std::make_unique<Transformer>(
      c, RandomStream({.job_seed = seed, .purpose = Purpose::kInitialise}));
}

Distribution next_token(const Transformer& model) {
  const at::NoGradGuard no_grad;
  const at::Tensor p =
      at::softmax(model.logits(model.hidden(pack({{0}}))).to(at::kDouble), -1).view(-1);
  return {p[0].item<double>(), p[1].item<double>(), p[2].item<double>()};
}

/// About `count` responses in the proportions of `pi`, each told how it fares against `opponent`.
std::vector<Roll> played(const Distribution& pi, const Distribution& opponent, int count) {
  const Distribution wins = testing::preference_over(kCycle, opponent);
  std::vector<Roll> rolls;
  double due = 0;
  for (size_t y = 0; y < pi.size(); ++y) {
    due += pi[y] * count;
    while (static_cast<double>(rolls.size()) + 0.5 < due) {
      Roll roll{{0}, {static_cast<int64_t>(y)}, 0, true, 0, static_cast<int32_t>(rolls.size())};
      roll.preferences = {{count, wins[y]}};
      rolls.push_back(roll);
    }
  }
  rolls.push_back({{0}, {0}, 0, true, 0, count, 1});
  return rolls;
}

struct Played {
  Distribution policy, reference;
};

/// Trains a real model on the cyclic game with exact preferences against the mixture.
Played play(double mixture, double tau) {
  const testing::OneThread one;
  constexpr int kSteps = 400;
  LearnerConfig settings;
  settings.optimizer.learning_rate = 0.01;
  settings.optimizer.weight_decay = 0;
  settings.optimizer.schedule.total_steps = kSteps;
  settings.optimizer.schedule.shape = "cosine";
  LearnerModels models;
  models.policy = three_tokens(3);
  const Distribution reference = next_token(*models.policy);
  Learner learner(settings,
                  make_nash({.kl_coefficient = tau, .preference = PreferenceSource::kPairwise},
                            {.name = "nash_md"}),
                  std::move(models));
  for (int step = 0; step < kSteps; ++step) {
    const Distribution pi = next_token(learner.policy());
    Experience e = make_experience(
        played(pi, testing::geometric_mixture(pi, reference, mixture), 300), learner.policy());
    learner.update(e);
  }
  return {next_token(learner.policy()), reference};
}

}  // namespace

TEST_CASE("a step of tabular Nash-MD has its worked values", "[learners][cpu]") {
  const Distribution pi = {.7, .2, .1};
  const Distribution mixed = testing::geometric_mixture(pi, kReference, 0.5);
  CHECK(mixed[0] == Approx(0.433263).epsilon(1e-5));
  CHECK(mixed[1] == Approx(0.366174).epsilon(1e-5));
  CHECK(testing::geometric_mixture(pi, kReference, 0.125)[2] == Approx(0.122365).epsilon(1e-5));
  const Distribution wins = testing::preference_over(kCycle, mixed);
  CHECK(wins[0] == Approx(0.549684).epsilon(1e-5));
  CHECK(wins[1] == Approx(0.430190).epsilon(1e-5));
  const Distribution next = testing::nash_md_step(kCycle, pi, kReference, 1, 0.5);
  CHECK(next[0] == Approx(0.454671).epsilon(1e-5));
  CHECK(next[1] == Approx(0.340987).epsilon(1e-5));
  CHECK(next[2] == Approx(0.204342).epsilon(1e-5));
}

TEST_CASE("the limit of tabular Nash-MD is the regularised equilibrium", "[learners][cpu]") {
  const Distribution pi = testing::regularised_nash(kCycle, kReference, 0.5);
  // At the equilibrium pi is its own best response: pi ~ mu exp(P(y > pi) / tau).
  Distribution best = testing::preference_over(kCycle, pi);
  double sum = 0;
  for (size_t y = 0; y < 3; ++y) sum += best[y] = kReference[y] * std::exp(best[y] / 0.5);
  for (double& p : best) p /= sum;
  CHECK(testing::total_variation(pi, best) < 1e-6);
}

TEST_CASE("the coefficients of Nash-MD have their worked value in all forms", "[learners][cpu]") {
  // One token: P 0.8, tau 0.1, log pi -5, log ref -6.
  for (const char* form : {"sequence", "token", "reward_to_go"}) {
    CAPTURE(form);
    const at::Tensor c = nash_coefficients(vec({0.8}), vec({-5}), vec({-6}), ids({0}), 0.1, form);
    CHECK(c[0].item<double>() == Approx(0.2));
    CHECK((-c * vec({-5})).item<double>() == Approx(1.0));
  }
  // Log-ratios 1, 2 | none | -1, 0.5, 3 against sums done by hand.
  const at::Tensor logprob = vec({1, 2, -1, 0.5, 3}), zero = vec({0, 0, 0, 0, 0});
  const at::Tensor of = ids({0, 0, 2, 2, 2}), p = vec({0.5, 0.5, 1.0});
  const auto form = [&](const char* name) {
    return nash_coefficients(p, logprob, zero, of, 1, name);
  };
  CHECK(at::allclose(form("token"), vec({-1, -2, 1.5, 0, -2.5})));
  CHECK(at::allclose(form("sequence"), vec({-3, -3, -2, -2, -2})));
  CHECK(at::allclose(form("reward_to_go"), vec({-3, -2, -2, -3, -2.5})));
  CHECK_THROWS_AS(nash_coefficients(p, logprob, zero, ids({0}), 1, "token"), ShapeError);
}

TEST_CASE("reward_to_go and sequence agree in expectation, token does not", "[learners][cpu]") {
  // Every sequence of two of three tokens, under a tabular policy: exact expectations.
  const at::Tensor first = vec({0.3, -0.2, 0.5});
  const at::Tensor second = vec({0.1, 0.7, -0.4, 1.5, -2, 0, 0.2, 0.2, 0.9}).view({3, 3});
  const auto gradient = [&](const char* form) {
    at::Tensor a = first.clone().requires_grad_(true), b = second.clone().requires_grad_(true);
    const at::Tensor la = at::log_softmax(a, 0), lb = at::log_softmax(b, 1);
    at::Tensor sum = at::zeros({}, at::kDouble);
    for (int64_t y = 0; y < 3; ++y) {
      for (int64_t z = 0; z < 3; ++z) {
        const at::Tensor own = at::stack({la[y], lb[y][z]});
        // The reference is uniform; the preference depends on both tokens.
        const at::Tensor c = nash_coefficients(vec({0.1 * static_cast<double>(y + 2 * z)}),
                                               own,
                                               at::full({2}, std::log(1.0 / 3), at::kDouble),
                                               ids({0, 0}),
                                               0.3,
                                               form);
        sum = sum + own.sum().exp().detach() * (c * own).sum();
      }
    }
    sum.backward();
    return at::cat({a.grad(), b.grad().view(-1)});
  };
  const at::Tensor whole = gradient("sequence");
  CHECK(at::allclose(whole, gradient("reward_to_go"), 0, 1e-12));
  // How far the second token strays depends on the first, which `token` never hears of.
  CHECK((whole - gradient("token")).abs().max().item<double>() > 1e-3);
}

TEST_CASE("on a cyclic game self-play finds the equilibrium", "[learners][cpu]") {
  const double tau = 0.4;
  const Played end = play(0, tau);
  const Distribution nash = testing::regularised_nash(kCycle, end.reference, tau);
  CHECK(testing::total_variation(end.policy, nash) < 0.02);
  // A Bradley-Terry reward sees no difference between three that beat each other in turn: what
  // maximises it under the same KL is the reference.
  CHECK(testing::total_variation(end.reference, nash) > 0.05);
}

TEST_CASE("against the mixture it is the mixture that comes to an equilibrium", "[learners][cpu]") {
  const double tau = 0.3, share = 0.25;
  const Played end = play(share, tau);
  const Distribution nash = testing::regularised_nash(kCycle, end.reference, tau / (1 - share));
  const Distribution mixed = testing::geometric_mixture(end.policy, end.reference, share);
  CHECK(testing::total_variation(mixed, nash) < 0.02);
  CHECK(testing::total_variation(end.policy, nash) > 0.02);
}

TEST_CASE("Nash-MD reports what it measured and leaves lost games out", "[learners][cpu]") {
  LearnerModels models;
  models.policy = testing::tiny_policy();
  const auto plan = [](int64_t reference_samples) {
    return make_nash({.kl_coefficient = 0.1},
                     {.name = "nash_md",
                      .opponent = {.voice = {.kind = VoiceKind::kMixture, .share = 0.5}},
                      .reference_samples = reference_samples});
  };
  Learner learner({}, plan(1), std::move(models));
  std::vector<Roll> rolls = {{{1}, {2, 3}, 1.0, true, 0, 0, 0},
                             {{1}, {4}, 0.0, true, 0, 1, 1},
                             {{1}, {5, 5, 5}, 2.0, false, 0, 2, 2},
                             {{1, 2}, {3}, 1.0, true, 1, 0, 0}};
  Experience e = make_experience(rolls, learner.policy());
  const StepReport report = learner.update(e);
  CHECK(metric(report, "nash/prob_mean") == Approx(1 / (1 + std::exp(-1.0))));
  CHECK(metric(report, "nash/prob_vs_ref") == Approx(1 / (1 + std::exp(1.0))));
  CHECK(metric(report, "nash/opponent_length") == 1);
  CHECK(metric(report, "objective/kl") == 0);
  // Only the sequence with an opponent counts, and a first step has no KL: (P - 1/2) of two tokens.
  const double p = 1 / (1 + std::exp(-1.0)) - 0.5;
  CHECK(metric(report, "nash/coefficient_mean") == Approx(p));
  CHECK(metric(report, "policy/loss") ==
        Approx(-p * e.proximal_logprob.slice(0, 0, 2).sum().item<double>()));
  // Log-probabilities of the other voices are nobody's business.
  CHECK(e.proximal_logprob.slice(0, 2, 6).abs().sum().item<double>() == 0);

  Experience lost = make_experience({rolls[3]}, learner.policy());
  CHECK_THROWS_AS(learner.update(lost), DataError);
}

TEST_CASE("the Nash-MD gradient does not depend on the micro-batch cut", "[learners][cpu]") {
  const auto weights_after = [](int64_t budget) {
    LearnerConfig settings;
    settings.optimizer.learning_rate = 1e-2;
    settings.micro_batch_tokens = budget;
    LearnerModels models;
    models.policy = testing::tiny_policy();
    Learner learner(
        settings, make_nash({.kl_coefficient = 0.1}, {.name = "nash_md"}), std::move(models));
    std::vector<Roll> rolls;
    for (int64_t prompt = 0; prompt < 4; ++prompt) {
      rolls.push_back(
          {{1, prompt}, {2, prompt, 3}, 0.3 * static_cast<double>(prompt), true, prompt, 0, 0});
      rolls.push_back({{1, prompt}, {7}, 0.5, true, prompt, 1, 1});
    }
    for (int step = 0; step < 3; ++step) {
      Experience e = make_experience(rolls, learner.policy());
      learner.update(e);
    }
    return testing::flat_state(learner, true);
  };
  CHECK(testing::cut_error(weights_after) < 1e-5);
}

TEST_CASE("keys of the Nash methods out of range are named", "[learners][cpu]") {
  const auto document = YamlDocument::parse(
      "mixture: 1.5\nkl_form: tokens\nkl_coefficient: -1\npreference: pairwise\n"
      "missing_eos_penalty: 1\nmixtre: 1\n",
      "job.yaml");
  make_algorithm("nash_md", {document->root()});
  CHECK(document->errors().size() == 5);
  const auto ema = YamlDocument::parse("decay: 1\nmixture: 0.5\n", "job.yaml");
  const auto algorithm = make_algorithm("nash_ema", {ema->root()});
  CHECK(ema->errors().size() == 2);
  CHECK(algorithm->models().anchor.has_value());
}

}  // namespace praetor
