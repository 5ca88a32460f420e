#include "learners/algorithms/online_pairs.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/base/error.h"
#include "learners/algorithms/pair_losses.h"
#include "learners/learner.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::make_experience;
using testing::metric;
using testing::Roll;
using testing::vec;

namespace {

/// One pair from (policy, reference, anchor) log-probabilities of its two responses.
PairLogprobs pair(std::vector<double> policy,
                  std::vector<double> reference,
                  std::vector<double> anchor = {0, 0},
                  std::vector<double> win = {1, 0},
                  std::vector<double> other = {0, 0}) {
  const auto row = [](std::vector<double> values) { return vec(std::move(values)).view({1, 2}); };
  return {row(std::move(policy)),
          row(std::move(reference)),
          row(std::move(anchor)),
          row(std::move(win)),
          row(std::move(other))};
}

double loss_of(const PairLosses& losses) {
  return losses.loss.sum().item<double>();
}

std::unique_ptr<Algorithm> algorithm(const std::string& name, const std::string& yaml) {
  const auto document = YamlDocument::parse(yaml.empty() ? "{}" : yaml, "job.yaml");
  auto out = make_algorithm(name, {document->root()});
  document->throw_if_errors();
  return out;
}

Learner learner_of(std::unique_ptr<Algorithm> method, int64_t budget = 1000) {
  LearnerConfig settings;
  settings.optimizer.learning_rate = 1e-2;
  settings.micro_batch_tokens = budget;
  LearnerModels models;
  models.policy = testing::tiny_policy();
  return Learner(settings, std::move(method), std::move(models));
}

}  // namespace

TEST_CASE("the losses of pairs have their worked values", "[learners][cpu]") {
  // beta h = 0.3, as DPO's.
  CHECK(loss_of(online_dpo_loss(pair({2, -1}, {0, 0}), 0.1, 0)) == Approx(0.554355).epsilon(1e-6));
  CHECK(loss_of(online_dpo_loss(pair({2, -1}, {0, 0}), 0.1, 0.1)) ==
        Approx(0.584355).epsilon(1e-6));
  // Online IPO: tau 0.1, h 3, p 0.7 -> 0.7 * 4 + 0.3 * 64.
  CHECK(loss_of(ipo_loss(pair({3, 0}, {0, 0}, {0, 0}, {0.7, 0.3}), 0.1, false)) == Approx(22.0));
  CHECK(loss_of(ipo_loss(pair({3, 0}, {0, 0}, {0, 0}, {0.7, 0.3}), 0.1, true)) == Approx(4.0));
  CHECK(loss_of(ipo_loss(pair({3, 0}, {0, 0}, {0, 0}, {0.5, 0.5}), 0.1, true)) == Approx(34.0));
  // INPO: eta 0.5, tau 0.125, differences 1.0, 0.4, 0.8 -> h 0.3, loss 0.49.
  const PairLosses inpo = inpo_loss(pair({1, 0}, {0.4, 0}, {0.8, 0}), 0.5, 0.125);
  CHECK(inpo.figures[0].second.item<double>() == Approx(0.3));
  CHECK(loss_of(inpo) == Approx(0.49));
  // tau = eta: IPO to the reference alone.
  CHECK(loss_of(inpo_loss(pair({1, 0}, {0.4, 0}, {9, -9}), 0.5, 0.5)) ==
        Approx(std::pow(0.6 - 1, 2)));
  // SPPO: 1/beta 10, log-ratios 2 and -1, win 0.8 and 0.3.
  CHECK(loss_of(sppo_loss(pair({2, -1}, {7, 7}, {0, 0}, {0.8, 0.3}), 10, false)) == Approx(1.0));
  CHECK(loss_of(sppo_loss(pair({2, -1}, {7, 7}, {0, 0}, {0.8, 0.3}), 10, true)) ==
        Approx((std::pow(2 - 5, 2) + std::pow(-1 + 5, 2)) / 2));
  // XPO: DPO's 0.554355 and alpha times the log-probability of the reference's response.
  const PairLosses xpo = xpo_loss(pair({2, -1}, {0, 0}, {0, 0}, {1, 0}, {0, 1}), 0.1, 0.01);
  CHECK(loss_of(xpo) == Approx(0.554355 - 0.01).epsilon(1e-6));
}

