#include "learners/memory_plan.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "core/model/kernels/packed_weight.h"
#include "core/model/tensor_split.h"
#include "learners/algorithms/sft.h"
#include "learners/learner.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/live_bytes.h"
#include "tests/support/ranks.h"

namespace praetor {
namespace {

constexpr int64_t kSequence = 125, kMicroBatch = 500;

ModelConfig shape(bool tied) {
  ModelConfig c;
  c.vocab_size = 3008;
  c.hidden_size = 96;
  c.intermediate_size = 256;
  c.num_layers = 6;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 32;
  c.max_positions = 128;
  c.tie_embeddings = tied;
  return c;
}

struct Measured {
  int64_t peak = 0;    ///< of the rank that had most
  int64_t packed = 0;  ///< of a world of one
};

/// Live bytes of tensors at the worst moment of the second of two updates of two micro-batches.
Measured measure(const ModelConfig& config, const MemoryPlanOptions& options) {
  std::vector<Example> rows;
  const int64_t workers = options.ranks / options.sharding.tensor;
  for (int64_t i = 0; i < 2 * workers * kMicroBatch / kSequence; ++i) {
    std::vector<int64_t> tokens;
    for (int64_t t = 1; t < kSequence; ++t) tokens.push_back((31 * t * t + 17 * i) % 3000);
    rows.push_back(testing::make_example({1 + i % 7}, tokens));
  }
  std::vector<int64_t> peaks(static_cast<size_t>(options.ranks));
  Measured out;
  const int64_t before = ops::kernels::packed_weight_stats().bytes;
  const auto errors =
      testing::run_ranks(static_cast<int32_t>(options.ranks), [&](Collective& ranks) {
        testing::LiveBytes bytes;
        LearnerConfig settings;
        settings.sharding = options.sharding;
        settings.micro_batch_tokens = options.micro_batch_tokens;
        settings.activation_checkpointing = options.checkpointing;
        if (options.compute_bytes == 2) settings.precision = at::kBFloat16;
        LearnerModels models;
        models.policy = std::make_unique<Transformer>(config, RandomStream({.job_seed = 3}));
        Learner learner(settings, make_sft(SftConfig{}), std::move(models), &ranks);
        learner.update(rows);
        bytes.restart();
        learner.update(rows);
        peaks[static_cast<size_t>(ranks.rank())] = bytes.peak();
        if (options.ranks == 1) out.packed = ops::kernels::packed_weight_stats().bytes - before;
      });
  REQUIRE(errors == std::vector<std::string>(static_cast<size_t>(options.ranks)));
  out.peak = *std::max_element(peaks.begin(), peaks.end());
  return out;
}

}  // namespace

TEST_CASE("the plan of an update's memory is what the update takes, within a tenth",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const bool tied : {true, false}) {
    const ModelConfig config = shape(tied);
    for (const auto checkpointing : {ActivationCheckpointing::kNone,
                                     ActivationCheckpointing::kSelective,
                                     ActivationCheckpointing::kBlock}) {
      struct Layout {
        int64_t ranks, stage, prefetch, group = 0, tensor = 1;
      };
      using Layouts = std::vector<Layout>;
      const Layouts layouts =
          tied ? Layouts{{1, 1, 1},
                         {2, 2, 1},
                         {2, 3, 1},
                         {4, 3, 1, 2},
                         {2, 1, 1, 0, 2},
                         {4, 3, 1, 0, 2}}
               : Layouts{{2, 1, 1}, {2, 2, 0}, {2, 3, 0}, {3, 3, 2}, {2, 2, 1, 1}, {4, 1, 1, 0, 4}};
      for (const auto& [ranks, stage, prefetch, group, tensor] : layouts) {
        const MemoryPlanOptions options{
            .sharding = {.stage = stage, .prefetch = prefetch, .tensor = tensor, .group = group},
            .ranks = ranks,
            .micro_batch_tokens = kMicroBatch,
            .sequence_tokens = kSequence,
            .checkpointing = checkpointing};
        const Measured measured = measure(config, options);
        const std::vector<PlannedNetwork> networks{{config}};
        const MemoryPlan plan = plan_memory(networks, options);
        INFO("tied " << tied << ", checkpointing " << static_cast<int>(checkpointing) << ", "
                     << ranks << " ranks, stage " << stage << ", prefetch " << prefetch
                     << ", group " << group << ", tensor " << tensor << ": weights " << plan.weights
                     << ", gradients " << plan.gradients << ", moments " << plan.moments
                     << ", units " << plan.units << ", activations " << plan.activations
                     << ", workspace " << plan.workspace);
        CHECK(static_cast<double>(plan.total()) ==
              Approx(static_cast<double>(measured.peak)).epsilon(0.1));
        if (ranks == 1) CHECK(packed_weight_bytes(networks, options) == measured.packed);
      }
    }
  }
}

