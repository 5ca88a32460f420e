// One PPO micro-batch by TRL's formulas (tests/golden/make_ppo.py): every intermediate, and the
// gradients.
#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "core/base/fs.h"
#include "learners/algorithms/ppo.h"
#include "learners/statistics.h"
#include "tests/learners/support/finite_difference.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {
namespace {

at::Tensor vector_of(const nlohmann::json& values) {
  return testing::vec(values.get<std::vector<double>>());
}

}  // namespace

TEST_CASE("rewards, advantages, losses and gradients of PPO are TRL's", "[learners][cpu]") {
  const auto golden = nlohmann::json::parse(read_file(testing::golden("ppo.json")));
  const int64_t sequences = golden["sequences"], tokens = golden["tokens"];
  REQUIRE(golden["cases"].size() == 4);
  for (const auto& wanted : golden["cases"]) {
    INFO(wanted["estimator"] << ", whiten_rewards " << wanted["whiten_rewards"]);
    PpoConfig config;
    config.clip_low = config.clip_high = golden["cliprange"];
    config.value_clip = golden["cliprange_value"];
    config.value_coefficient = golden["vf_coef"];
    config.gamma = golden["gamma"];
    config.gae_lambda = golden["lam"];
    config.kl.coefficient = golden["kl_coef"];
    config.kl.estimator = wanted["estimator"];
    config.whiten_rewards = wanted["whiten_rewards"];
    const auto ppo = make_ppo(config);

    Experience e;
    for (int64_t i = 0; i <= sequences; ++i) e.offsets.push_back(i * (tokens + 1));
    e.prompt_lengths.assign(static_cast<size_t>(sequences), 1);
    e.finished.assign(static_cast<size_t>(sequences), true);
    e.sequence_of =
        at::arange(sequences, at::TensorOptions().dtype(at::kLong)).repeat_interleave(tokens);
    e.proximal_logprob = vector_of(golden["logprob"]);
    e.behavior_logprob = e.proximal_logprob;
    e.reference_logprob = vector_of(golden["reference"]);
    e.value = vector_of(golden["value"]);
    e.score = vector_of(golden["score"]);
    const Batch batch = ppo->build_batch(e, {});
    CHECK(at::allclose(e.reward, vector_of(wanted["reward"]), 1e-10, 1e-10));
    CHECK(at::allclose(e.returns, vector_of(wanted["returns"]), 1e-10, 1e-10));
    CHECK(at::allclose(e.advantage, vector_of(wanted["advantage"]), 1e-10, 1e-10));
    CHECK(batch.metrics[0].first == "objective/kl");
    CHECK(batch.metrics[0].second == Approx(wanted["kl"].get<double>()));

    MicroBatch micro;
    micro.sequences = sequences;
    micro.sequence_of = e.sequence_of;
    micro.mask = batch.mask;
    micro.logprob = vector_of(golden["new_logprob"]).set_requires_grad(true);
    micro.value = vector_of(golden["new_value"]).set_requires_grad(true);
    micro.entropy = at::zeros_like(e.value);
    micro.proximal_logprob = e.proximal_logprob;
    micro.reference_logprob = e.reference_logprob;
    micro.old_value = e.value;
    micro.advantage = e.advantage;
    micro.returns = e.returns;
    micro.denominators = {.tokens = static_cast<double>(sequences * tokens),
                          .sequences = static_cast<double>(sequences)};
    const LossResult result = ppo->loss(micro);
    result.loss.backward();
    CHECK(at::allclose(micro.logprob.grad(), vector_of(wanted["logprob_grad"]), 1e-10, 1e-10));
    CHECK(at::allclose(micro.value.grad(), vector_of(wanted["value_grad"]), 1e-10, 1e-10));
    Statistics statistics;
    statistics.add(result.statistics);
    CHECK(*statistics.value("policy/loss") == Approx(wanted["pg_loss"].get<double>()));
    CHECK(*statistics.value("value/loss") == Approx(wanted["vf_loss"].get<double>()));
    CHECK(*statistics.value("policy/clip_fraction_low") +
              *statistics.value("policy/clip_fraction_high") ==
          Approx(wanted["pg_clipfrac"].get<double>()));
    CHECK(*statistics.value("value/clip_fraction") == Approx(wanted["vf_clipfrac"].get<double>()));
    CHECK(*statistics.value("policy/approx_kl_k2") == Approx(wanted["approxkl"].get<double>()));
  }
}

}  // namespace praetor