TEST_CASE("the losses of pairs have the gradients of their values", "[learners][cpu]") {
  const std::vector<std::function<PairLosses(const PairLogprobs&)>> losses = {
      [](const auto& p) { return online_dpo_loss(p, 0.5, 0.1); },
      [](const auto& p) { return xpo_loss(p, 0.5, 0.2); },
      [](const auto& p) { return ipo_loss(p, 0.4, false); },
      [](const auto& p) { return inpo_loss(p, 0.5, 0.2); },
      [](const auto& p) { return sppo_loss(p, 3, false); }};
  for (size_t i = 0; i < losses.size(); ++i) {
    CAPTURE(i);
    const auto f = [&](const at::Tensor& x) {
      PairLogprobs in = pair({0, 0}, {-0.4, 0.3}, {0.2, -0.1}, {0.7, 0.4}, {0, 1});
      in.policy = x.view({1, 2});
      return losses[i](in).loss.sum();
    };
    CHECK(testing::gradient_error(f, vec({0.8, -0.3})) < 1e-7);
  }
}

TEST_CASE("two actions: online IPO rests where its paper says", "[learners][cpu]") {
  // P(1 > 2) = 0.7, uniform reference, tau 1: pi_1 / pi_2 = exp(0.2), pi_1 = 0.549834.
  at::Tensor x = vec({0.0}).requires_grad_(true);
  for (int step = 0; step < 400; ++step) {
    const at::Tensor logprob = at::log_softmax(at::cat({x, at::zeros({1}, at::kDouble)}), 0);
    PairLogprobs in = pair({0, 0}, {std::log(0.5), std::log(0.5)}, {0, 0}, {0.7, 0.3});
    in.policy = logprob.view({1, 2});
    x.mutable_grad() = at::Tensor();
    ipo_loss(in, 1, false).loss.sum().backward();
    x = (x - 0.1 * x.grad()).detach().requires_grad_(true);
  }
  CHECK(at::sigmoid(x)[0].item<double>() == Approx(0.549834).epsilon(1e-5));
}

TEST_CASE("pairs are chosen, turned and dropped as their method says", "[learners][cpu]") {
  Learner learner = learner_of(algorithm("online_dpo", ""));
  const std::vector<Roll> rolls = {{{1}, {2, 3}, 0.0, true, 0, 0},
                                   {{1}, {4}, 1.0, true, 0, 1},  // the second is preferred
                                   {{2}, {5}, 0.5, true, 1, 0},
                                   {{2}, {6}, 0.5, true, 1, 1},  // a tie
                                   {{3}, {7, 7}, 2.0, true, 2, 0},
                                   {{3}, {7, 7}, 0.0, true, 2, 1},  // equal texts
                                   {{4}, {8}, 1.0, true, 3, 0},     // its rival was lost
                                   {{5}, {9}, 1.0, true, 4, 0},
                                   {{5}, {2}, 0.0, false, 4, 1}};
  Experience e = make_experience(rolls, learner.policy());
  const StepReport report = learner.update(e);
  CHECK(metric(report, "online_dpo/pairs") == 2);
  CHECK(metric(report, "online_dpo/skipped") == 3);
  CHECK(metric(report, "online_dpo/win_gap") == Approx(2 / (1 + std::exp(-1.0)) - 1));
  CHECK(metric(report, "online_dpo/loss") == Approx(std::log(2.0)));
  CHECK(metric(report, "online_dpo/accuracy") == 0.5);
  CHECK(metric(report, "objective/kl") == 0);
  StepReport last;
  for (int i = 0; i < 10; ++i) {
    Experience again = make_experience(rolls, learner.policy());
    last = learner.update(again);
  }
  CHECK(metric(last, "online_dpo/accuracy") == 1);
  CHECK(metric(last, "online_dpo/margin") > 0);

  // Nothing but ties: no optimizer step, no failure.
  Experience ties = make_experience({rolls[2], rolls[3]}, learner.policy());
  CHECK(learner.update(ties).optimizer_steps == 0);
}

