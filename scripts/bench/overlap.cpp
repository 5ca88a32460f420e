// Updates by ranks that are threads, over links which carry so many megabytes a second, at every
// sharding stage, in groups and with split layers:
//   overlap [MEGABYTES_A_SECOND [ROUNDS]]
// A line of JSON a layout: seconds of an update and bytes that a rank sent, beside what
// learners/step_time.h and memory_plan.h say of them given the seconds over a link as fast as
// memory.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "core/base/threads.h"
#include "learners/algorithms/sft.h"
#include "learners/learner.h"
#include "learners/step_time.h"
#include "tests/support/timed_link.h"

namespace praetor {
namespace {

constexpr int64_t kRows = 8, kTokens = 128, kMicroBatch = 256, kVocabulary = 4096;
constexpr int kUpdates = 2;

struct Layout {
  int32_t ranks = 2;
  ShardingConfig sharding;
};

const std::vector<Layout> kLayouts = {{2, {.stage = 1}},
                                      {2, {.stage = 2, .prefetch = 0}},
                                      {2, {.stage = 2}},
                                      {2, {.stage = 3, .prefetch = 0}},
                                      {2, {.stage = 3}},
                                      {2, {.stage = 1, .tensor = 2}},
                                      {4, {.stage = 1}},
                                      {4, {.stage = 2}},
                                      {4, {.stage = 3}},
                                      {4, {.stage = 3, .group = 2}},
                                      {4, {.stage = 3, .tensor = 2}}};

ModelConfig shape() {
  ModelConfig c;
  c.vocab_size = kVocabulary;
  c.hidden_size = 256;
  c.intermediate_size = 704;
  c.num_layers = 6;
  c.num_heads = 4;
  c.num_kv_heads = 4;
  c.head_dim = 64;
  c.max_positions = 256;
  return c;
}

std::vector<Example> rows() {
  std::vector<Example> out;
  for (int64_t i = 0; i < kRows; ++i) {
    Example one;
    for (int64_t t = 0; t < kTokens; ++t)
      one.tokens.push_back((31 * t * t + 17 * i + 1) % kVocabulary);
    one.target.assign(one.tokens.size(), 1);
    one.target[0] = 0;
    out.push_back(std::move(one));
  }
  return out;
}

struct Measured {
  double seconds = 0;  ///< of an update
  int64_t bytes = 0;   ///< that rank 0 sent in one
};

/// Means over updates of a fresh group, after a first one.
Measured measure(const Layout& layout, double bytes_a_second) {
  std::vector<std::atomic<int64_t>> sent(static_cast<size_t>(layout.ranks));
  const auto group =
      testing::make_timed_group(layout.ranks, {.bytes_a_second = bytes_a_second}, sent);
  Measured out;
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < layout.ranks; ++rank) {
    threads.emplace_back([&, rank] {
      Collective& ranks = *group[static_cast<size_t>(rank)];
      LearnerConfig config;
      config.sharding = layout.sharding;
      config.micro_batch_tokens = kMicroBatch;
      LearnerModels models;
      models.policy = std::make_unique<Transformer>(shape(), RandomStream({.job_seed = 1}));
      Learner learner(config, make_sft(SftConfig{}), std::move(models), &ranks);
      const std::vector<Example> examples = rows();
      learner.update(examples);
      ranks.barrier();
      const int64_t before = sent[0];
      const auto start = std::chrono::steady_clock::now();
      for (int step = 0; step < kUpdates; ++step) learner.update(examples);
      if (rank == 0) out.bytes = (sent[0] - before) / kUpdates;
      ranks.barrier();
      if (rank == 0)
        out.seconds =
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    });
  }
  for (std::thread& thread : threads) thread.join();
  out.seconds /= kUpdates;
  return out;
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

void compare(const Layout& layout, double bytes_a_second, int rounds) {
  std::vector<double> computing, seconds;
  int64_t bytes = 0;
  for (int round = 0; round < rounds; ++round) {
    computing.push_back(measure(layout, 0).seconds);
    const Measured one = measure(layout, bytes_a_second);
    seconds.push_back(one.seconds);
    bytes = one.bytes;
  }
  const ShardingConfig& sharding = layout.sharding;
  const MemoryPlanOptions options{.sharding = sharding,
                                  .ranks = layout.ranks,
                                  .micro_batch_tokens = kMicroBatch,
                                  .sequence_tokens = kTokens};
  const int64_t workers = layout.ranks / sharding.tensor;
  const int64_t micro_batches = ceil_div(kRows * kTokens, workers * kMicroBatch);
  const Link link{.bytes_a_second = bytes_a_second};
  const std::vector<PlannedNetwork> networks{{shape()}};
  const double alone = median(computing), with = median(seconds);
  const double planned =
      plan_step_time(
          networks, options, micro_batches, alone, {.copy = link, .copies = link, .tensor = link})
          .total();
  const int64_t planned_bytes = exchanged_bytes(networks, options, micro_batches);
  std::printf(
      "{\"case\": \"overlap\", \"ranks\": %d, \"stage\": %d, \"prefetch\": %d, \"group\": %d, "
      "\"tensor\": %d, \"megabytes_a_second\": %g, \"rounds\": %d, \"seconds_computing\": %.3f, "
      "\"seconds\": %.3f, \"planned_seconds\": %.3f, \"planned_over_measured\": %.3f, "
      "\"bytes_sent\": %lld, \"planned_bytes\": %lld, \"planned_over_sent\": %.4f}\n",
      layout.ranks,
      static_cast<int>(sharding.stage),
      static_cast<int>(sharding.prefetch),
      static_cast<int>(sharding.group),
      static_cast<int>(sharding.tensor),
      bytes_a_second / 1e6,
      rounds,
      alone,
      with,
      planned,
      planned / with,
      static_cast<long long>(bytes),
      static_cast<long long>(planned_bytes),
      static_cast<double>(planned_bytes) / static_cast<double>(bytes));
  std::fflush(stdout);
}

}  // namespace
}  // namespace praetor

int main(int argc, char** argv) {
  const double megabytes = argc > 1 ? std::strtod(argv[1], nullptr) : 100;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 3;
  if (!(megabytes > 0) || rounds < 1) {
    std::fprintf(stderr, "overlap: megabytes a second above 0 and at least one round are wanted\n");
    return 64;
  }
  praetor::set_threads(1);
  for (const auto& layout : praetor::kLayouts) praetor::compare(layout, megabytes * 1e6, rounds);
  return 0;
}
