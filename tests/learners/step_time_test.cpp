#include "learners/step_time.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "core/model/boundary.h"
#include "core/model/forward_hooks.h"
#include "core/model/tensor_split.h"
#include "learners/algorithms/sft.h"
#include "learners/learner.h"
#include "learners/sharding/sharded_network.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"
#include "tests/support/timed_link.h"

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

/// Of the embedding, with the final norm.
constexpr double kEmbedding = 64000 + 64;

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void sleep(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

/// A network whose layers and heads compute as long as they are told, in which no core is busy:
/// backward a layer twice as long as forward, and the heads, whose logits are not kept, three
/// times.
class SlowNetwork final : public ForwardHooks {
 public:
  SlowNetwork(ShardedNetwork& network, Transformer& model, double layer, double heads)
      : network_(network), model_(model), layer_(layer), heads_(heads) {
    set_hooks(model, this);
  }
  at::Tensor enter(size_t part, const at::Tensor& x) override { return network_.enter(part, x); }
  at::Tensor leave(size_t part, const at::Tensor& x) override {
    at::Tensor out = x;
    if (part > 0) compute(out, layer_, 2 * layer_);
    return network_.leave(part, out);
  }
  void pass(const PackedTokens& tokens) {
    at::Tensor logits = model_.logits(model_.hidden(tokens));
    compute(logits, heads_, 3 * heads_);
    network_.finish({&logits});
    logits.sum().backward();
  }

 private:
  static void compute(at::Tensor& x, double forward, double backward) {
    sleep(forward);
    add_boundary({&x}, [backward] { sleep(backward); });
  }
  ShardedNetwork& network_;
  Transformer& model_;
  double layer_, heads_;
};

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
  // Stage 3 gathers each twice besides, but for the embedding, whose backward reads no weight.
  const auto exchange = [&](double of) { return 3 * of / 1e6 + 3 * 0.001; };  // 4 bytes, 3 of 4
  const double all = 3 * sent / 1e6 + 18 * 3 * 0.001 - exchange(kEmbedding);
  CHECK(plan(3, 0, 5).waiting == Approx(all));
  // Beside a long computation what is left is the embedding's gather and that of the first layer,
  // as an embedding computes nothing; the heads', which they had until then; and the last sums.
  const double layer = (parameters - kEmbedding - 64000) / 4;
  const double ends = 2 * exchange(kEmbedding) + 2 * exchange(layer) + exchange(64000);
  CHECK(plan(3, 1, 100).exchanging == Approx(all));
  CHECK(plan(3, 1, 100).waiting == Approx(ends));
  CHECK(plan(3, 1, 300, 3).waiting == Approx(3 * ends));
  // Beside a short one, what is longer than it, but for the heads' forward.
  CHECK(plan(3, 1, 0.1).waiting == Approx(all - 0.1).margin(0.002));
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
  // The embedding is gathered once a pass.
  CHECK(time.exchanging ==
        Approx(2 * 3 * (3 * part - kEmbedding) / 1e6 + part / 1e5 + 2 * 0.5).epsilon(1e-4));
  CHECK(time.waiting == time.exchanging);
  options.sharding.group = 8;
  const Link link{.bytes_a_second = 1e6};
  CHECK(plan_step_time(one, options, 2, 1, {.copy = link}).exchanging ==
        Approx(2 * 3.5 * (3 * part - kEmbedding) / 1e6).epsilon(1e-4));
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
  const UnitParameters half = unit_parameters({part_shape(shape(), 2)});
  const double ends =
      3 * 2.0 * static_cast<double>(2 * half.embedding + 2 * half.layer + half.head) / 1e6;
  CHECK(time.waiting == Approx(sums / 1e5 + 3 * 2 * 18 * 0.01 + ends));
  // What is computed again is summed again, both of each of the four layers.
  options.checkpointing = ActivationCheckpointing::kBlock;
  CHECK(plan_step_time(one, options, 3, 1000, links).waiting ==
        Approx(sums * 26 / 18 / 1e5 + 3 * 2 * 26 * 0.01 + ends));
  // A scalar head gives back no gradient that is split.
  CHECK(tensor_sums({.shape = shape(), .language_head = false}, options.checkpointing) == 25);
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
  const double embedding = 3 * kEmbedding / 1e6;  // gathered once
  CHECK(exchanging(trained, 4) == Approx(3 * each - embedding));
  CHECK(exchanging(trained, 2) == Approx(2 * each - embedding / 2));
  CHECK(exchanging(frozen, 4) == Approx(each));
  CHECK(exchanging(frozen, 2) == Approx(each / 2));
}

