#include "core/publication/weight_broadcast.h"

#include <ATen/ATen.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/model/transformer.h"
#include "tests/support/catch.h"
#include "tests/support/processor_communicator.h"
#include "tests/support/processor_device.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

using Catch::Contains;
using std::chrono::milliseconds;
using testing::ProcessorDevice;

namespace {

constexpr int32_t kRanks = 3;

/// Passes on what another one does, with one thing changed.
class Wrapped : public cuda::Communicator {
 public:
  explicit Wrapped(std::unique_ptr<cuda::Communicator> inner) : inner_(std::move(inner)) {}
  void start(const Work& work) override {
    ++started_;
    inner_->start(work);
  }
  State poll_but(int64_t last) override { return inner_->poll_but(last); }
  std::string failure() const override { return inner_->failure(); }
  void finish(const Work& work) override { inner_->finish(work); }
  void abort() noexcept override { inner_->abort(); }

 protected:
  std::unique_ptr<cuda::Communicator> inner_;
  int started_ = 0;
};

/// Flips a bit in the middle of the bucket of that number, from 1.
class Damaging final : public Wrapped {
 public:
  Damaging(std::unique_ptr<cuda::Communicator> inner, int bucket)
      : Wrapped(std::move(inner)), bucket_(bucket) {}
  void finish(const Work& work) override {
    inner_->finish(work);
    if (started_ == bucket_) static_cast<char*>(work.receive)[work.receive_count / 2] ^= 4;
  }

 private:
  int bucket_;
};

/// The wire ends a bucket only once `done` of it says so.
class Holding final : public Wrapped {
 public:
  Holding(std::unique_ptr<cuda::Communicator> inner, std::function<bool(int)> done)
      : Wrapped(std::move(inner)), done_(std::move(done)) {}
  State poll_but(int64_t last) override {
    return started_ > 0 && !done_(started_) ? State::kBusy : inner_->poll_but(last);
  }