TEST_CASE("best and worst are those of the mean preference", "[learners][cpu]") {
  Learner learner =
      learner_of(algorithm("sppo", "{samples_per_prompt: 3, beta: 0.5, preference: pairwise}"));
  std::vector<Roll> rolls = {
      {{1}, {2, 3}, 0, true, 0, 0, 1}, {{1}, {4}, 0, true, 0, 1, 1}, {{1}, {5}, 0, true, 0, 2, 1}};
  rolls[0].preferences = {{1, 0.9}, {2, 0.2}};
  rolls[1].preferences = {{2, 0.1}};
  // Means over all three, their own 1/2 included: 1.6/3, 0.7/3, 2.2/3.
  Experience e = make_experience(rolls, learner.policy());
  const StepReport report = learner.update(e);
  CHECK(metric(report, "sppo/pairs") == 1);
  CHECK(metric(report, "sppo/win_gap") == Approx(0.5));
  // At the start the policy is the anchor: (eta (win - 1/2))^2, eta 2.
  const double best = 2 * (2.2 / 3 - 0.5), worst = 2 * (0.7 / 3 - 0.5);
  CHECK(metric(report, "sppo/loss") == Approx((best * best + worst * worst) / 2));
}

TEST_CASE("the anchor follows the policy and comes back from a state", "[learners][cpu]") {
  const auto rolls = [](const Transformer& policy) {
    return make_experience({{{1}, {2, 3}, 1, true, 0, 0, 1}, {{1}, {4}, 0, true, 0, 1, 1}}, policy);
  };
  const auto make = [] {
    return learner_of(algorithm("inpo", "{iteration_steps: 3, eta: 0.5, tau: 0.1}"));
  };
  const auto distance = [](const Learner& learner) {
    double sum = 0;
    const auto own = learner.policy().parameters(), anchor = learner.companion()->parameters();
    for (size_t i = 0; i < own.size(); ++i)
      sum += (own[i].tensor - anchor[i].tensor).abs().sum().item<double>();
    return sum;
  };
  Learner learner = make(), other = make();
  for (int step = 1; step <= 7; ++step) {
    Experience e = rolls(learner.policy());
    learner.update(e);
    CAPTURE(step);
    CHECK((distance(learner) == 0) == (step % 3 == 0));
  }
  other.load_state(learner.state(), learner.state_json());
  for (Learner* one : {&learner, &other}) {
    Experience e = rolls(one->policy());
    one->update(e);
  }
  CHECK(testing::flat_state(learner).equal(testing::flat_state(other)));
}

TEST_CASE("the gradient of pairs does not depend on the micro-batch cut", "[learners][cpu]") {
  for (const char* name : {"online_dpo", "online_ipo", "xpo"}) {
    const auto weights_after = [&](int64_t budget) {
      Learner learner = learner_of(algorithm(name, ""), budget);
      std::vector<Roll> rolls;
      for (int64_t prompt = 0; prompt < 4; ++prompt) {
        rolls.push_back(
            {{1, prompt}, {2, prompt, 3}, 0.3 * static_cast<double>(prompt), true, prompt, 0});
        rolls.push_back(
            {{1, prompt}, {7}, 0.5, true, prompt, 1, name == std::string("xpo") ? 1 : 0});
      }
      for (int step = 0; step < 3; ++step) {
        Experience e = make_experience(rolls, learner.policy());
        learner.update(e);
      }
      return testing::flat_state(learner, true);
    };
    CAPTURE(name);
    CHECK(testing::cut_error(weights_after) < 1e-5);
  }
}

TEST_CASE("keys of the methods of pairs out of range are named", "[learners][cpu]") {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"online_dpo", "beta: 0\n"},
      {"online_dpo", "preference: pairwise\nmissing_eos_penalty: 1\n"},
      {"online_ipo", "mixture: 0.5\n"},
      {"ipo_md", "mixture: 0\n"},
      {"xpo", "alpha: -1\n"},
      {"inpo", "eta: 0.1\ntau: 0.2\n"},
      {"sppo", "samples_per_prompt: 1\n"}};
  for (const auto& [name, yaml] : wrong) {
    CAPTURE(name, yaml);
    const auto document = YamlDocument::parse(yaml, "job.yaml");
    make_algorithm(name, {document->root()});
    CHECK(document->errors().size() == 1);
  }
}

}  // namespace praetor
