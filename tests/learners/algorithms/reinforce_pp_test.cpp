#include "learners/algorithms/reinforce_pp.h"

#include <ATen/ATen.h>

#include "tests/learners/support/finite_difference.h"
#include "tests/learners/support/groups.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::algorithm_from;
using testing::metric;
using testing::scored;
using testing::vec;

TEST_CASE("REINFORCE++ with a baseline of the group: the worked example", "[learners][cpu]") {
  const auto method = algorithm_from("reinforce_pp", "{baseline: group}");
  Experience e = scored({1, 0, 0, 0}, 4);
  const Batch batch = method->build_batch(e, {});
  CHECK(at::allclose(e.advantage, vec({1.5, -0.5, -0.5, -0.5})));
  const StepReport report{.metrics = batch.metrics};
  CHECK(metric(report, "group/size") == 4);
}

TEST_CASE("REINFORCE++ whitens discounted rewards to go over the batch", "[learners][cpu]") {
  const auto method = algorithm_from("reinforce_pp", "{gamma: 0.5, kl: {coefficient: 0.1}}");
  Experience e = scored({1, 3}, 1, {2, 1});
  e.reference_logprob = vec({-1.5, -0.8, -1});  // k1 = 0.5, -0.2, 0
  method->build_batch(e, {});
  CHECK(at::allclose(e.reward, vec({-0.05, 1.02, 3})));
  // To go: -0.05 + 0.5 * 1.02 = 0.46, 1.02, 3.
  const at::Tensor to_go = vec({0.46, 1.02, 3});
  CHECK(at::allclose(e.advantage, (to_go - to_go.mean()) / to_go.std(), 1e-6));
}

TEST_CASE("the penalty of REINFORCE++ goes where its baseline lets it", "[learners][cpu]") {
  const ReinforcePpConfig plain, group("group");
  CHECK(plain.kl.placement == "reward");
  CHECK(plain.samples_per_prompt == 1);
  CHECK(group.kl.placement == "loss");
  CHECK(group.kl.estimator == "k2");
  CHECK(group.samples_per_prompt == 8);
  auto document = YamlDocument::parse("{baseline: group, kl: {placement: reward}}");
  ReinforcePpConfig::from_yaml(document->root());
  REQUIRE(document->errors().size() == 1);
  CHECK_THAT(document->errors()[0], Catch::Contains("kl.placement"));
  auto wrong = YamlDocument::parse("{baseline: prompt, gamma: 0}");
  ReinforcePpConfig::from_yaml(wrong->root());
  CHECK(wrong->errors().size() == 2);
}

}  // namespace praetor