 private:
  std::function<bool(int)> done_;
};

using Wrap = std::function<std::unique_ptr<cuda::Communicator>(
    std::unique_ptr<cuda::Communicator>, int32_t rank, ProcessorDevice&)>;

/// `work` on every rank of a group; what each threw.
std::vector<std::string> run_group(const std::function<void(WeightBroadcast&, int32_t rank)>& work,
                                   int64_t bucket_bytes = int64_t{1} << 20,
                                   std::vector<milliseconds> timeouts = {},
                                   const Wrap& wrap = nullptr) {
  timeouts.resize(kRanks, milliseconds(60'000));
  const std::string id = testing::processor_group_id();
  std::vector<std::string> errors(kRanks);
  std::vector<std::thread> threads;
  for (int32_t r = 0; r < kRanks; ++r) {
    threads.emplace_back([&, r] {
      ProcessorDevice device;
      try {
        auto joined = testing::join_processor_group(id, r, kRanks, r);
        if (wrap) joined = wrap(std::move(joined), r, device);
        WeightBroadcast group(std::move(joined),
                              device,
                              {.epoch = 7,
                               .members = {"learner-0", "rollout-0", "rollout-1"},
                               .rank = r,
                               .bucket_bytes = bucket_bytes,
                               .timeout = timeouts[static_cast<size_t>(r)]});
        work(group, r);
      } catch (const std::exception& error) {
        errors[static_cast<size_t>(r)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

/// Two versions of a model, published.
struct Versions {
  Versions() : first(model(1)), second(model(2)) {
    one = write_weight_file(folder.path(), {.step = 1}, first);
    two = write_weight_file(folder.path(), {.step = 2}, second);
  }
  static Transformer model(uint64_t seed) {
    return Transformer(testing::tiny_config(), testing::stream(seed));
  }
  testing::TempDir folder;
  Transformer first, second;
  WrittenWeights one, two;
};

const std::vector<std::string> kNone = {"", "", ""};

}  // namespace

TEST_CASE("a published file reaches every rank bit for bit, in buckets of any size",
          "[core][publication][cpu]") {
  const Versions published;
  const int64_t bytes = published.one.bytes;
  // One bucket; a last one that is smaller; pieces smaller than the header.
  const int64_t bucket = GENERATE_COPY(bytes, bytes - 1, int64_t{5000}, int64_t{1009});
  CAPTURE(bucket);
  std::vector<std::string> got(kRanks), again(kRanks);
  const auto errors = run_group(
      [&](WeightBroadcast& group, int32_t rank) {
        const auto at = static_cast<size_t>(rank);
        if (rank == 0) {
          group.send("weights of step 1", published.one.file);
          group.send("weights of step 2", published.two.file);
          return;
        }
        Transformer model = Versions::model(9);
        std::get<WeightFile>(group.receive("weights of step 1", bytes, published.one.digest))
            .apply(model);
        got[at] = model.digest();
        const auto file = std::get<WeightFile>(
            group.receive("weights of step 2", published.two.bytes, published.two.digest));
        again[at] = str(file.stamp().step, ' ', file.make_model().digest());
      },
      bucket);
  CHECK(errors == kNone);
  for (const size_t rank : {1, 2}) {
    CHECK(got[rank] == published.first.digest());
    CHECK(again[rank] == str("2 ", published.second.digest()));
  }
}

TEST_CASE("an adapter reaches every rank behind its base, and is merged with the same bits",
          "[core][publication][cpu]") {
  const Versions published;
  const LoraAdapter adapter = LoraAdapter::make(
      published.first.config(), {.rank = 3, .alpha = 5, .targets = {kAllLinear}}, {.job_seed = 3});
  for (const LoraAdapter::Module& module : adapter.modules()) at::Tensor(module.b).fill_(0.2);
  const WrittenWeights& base = published.one;
  const WrittenWeights written =
      write_adapter_file(published.folder.path(),
                         {.step = 2},
                         adapter,
                         {.digest = base.digest, .bytes = base.bytes, .file = "base"});
  std::vector<std::string> got(kRanks);
  const auto errors = run_group(
      [&](WeightBroadcast& group, int32_t rank) {
        if (rank == 0) {
          group.send("the base", base.file);
          group.send("the adapter", written.file);
          return;
        }
        const auto whole = std::get<WeightFile>(group.receive("the base", base.bytes, base.digest));
        const auto beside =
            std::get<AdapterFile>(group.receive("the adapter", written.bytes, written.digest));
        Transformer model = whole.make_model();
        whole.apply(beside.adapter(whole), model);
        got[static_cast<size_t>(rank)] = model.digest();
      },
      5000);
  CHECK(errors == kNone);
  const std::string want = adapter.merged(published.first).digest();
  CHECK(want != published.first.digest());
  for (const size_t rank : {1, 2}) CHECK(got[rank] == want);
}

TEST_CASE("a bucket is staged while another one is on the wire, and one is hashed",
          "[core][publication][cpu]") {
  const Versions published;
  constexpr int64_t kBucket = 5000;
  const auto buckets = static_cast<int>((published.one.bytes + kBucket - 1) / kBucket);
  // The wire waits for what is to be done meanwhile: in turn it would never end.
  const auto wrap = [&](auto joined, int32_t rank, ProcessorDevice& device) {
    return std::make_unique<Holding>(std::move(joined), [&device, rank, buckets](int bucket) {
      return rank == 0 ? device.uploads() >= std::min(bucket + 1, buckets)
                       : device.downloads() >= bucket - 1;
    });
  };
  const auto errors = run_group(
      [&](WeightBroadcast& group, int32_t rank) {
        if (rank == 0) return group.send("weights of step 1", published.one.file);
        group.receive("weights of step 1", published.one.bytes, published.one.digest);
      },
      kBucket,
      {milliseconds(5'000), milliseconds(5'000), milliseconds(5'000)},
      wrap);
  CHECK(errors == kNone);
}

TEST_CASE("a damaged bucket is refused by who got it, and the group goes on",
          "[core][publication][cpu]") {
  const Versions published;
  constexpr int64_t kBucket = 5000;
  const bool header = GENERATE(true, false);
  const int damaged = header ? 1 : static_cast<int>(published.one.bytes / kBucket);
  const auto wrap =
      [&](auto joined, int32_t rank, ProcessorDevice&) -> std::unique_ptr<cuda::Communicator> {
    if (rank != 2) return joined;
    return std::make_unique<Damaging>(std::move(joined), damaged);
  };
  std::vector<std::string> damage(kRanks);
  const auto errors = run_group(
      [&](WeightBroadcast& group, int32_t rank) {
        if (rank == 0) {
          group.send("weights of step 1", published.one.file);
          return group.send("weights of step 2", published.two.file);
        }
        try {
          group.receive("weights of step 1", published.one.bytes, published.one.digest);
        } catch (const DataError& error) {
          damage[static_cast<size_t>(rank)] = error.what();
        }
        group.receive("weights of step 2", published.two.bytes, published.two.digest);
      },
      kBucket,
      {},
      wrap);
  CHECK(errors == kNone);
  CHECK(damage[1].empty());
  CHECK_THAT(damage[2],
             Contains("broadcast of weights, epoch 7, rank 2 of 3 (with learner-0, rollout-0): "
                      "weights of step 1: "));
  if (!header) CHECK_THAT(damage[2], Contains("its bytes have SHA-256"));
}

TEST_CASE("other weights than those announced are refused", "[core][publication][cpu]") {
  const Versions published;
  const auto errors = run_group([&](WeightBroadcast& group, int32_t rank) {
    if (rank == 0) return group.send("weights of step 1", published.one.file);
    group.receive("weights of step 1", published.one.bytes, published.two.digest);
  });
  for (const size_t rank : {1, 2}) {
    CHECK_THAT(errors[rank], Contains(str("those with ", published.two.digest, " are wanted")));
  }
}

TEST_CASE("a rank that has gone ends the others' broadcast", "[core][publication][cpu]") {
  const Versions published;
  const auto errors = run_group(
      [&](WeightBroadcast& group, int32_t rank) {
        if (rank == 1) return group.give_up();
        if (rank == 0) {
          // Small pieces may be through before the first rank sees it.
          for (int i = 0; i < 1000; ++i) group.send("weights of step 1", published.one.file);
        }
        for (int i = 0; i < 1000; ++i)
          group.receive("weights of step 1", published.one.bytes, published.one.digest);
      },
      5000);
  CHECK_THAT(errors[0],
             Contains("epoch 7, rank 0 of 3 (with rollout-0, rollout-1): weights of step 1: "
                      "bucket ") &&
                 Contains("NCCL: rank 1 has gone"));
  CHECK_THAT(errors[2], Contains("NCCL: rank 0 has gone"));
}

TEST_CASE("a broadcast that stands still ends at its deadline, and the others hear of it",
          "[core][publication][cpu]") {
  const Versions published;
  std::string second;
  std::atomic<int> over{0};
  const auto begin = std::chrono::steady_clock::now();
  const auto errors = run_group(
      [&](WeightBroadcast& group, int32_t rank) {
        if (rank > 0) {
          try {
            group.receive("weights of step 1", published.one.bytes, published.one.digest);
          } catch (const CollectiveError&) {
            ++over;
            throw;
          }
        }
        try {
          group.send("weights of step 1", published.one.file);
        } catch (const CollectiveError&) {
          // Still there, but no more in the group.
          while (over < kRanks - 1) std::this_thread::yield();
          try {
            group.send("weights of step 2", published.two.file);
          } catch (const CollectiveError& error) {
            second = error.what();
          }
          throw;
        }
      },
      5000,
      {milliseconds(300), milliseconds(20'000), milliseconds(20'000)},
      [](auto joined, int32_t rank, ProcessorDevice&) -> std::unique_ptr<cuda::Communicator> {
        if (rank != 0) return joined;
        return std::make_unique<Holding>(std::move(joined), [](int bucket) { return bucket < 3; });
      });
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
  CHECK_THAT(errors[0],
             Contains("epoch 7, rank 0 of 3 (with rollout-0, rollout-1): weights of step 1: "
                      "bucket 3 of ") &&
                 Contains("timed out after 0.3 s"));
  CHECK_THAT(second, Contains("weights of step 2: the group has failed before: "));
  for (const size_t rank : {1, 2})
    CHECK_THAT(errors[rank], Contains("bucket ") && Contains("NCCL: rank 0 has gone"));
}

TEST_CASE("a group that does not come together is given up, at its deadline or when told so",
          "[core][publication][cpu]") {
  ProcessorDevice device;
  const auto join = [&](milliseconds timeout, std::function<std::string()> given_up) {
    const std::string id = testing::processor_group_id();
    WeightBroadcast group(testing::join_processor_group(id, 0, 2, 0),
                          device,
                          {.epoch = 2,
                           .members = {"learner-0", "rollout-5"},
                           .timeout = timeout,
                           .given_up = std::move(given_up)});
  };
  CHECK_THROWS_WITH(join(milliseconds(50), nullptr),
                    "broadcast of weights, epoch 2, rank 0 of 2 (with rollout-5): joining the "
                    "group: timed out after 0.05 s: one of them has not come, or stands still");
  CHECK_THROWS_WITH(join(milliseconds(60'000), [] { return std::string("rollout-5 was lost"); }),
                    Contains("joining the group: given up: rollout-5 was lost"));
  CHECK_THROWS_WITH(join(milliseconds(0), nullptr), Contains("0 ms for each"));
}

TEST_CASE("two ranks on one device are refused", "[core][publication][cpu]") {
  const std::string id = testing::processor_group_id();
  const auto root = testing::join_processor_group(id, 0, 2, 1);
  const auto other = testing::join_processor_group(id, 1, 2, 1);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  for (auto* const each : {root.get(), other.get()}) {
    while (each->poll() == cuda::Communicator::State::kBusy &&
           std::chrono::steady_clock::now() < end)
      std::this_thread::yield();
  }
  CHECK(root->failure() == "two ranks have device 1");
  CHECK(other->poll() == cuda::Communicator::State::kFailed);
}

}  // namespace praetor