TEST_CASE("so is the plan of an update in bfloat16", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const ModelConfig config = shape(true);
  for (const auto checkpointing :
       {ActivationCheckpointing::kNone, ActivationCheckpointing::kBlock}) {
    const std::vector<std::array<int64_t, 2>> layouts{{1, 1}, {2, 1}, {2, 2}, {2, 3}};
    for (const auto& [ranks, stage] : layouts) {
      const MemoryPlanOptions options{.sharding = {.stage = stage},
                                      .ranks = ranks,
                                      .micro_batch_tokens = kMicroBatch,
                                      .sequence_tokens = kSequence,
                                      .checkpointing = checkpointing,
                                      .compute_bytes = 2};
      const Measured measured = measure(config, options);
      const MemoryPlan plan = plan_memory({{.shape = config, .weight_bytes = 6}}, options);
      INFO("checkpointing " << static_cast<int>(checkpointing) << ", " << ranks << " ranks, stage "
                            << stage << ": weights " << plan.weights << ", gradients "
                            << plan.gradients << ", moments " << plan.moments << ", units "
                            << plan.units << ", activations " << plan.activations << ", workspace "
                            << plan.workspace);
      CHECK(static_cast<double>(plan.total()) ==
            Approx(static_cast<double>(measured.peak)).epsilon(0.1));
    }
  }
}

