// Three optimizer steps of TRL's GRPO and RLOO trainers (tests/golden/make_grpo.py) on the same
// checkpoint and recorded samples: losses and gradient norms.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/fs.h"
#include "core/base/str.h"
#include "tests/learners/support/groups.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {
namespace {

/// Our section that says what TRL's options say.
std::string section(const nlohmann::json& wanted, int64_t epochs) {
  const auto kind = wanted["kind"].get<std::string>();
  const double low = wanted["epsilon"], high = wanted.value("epsilon_high", low);
  const double beta = wanted["beta"];
  const char* placement = beta == 0 ? "none" : (kind == "rloo" ? "reward" : "loss");
  std::string out = str("{epochs: ",
                        epochs,
                        ", clip_low: ",
                        low,
                        ", clip_high: ",
                        high,
                        ", max_tokens: 6, overlong_buffer: 0, kl: {placement: ",
                        placement,
                        ", coefficient: ",
                        beta,
                        "}");
  if (kind != "rloo") out += ", std_eps: 1.0e-4, drop_equal: false";
  return out + "}";
}

Learner learner_at(const nlohmann::json& golden, const nlohmann::json& wanted, int64_t epochs) {
  const auto policy = [] {
    return std::make_unique<Transformer>(Transformer::load(testing::golden("models/tied_mha")));
  };
  LearnerConfig config;
  config.optimizer.learning_rate = wanted["learning_rate"];
  config.optimizer.max_grad_norm = 0;
  LearnerModels models;
  models.policy = policy();
  models.reference = policy();
  const at::NoGradGuard no_grad;
  for (const NamedTensor& t : models.reference->parameters()) {
    if (t.name == "model.norm.weight") t.tensor.mul_(golden["reference_norm_factor"].get<double>());
  }
  auto algorithm = testing::algorithm_from(wanted["kind"], section(wanted, epochs));
  if (!algorithm->models().reference) models.reference.reset();
  return Learner(config, std::move(algorithm), std::move(models));
}

}  // namespace

TEST_CASE("losses and gradient norms of three steps are TRL's", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const auto golden = nlohmann::json::parse(read_file(testing::golden("grpo.json")));
  const int64_t samples = golden["samples"];
  std::vector<testing::Roll> rolls;
  for (size_t i = 0; i < golden["responses"].size(); ++i) {
    rolls.push_back(
        {golden["prompts"][i / static_cast<size_t>(samples)].get<std::vector<int64_t>>(),
         golden["responses"][i].get<std::vector<int64_t>>(),
         golden["scores"][i].get<double>()});
  }
  REQUIRE(golden["cases"].size() == 6);
  for (const auto& wanted : golden["cases"]) {
    // A report is a mean over the steps of its update: of one, two and three of them.
    double loss_before = 0, norm_before = 0;
    for (int64_t steps = 1; steps <= 3; ++steps) {
      Learner learner = learner_at(golden, wanted, steps);
      Experience e = testing::make_groups(rolls, samples, learner.policy(), learner.algorithm());
      const StepReport report = learner.update(e);
      const auto count = static_cast<double>(steps);
      const double loss = testing::metric(report, "policy/loss") * count;
      const double norm = testing::metric(report, "policy/grad_norm") * count;
      const auto k = static_cast<size_t>(steps - 1);
      INFO(wanted["kind"] << ", beta " << wanted["beta"] << ", step " << steps);
      for (const auto& [mine, its] :
           {std::pair(loss - loss_before, wanted["loss"][k].get<double>()),
            std::pair(norm - norm_before, wanted["grad_norm"][k].get<double>())}) {
        CAPTURE(mine, its);
        CHECK(std::abs(mine - its) <= 1e-4 * std::max(std::abs(its), 0.01));
      }
      loss_before = loss;
      norm_before = norm;
    }
  }
}

}  // namespace praetor
