// Three optimizer steps of TRL's trainers that learn from preferences, online and from pairs
// (tests/golden/make_preference.py), on the same checkpoint and samples: losses and gradient norms.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/fs.h"
#include "core/base/str.h"
#include "tests/learners/support/groups.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {
namespace {

/// Our section that says what TRL's options say.
std::string section(const nlohmann::json& wanted) {
  const auto kind = wanted["kind"].get<std::string>();
  if (kind == "reward_model") {
    const auto& centring = wanted["center_rewards_coefficient"];
    return str("{margin: ",
               wanted["margin"].get<bool>() ? "true" : "false",
               ", centring: ",
               centring.is_null() ? 0.0 : centring.get<double>(),
               "}");
  }
  const double beta = wanted["beta"];
  if (kind != "nash_md") return str("{beta: ", beta, "}");
  // TRL weighs the gradient of a token with that token's log-ratio alone.
  return str("{kl_form: token, kl_coefficient: ",
             beta,
             ", mixture: ",
             wanted["mixture_coef"].get<double>(),
             "}");
}

Learner learner_at(const nlohmann::json& golden, const nlohmann::json& wanted) {
  LearnerConfig config;
  config.optimizer.learning_rate = wanted["learning_rate"];
  config.optimizer.max_grad_norm = 0;
  auto algorithm = testing::algorithm_from(wanted["kind"], section(wanted));
  LearnerModels models;
  if (algorithm->models().reward_model) {
    models.scalar = std::make_unique<ScalarModel>(
        ScalarModel::load(testing::golden("models/classifier"), RandomStream({})));
    return Learner(config, std::move(algorithm), std::move(models));
  }
  const auto policy = [] {
    return std::make_unique<Transformer>(Transformer::load(testing::golden("models/tied_mha")));
  };
  models.policy = policy();
  models.reference = policy();
  const at::NoGradGuard no_grad;
  for (const NamedTensor& t : models.reference->parameters()) {
    if (t.name == "model.norm.weight") t.tensor.mul_(golden["reference_norm_factor"].get<double>());
  }
  return Learner(config, std::move(algorithm), std::move(models));
}

/// Both recorded responses to each prompt; for Nash-MD the second is the opponent's.
Experience rollouts(const nlohmann::json& golden, const Learner& learner) {
  std::vector<testing::Roll> rolls;
  for (size_t i = 0; i < golden["prompts"].size(); ++i) {
    for (size_t who = 0; who < 2; ++who) {
      rolls.push_back({golden["prompts"][i].get<std::vector<int64_t>>(),
                       golden["responses"][i][who].get<std::vector<int64_t>>(),
                       golden["scores"][i][who].get<double>()});
    }
  }
  return testing::make_groups(rolls, 2, learner.policy(), learner.algorithm());
}

/// The recorded pairs: chosen, rejected, chosen, ...
std::vector<Example> examples(const nlohmann::json& golden) {
  std::vector<Example> out;
  for (size_t i = 0; i < golden["prompts"].size(); ++i) {
    for (const auto& completion : golden["pairs"][i]) {
      out.push_back(testing::make_example(golden["prompts"][i].get<std::vector<int64_t>>(),
                                          completion.get<std::vector<int64_t>>(),
                                          golden["margins"][i].get<double>()));
    }
  }
  return out;
}

StepReport update(const nlohmann::json& golden, Learner& learner) {
  if (learner.algorithm().sample_plan().rows == RowForm::kPreference)
    return learner.update(examples(golden));
  Experience e = rollouts(golden, learner);
  return learner.update(e);
}

}  // namespace

TEST_CASE("losses and gradient norms of three steps from preferences are TRL's",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  const auto golden = nlohmann::json::parse(read_file(testing::golden("preference.json")));
  REQUIRE(golden["cases"].size() == 7);
  for (const auto& wanted : golden["cases"]) {
    const auto kind = wanted["kind"].get<std::string>();
    const std::string policy = kind == "reward_model" ? "rm" : "policy";
    const std::string loss =
        kind == "nash_md" || kind == "reward_model" ? policy + "/loss" : kind + "/loss";
    Learner learner = learner_at(golden, wanted);
    for (size_t k = 0; k < 3; ++k) {
      const StepReport report = update(golden, learner);
      INFO(wanted.dump() << ", step " << k + 1);
      for (const auto& [mine, its] :
           {std::pair(testing::metric(report, loss), wanted["loss"][k].get<double>()),
            std::pair(testing::metric(report, policy + "/grad_norm"),
                      wanted["grad_norm"][k].get<double>())}) {
        CAPTURE(mine, its);
        CHECK(std::abs(mine - its) <= 1e-4 * std::max(std::abs(its), 0.01));
      }
    }
  }
}

}  // namespace praetor
