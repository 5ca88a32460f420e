#include "learners/step_time.h"

#include "tests/support/catch.h"

namespace praetor {
namespace {

ModelConfig shape() {
  ModelConfig c;
  c.vocab_size = 1000;
  c.hidden_size = 64;
  c.intermediate_size = 128;
  c.num_layers = 4;
  c.num_heads = c.num_kv_heads = 2;
  c.head_dim = 32;
  c.max_positions = 64;
  return c;
}

MemoryPlanOptions layout(int64_t stage, int64_t prefetch, int64_t ranks = 4) {
  return {.sharding = {.stage = stage, .prefetch = prefetch}, .ranks = ranks};
}

}  // namespace

TEST_CASE("a step waits for what its layout cannot hide", "[learners][cpu]") {
  const std::vector<PlannedNetwork> one{{shape()}};
  const auto parameters = static_cast<double>(shape().parameter_count());
  const double sent = 4 * parameters * 3 / 4;  // of each exchange of all, by each of 4 ranks
  const Link link{.bytes_a_second = 1e6, .message_seconds = 0.001};
  const auto plan = [&](int64_t stage, int64_t prefetch, double computing, int64_t batches = 1) {
    return plan_step_time(one, layout(stage, prefetch), batches, computing, {.copy = link});
  };
  // Stage 1: a sum and the new weights, each in one ring of three messages.
  CHECK(plan(1, 1, 5).exchanging == Approx(2 * sent / 1e6 + 2 * 3 * 0.001));
  CHECK(plan(1, 1, 5).waiting == plan(1, 1, 5).exchanging);
  CHECK(plan(1, 1, 5).total() == Approx(5 + plan(1, 1, 5).waiting));
  // Stage 2 sums the six units of each micro-batch.
  CHECK(plan(2, 0, 5, 3).exchanging == Approx(4 * sent / 1e6 + (3 * 6 + 1) * 3 * 0.001));
  // Stage 3 gathers each twice besides.
  const double all = 3 * sent / 1e6 + 18 * 3 * 0.001;
  CHECK(plan(3, 0, 5).waiting == Approx(all));
  // Beside a long computation the embedding's gather and sum are left.
  const double ends = 2 * (4.0 * 64000 * 3 / 4 / 1e6 + 3 * 0.001);
  CHECK(plan(3, 1, 100).exchanging == Approx(all));
  CHECK(plan(3, 1, 100).waiting == Approx(ends));
  // Beside a short one, what is longer than it.
  CHECK(plan(3, 1, 0.1).waiting == Approx(all - 0.1));
  CHECK(plan_step_time(one, layout(3, 1, 1), 1, 5, {.copy = link}).total() == 5);
}

TEST_CASE("copies within a node leave their sums to the network", "[learners][cpu]") {
  const std::vector<PlannedNetwork> one{{shape()}};
  const double part = 4 * static_cast<double>(shape().parameter_count()) / 4;
  MemoryPlanOptions options = layout(3, 0, 8);
  options.sharding.group = 4;
  const StepTime time = plan_step_time(
      one,
      options,
      2,
      1,
      {.copy = {.bytes_a_second = 1e6}, .copies = {.bytes_a_second = 1e5, .message_seconds = 0.5}});
  // Twice three rings of the whole within each four ranks; of each part half to the other copy,
  // and half back.
  CHECK(time.exchanging == Approx(2 * 3 * 3 * part / 1e6 + part / 1e5 + 2 * 0.5).epsilon(1e-4));
  CHECK(time.waiting == time.exchanging);
  options.sharding.group = 8;
  const Link link{.bytes_a_second = 1e6};
  CHECK(plan_step_time(one, options, 2, 1, {.copy = link}).exchanging ==
        Approx(2 * 3 * 7 * (part / 2) / 1e6).epsilon(1e-4));
}

TEST_CASE("sums within split layers are waited for", "[learners][cpu]") {
  const std::vector<PlannedNetwork> one{{shape()}};
  MemoryPlanOptions options = layout(3, 1, 4);
  options.sharding.tensor = 2;
  options.micro_batch_tokens = 100;
  const Links links{.copy = {.bytes_a_second = 1e6},
                    .copies = {},
                    .tensor = {.bytes_a_second = 1e5, .message_seconds = 0.01}};
  const StepTime time = plan_step_time(one, options, 3, 1000, links);
  // Of each layer two sums forward and two backward, of the embedding and the head one each; of
  // each sum half is sent, and half of the result.
  const double sums = 3 * 18 * 4.0 * 100 * 64;
  CHECK(static_cast<double>(tensor_sum_bytes(one, options, 3)) == sums);
  const double ends = 3 * 2 * 4.0 * (64000 / 2) / 2 / 1e6;
  CHECK(time.waiting == Approx(sums / 1e5 + 3 * 2 * 18 * 0.01 + ends));
}

TEST_CASE("narrow weights are gathered in half the bytes, frozen ones once", "[learners][cpu]") {
  const Link link{.bytes_a_second = 1e6};
  const auto exchanging = [&](const PlannedNetwork& network, int64_t bytes) {
    MemoryPlanOptions options = layout(3, 0);
    options.compute_bytes = bytes;
    return plan_step_time({network}, options, 1, 1, {.copy = link}).exchanging;
  };
  const PlannedNetwork trained{shape()}, frozen{.shape = shape(), .trained = false};
  const double each = 4 * static_cast<double>(shape().parameter_count()) * 3 / 4 / 1e6;
  CHECK(exchanging(trained, 4) == Approx(3 * each));
  CHECK(exchanging(trained, 2) == Approx(2 * each));
  CHECK(exchanging(frozen, 4) == Approx(each));
  CHECK(exchanging(frozen, 2) == Approx(each / 2));
}

}  // namespace praetor
