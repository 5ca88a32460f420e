// A step at sharding stage 3 with and without exchanges beside the computation, in turn, by two
// ranks as threads over links that carry so many megabytes a second:
//   overlap [MEGABYTES_A_SECOND [ROUNDS]]     0: as fast as memory
// Beside what was measured stands what learners/step_time.h says of such a link, given the seconds
// of the step without one.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/threads.h"
#include "core/collective/exchange_collective.h"
#include "learners/algorithms/sft.h"
#include "learners/learner.h"
#include "learners/step_time.h"

namespace praetor {
namespace {

constexpr int32_t kRanks = 2;

struct Wire {
  std::mutex mutex;
  std::condition_variable arrived;
  std::deque<std::string> to[kRanks];
};

/// Ranks as threads, over a link whose time does not depend on what the cores do.
class LinkCollective final : public ExchangeCollective {
 public:
  LinkCollective(std::shared_ptr<Wire> wire, int32_t rank, double bytes_a_second)
      : ExchangeCollective(rank, kRanks, {}),
        wire_(std::move(wire)),
        bytes_a_second_(bytes_a_second) {}
  ~LinkCollective() override { settle(); }
  std::string backend() const override { return "link"; }

 protected:
  void exchange(const CollectiveCall& call,
                const Routes& /*routes*/,
                const std::vector<Bytes>& send,
                const std::vector<MutableBytes>& receive) override {
    const auto peer = static_cast<size_t>(1 - rank()), mine = static_cast<size_t>(rank());
    if (bytes_a_second_ > 0) {
      std::this_thread::sleep_for(
          std::chrono::duration<double>(static_cast<double>(send[peer].size()) / bytes_a_second_));
    }
    std::unique_lock lock(wire_->mutex);
    wire_->to[peer].emplace_back(reinterpret_cast<const char*>(send[peer].data()),
                                 send[peer].size());
    wire_->arrived.notify_all();
    const bool came =
        wire_->arrived.wait_for(lock, options().deadline, [&] { return !wire_->to[mine].empty(); });
    PRAETOR_CHECK(came && wire_->to[mine].front().size() == receive[peer].size(), call.text());
    std::memcpy(
        receive[peer].data(), wire_->to[mine].front().data(), wire_->to[mine].front().size());
    wire_->to[mine].pop_front();
  }

 private:
  std::shared_ptr<Wire> wire_;
  double bytes_a_second_;
};

ModelConfig shape() {
  ModelConfig c;
  c.vocab_size = 4096;
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
  for (int64_t i = 0; i < 8; ++i) {
    Example one;
    for (int64_t t = 0; t < 128; ++t) one.tokens.push_back((31 * t * t + 17 * i + 1) % 4096);
    one.target.assign(one.tokens.size(), 1);
    one.target[0] = 0;
    out.push_back(std::move(one));
  }
  return out;
}

/// Seconds of one update, the mean of three by a fresh group.
double seconds_of(int64_t prefetch, double bytes_a_second) {
  const auto wire = std::make_shared<Wire>();
  double seconds = 0;
  std::vector<std::thread> threads;
  for (int32_t rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      LinkCollective ranks(wire, rank, bytes_a_second);
      LearnerConfig config;
      config.sharding = {.stage = 3, .prefetch = prefetch};
      config.micro_batch_tokens = 512;
      LearnerModels models;
      models.policy = std::make_unique<Transformer>(shape(), RandomStream({.job_seed = 1}));
      Learner learner(config, make_sft(SftConfig{}), std::move(models), &ranks);
      const std::vector<Example> examples = rows();
      learner.update(examples);
      ranks.barrier();
      const auto start = std::chrono::steady_clock::now();
      for (int step = 0; step < 3; ++step) learner.update(examples);
      ranks.barrier();
      if (rank == 0)
        seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return seconds / 3;
}

double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

/// What the plan says of such an update.
double planned(int64_t prefetch, double computing, double bytes_a_second) {
  if (bytes_a_second == 0) return computing;
  const MemoryPlanOptions options{.sharding = {.stage = 3, .prefetch = prefetch}, .ranks = kRanks};
  const Link link{.bytes_a_second = bytes_a_second};
  return plan_step_time({{shape()}}, options, 1, computing, {.copy = link}).total();
}

}  // namespace
}  // namespace praetor

int main(int argc, char** argv) {
  const double megabytes = argc > 1 ? std::strtod(argv[1], nullptr) : 200;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 5;
  praetor::set_threads(1);
  std::vector<double> computing, without, with, ratio;
  for (int round = 0; round < rounds; ++round) {
    computing.push_back(praetor::seconds_of(0, 0));
    without.push_back(praetor::seconds_of(0, megabytes * 1e6));
    with.push_back(praetor::seconds_of(1, megabytes * 1e6));
    ratio.push_back(without.back() / with.back());
  }
  const double alone = praetor::median(computing);
  std::printf(
      "{\"case\": \"overlap\", \"ranks\": 2, \"megabytes_a_second\": %g, \"rounds\": %d, "
      "\"seconds_computing\": %.3f, \"seconds_waiting\": %.3f, \"seconds_beside\": %.3f, "
      "\"planned_waiting\": %.3f, \"planned_beside\": %.3f, \"median_ratio\": %.2f, "
      "\"least_ratio\": %.2f, \"most_ratio\": %.2f}\n",
      megabytes,
      rounds,
      alone,
      praetor::median(without),
      praetor::median(with),
      praetor::planned(0, alone, megabytes * 1e6),
      praetor::planned(1, alone, megabytes * 1e6),
      praetor::median(ratio),
      *std::min_element(ratio.begin(), ratio.end()),
      *std::max_element(ratio.begin(), ratio.end()));
  return 0;
}
