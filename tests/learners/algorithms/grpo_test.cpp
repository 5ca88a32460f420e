#include "learners/algorithms/grpo.h"

#include <ATen/ATen.h>

#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/groups.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::metric;
using testing::scored;
using testing::vec;

TEST_CASE("GRPO compares a sample with its group", "[learners][cpu]") {
  Experience e = scored({1, 0, 0, 1, 1, 0, 0, 0}, 4, {2, 1, 1, 1, 1, 1, 1, 1});
  const Batch batch = make_grpo(GrpoConfig())->build_batch(e, {});
  CHECK(at::allclose(e.advantage,
                     vec({0.866024,
                          0.866024,
                          -0.866024,
                          -0.866024,
                          0.866024,
                          1.499997,
                          -0.499999,
                          -0.499999,
                          -0.499999}),
                     0,
                     1e-6));
  const StepReport report{.metrics = batch.metrics};
  CHECK(metric(report, "group/size") == 4);
  CHECK(metric(report, "group/equal") == 0);
  CHECK(metric(report, "group/std") == Approx((0.5773503 + 0.5) / 2));
}

TEST_CASE("the loss of GRPO is a mean over sequences of means over tokens, KL included",
          "[learners][cpu]") {
  // Ratio 1: the advantages of the two sequences cancel, whatever their lengths; k3 at a = 0.2.
  GrpoConfig config;
  config.kl.coefficient = 0.5;
  const auto grpo = make_grpo(config);
  Experience e = scored({1, 0}, 2, {3, 1});
  e.reference_logprob = e.proximal_logprob - 0.2;
  const Batch batch = grpo->build_batch(e, {});
  const LossResult result = grpo->loss(testing::whole_batch(e, batch, e.proximal_logprob));
  CHECK(result.loss.item<double>() == Approx(0.5 * 0.018730753).epsilon(1e-7));
}

TEST_CASE("GRPO asks for what its section says", "[learners][cpu]") {
  const auto plain = make_grpo(GrpoConfig());
  CHECK(plain->models().reference);
  CHECK(plain->models().critic == CriticKind::kNone);
  CHECK(plain->sample_plan().samples_per_prompt == 8);
  CHECK(plain->online());
  CHECK_FALSE(testing::algorithm_from("grpo", "{kl: {placement: none}}")->models().reference);
  // Equal groups are kept: they weigh in the denominators.
  CHECK_FALSE(plain->accept({.scores = {1, 1}}).has_value());
  auto document = YamlDocument::parse("{drop_equal: true, samples_per_prompt: 1, std_eps: 0}");
  GrpoConfig::from_yaml(document->root());
  CHECK(document->errors().size() == 2);
}

}  // namespace praetor