// The link and the sleeps decide, so that other work on the machine adds little: the least of
// three.
TEST_CASE("exchanges beside the computation take as long as planned", "[learners][cpu]") {
  const testing::OneThread one_thread;
  // A fast link; one on which exchanges take about as long as the layers beside them: with a tied
  // head, with several units ahead, with nothing beside the computation, with sums alone.
  struct Case {
    double bytes_a_second;
    int64_t stage, prefetch;
    bool tied;
  };
  constexpr double kLayer = 0.01;
  for (const Case& one : std::vector<Case>{{4e7, 3, 1, false},
                                           {8e6, 3, 1, false},
                                           {8e6, 3, 1, true},
                                           {8e6, 3, 3, false},
                                           {8e6, 3, 0, false},
                                           {8e6, 2, 1, false}}) {
    CAPTURE(one.bytes_a_second, one.stage, one.prefetch, one.tied);
    ModelConfig config = shape();
    config.vocab_size = 3000;
    config.tie_embeddings = one.tied;
    MemoryPlanOptions options = layout(one.stage, one.prefetch, 2);
    options.sequence_tokens = 4;
    // The heads as long as their arithmetic is beside a layer's.
    const double heads = kLayer * (64 * 3000) / (4 * 64 * 64 + 3 * 64 * 128);
    const StepTime plan = plan_step_time({{config}},
                                         options,
                                         1,
                                         4 * 3 * kLayer + 4 * heads,
                                         {.copy = {.bytes_a_second = one.bytes_a_second}});
    // New weights of stage 2 come with the optimizer step, which is not here.
    const double at_step =
        one.stage == 2
            ? static_cast<double>(exchanged_bytes({{config}}, options, 0)) / one.bytes_a_second
            : 0;
    const double planned = plan.total() - at_step;
    double least = 1e9;
    for (int round = 0; round < 3 && least > 1.1 * planned; ++round) {
      std::vector<std::atomic<int64_t>> sent(2);
      std::vector<double> seconds(2);
      const auto errors = testing::run_ranks(
          testing::make_timed_group(2, {.bytes_a_second = one.bytes_a_second}, sent),
          [&](Collective& ranks) {
            Transformer model(config, RandomStream({.job_seed = 1}));
            LockStep steps;
            steps.set_prefetch(one.prefetch);
            UnitMeter meter;
            ShardedNetwork network(
                "policy", model, ranks, steps, meter, {.trained = true, .cut = one.stage == 3});
            model.set_requires_grad(true);
            SlowNetwork slow(network, model, kLayer, heads);
            const PackedTokens tokens = pack({{1, 2, 3, 4}});
            ranks.barrier();
            const auto begin = std::chrono::steady_clock::now();
            steps.run(
                1,
                [&](size_t) {
                  return std::vector<LockStep::Use>{{.network = &network, .backward = true}};
                },
                [&](size_t) { slow.pass(tokens); });
            seconds[static_cast<size_t>(ranks.rank())] = seconds_since(begin);
          });
      REQUIRE(errors == std::vector<std::string>(2));
      least = std::min(least, *std::max_element(seconds.begin(), seconds.end()));
    }
    CHECK(planned == Approx(least).epsilon(0.2));
  }
}

TEST_CASE("updates over a slow link take as long as planned, and send as much", "[learners][cpu]") {
  const testing::OneThread one_thread;
  struct Layout {
    int32_t ranks;
    int64_t stage, prefetch, group, tensor;
  };
  constexpr double kSpeed = 4e6;
  std::vector<Example> rows;
  for (int64_t i = 0; i < 4; ++i)
    rows.push_back(testing::make_example({1 + i}, {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}));
  for (const Layout& one : std::vector<Layout>{{2, 1, 0, 0, 1},
                                               {2, 2, 1, 0, 1},
                                               {2, 3, 0, 0, 1},
                                               {2, 3, 1, 0, 1},
                                               {4, 3, 1, 2, 1},
                                               {4, 3, 1, 0, 2}}) {
    CAPTURE(one.ranks, one.stage, one.prefetch, one.group, one.tensor);
    MemoryPlanOptions options = layout(one.stage, one.prefetch, one.ranks);
    options.sharding.group = one.group;
    options.sharding.tensor = one.tensor;
    options.micro_batch_tokens = 4 * 12 * one.tensor / one.ranks;  // one micro-batch
    std::vector<std::atomic<int64_t>> sent(static_cast<size_t>(one.ranks));
    std::vector<double> seconds(sent.size(), 1e9);
    std::vector<int64_t> bytes(sent.size());
    const auto errors = testing::run_ranks(
        testing::make_timed_group(one.ranks, {.bytes_a_second = kSpeed}, sent),
        [&](Collective& ranks) {
          const auto mine = static_cast<size_t>(ranks.rank());
          LearnerConfig config;
          config.sharding = options.sharding;
          LearnerModels models;
          models.policy = std::make_unique<Transformer>(shape(), RandomStream({.job_seed = 1}));
          Learner learner(config, make_sft(SftConfig{}), std::move(models), &ranks);
          for (int update = 0; update < 3; ++update) {
            ranks.barrier();
            const int64_t before = sent[mine];
            const auto begin = std::chrono::steady_clock::now();
            learner.update(rows);
            seconds[mine] = std::min(seconds[mine], seconds_since(begin));
            bytes[mine] = sent[mine] - before;
          }
        });
    REQUIRE(errors == std::vector<std::string>(sent.size()));
    const Link link{.bytes_a_second = kSpeed};
    const StepTime plan = plan_step_time(
        {{shape()}}, options, 1, 1e-6, {.copy = link, .copies = link, .tensor = link});
    CHECK(plan.total() == Approx(*std::max_element(seconds.begin(), seconds.end())).epsilon(0.2));
    CHECK(static_cast<double>(exchanged_bytes({{shape()}}, options, 1)) ==
          Approx(static_cast<double>(bytes[0])).epsilon(0.02));
  }
}

}  // namespace praetor