TEST_CASE("arithmetic and traffic are counted from the shapes", "[learners][cpu]") {
  ModelConfig config = shape(false);
  config.num_layers = 1;
  const std::vector<PlannedNetwork> one{{config}};
  // 96 x 128 twice, 96 x 64 twice, 96 x 256 three times; 4 x 128 a token before.
  const double layer = 2.0 * (2 * 96 * 128 + 2 * 96 * 64 + 3 * 96 * 256) + 4 * 128 * 50;
  const double head = 2.0 * 3008 * 96;
  const auto flops = [&](ActivationCheckpointing what) { return update_flops(one, what, 10, 50); };
  CHECK(flops(ActivationCheckpointing::kNone) ==
        Approx(10 * (3 * (layer + head) + head + 4 * 128 * 50)));
  CHECK(flops(ActivationCheckpointing::kBlock) - flops(ActivationCheckpointing::kNone) ==
        Approx(10 * layer));
  CHECK(flops(ActivationCheckpointing::kSelective) - flops(ActivationCheckpointing::kNone) ==
        Approx(10 * 2.0 * 2 * 96 * 256));
  const std::vector<PlannedNetwork> frozen{{.shape = config, .trained = false}};
  CHECK(update_flops(frozen, ActivationCheckpointing::kBlock, 10, 50) ==
        Approx(10 * (layer + head)));

  const int64_t all = 4 * config.parameter_count(), others = all - all / 4;
  REQUIRE(all % 4 == 0);
  // Over two ranks of two each: sums of 5 x 8192 tokens, of which a rank sends all of 96 floats:
  // 4 in the layer, 1 of the embedding, 1 of the head's gradient; and its half over two ranks.
  const int64_t half = 4 * part_shape(config, 2).parameter_count();
  CHECK(exchanged_bytes(one, {.sharding = {.tensor = 2}, .ranks = 4}, 5) ==
        6 * 4 * 5 * 8192 * 96 + 2 * (half - (half + 1) / 2));
  const auto sent = [&](int64_t ranks, int64_t stage, bool trained) {
    return exchanged_bytes(
        {{.shape = config, .trained = trained}}, {.sharding = {.stage = stage}, .ranks = ranks}, 5);
  };
  CHECK(sent(1, 3, true) == 0);
  CHECK(sent(4, 1, true) == 2 * others);
  CHECK(sent(4, 2, true) == 6 * others);
  // At stage 3 two gathers and a sum, but for the embedding, whose backward reads no weight.
  const UnitParameters units = unit_parameters({config});
  CHECK(units.embedding + units.layer + units.head == config.parameter_count());
  CHECK(units.head == 3008 * 96);
  const int64_t table = 4 * units.embedding;
  CHECK(sent(4, 3, true) == 15 * others - 5 * (table - table / 4));
  CHECK(sent(4, 2, false) == 0);
  CHECK(sent(4, 3, false) == 5 * others);
  // In groups of two: half of everything to the other, and a quarter of the sums out and back.
  const auto in_pairs = [&](int64_t stage, bool trained) {
    return exchanged_bytes({{.shape = config, .trained = trained}},
                           {.sharding = {.stage = stage, .group = 2}, .ranks = 4},
                           5);
  };
  CHECK(in_pairs(1, true) == 2 * (all / 2) + 2 * (all / 4));
  CHECK(in_pairs(2, true) == 6 * (all / 2) + 2 * (all / 4));
  CHECK(in_pairs(3, true) == 15 * (all / 2) - 5 * (table / 2) + 2 * (all / 4));
  CHECK(in_pairs(3, false) == 5 * (all / 2));
  CHECK(exchanged_bytes({{config}}, {.sharding = {.stage = 3, .group = 1}, .ranks = 4}, 5) ==
        2 * others);
  // Under an adapter its own gradients and values, and at stage 3 the weights twice a micro-batch.
  const auto adapted = [&](int64_t stage) {
    return exchanged_bytes({{.shape = config, .adapter_parameters = 1000}},
                           {.sharding = {.stage = stage}, .ranks = 4},
                           5);
  };
  CHECK(adapted(1) == 2 * 3000);
  CHECK(adapted(3) == 2 * 3000 + 10 * others - 5 * (table - table / 4));
  CHECK(parameter_count({.shape = config, .language_head = false}) ==
        config.parameter_count() - 3008 * 96 + 96);
}

TEST_CASE("under an adapter the plan has gradients and moments of the adapter alone",
          "[learners][cpu]") {
  const ModelConfig config = shape(false);
  const int64_t all = 4 * config.parameter_count();
  const PlannedNetwork policy{.shape = config, .adapter_parameters = 1000};
  const PlannedNetwork critic{
      .shape = config, .language_head = false, .adapter_parameters = 1096, .owned = false};
  const MemoryPlanOptions options{.micro_batch_tokens = kMicroBatch, .sequence_tokens = kSequence};
  const MemoryPlan one = plan_memory({policy}, options), whole = plan_memory({{config}}, options);
  CHECK(one.weights == all + 4000);
  CHECK(one.gradients == 4000);
  CHECK(one.moments == 8000);
  CHECK(one.activations == whole.activations);
  CHECK(plan_memory({policy, critic}, options).weights == all + 4000 + 4 * 1096);
  CHECK(packed_weight_bytes({policy, critic}, options) == packed_weight_bytes({policy}, options));
  MemoryPlanOptions cut = options;
  cut.ranks = 4;
  cut.sharding.stage = 3;
  const MemoryPlan part = plan_memory({policy}, cut);
  CHECK(part.weights == all / 4 + 4000);
  CHECK(part.gradients == 4000);
  CHECK(part.moments == 2000);
  const double less = update_flops({{config}}, cut.checkpointing, 10, 50) -
                      update_flops({policy}, cut.checkpointing, 10, 50);
  const double products = 2.0 * (2 * 96 * 128 + 2 * 96 * 64 + 3 * 96 * 256);
  CHECK(less == Approx(10 * (6 * products + 2.0 * 3008 * 96 - 6.0 * 1000)));
}

}  // namespace praetor
