#include "actors/roles/weight_receiver.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "actors/controller/broadcast_desk.h"
#include "actors/train/publisher.h"
#include "actors/train/weight_caster.h"
#include "core/base/error.h"
#include "core/model/transformer.h"
#include "tests/support/catch.h"
#include "tests/support/processor_communicator.h"
#include "tests/support/processor_device.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

using std::chrono::milliseconds;
using testing::ProcessorDevice;

namespace {

NcclGroup groups(int32_t device) {
  return {.make_id = testing::processor_group_id,
          .join = [device](const std::string& id, int32_t rank, int32_t world) {
            return testing::join_processor_group(id, rank, world, device);
          }};
}

/// A worker as the desk knows it.
struct Worker {
  Worker(BroadcastDesk& desk, int index, milliseconds timeout)
      : name("rollout-" + std::to_string(index)),
        receiver(desk, groups(index + 1), device, {.worker = name, .timeout = timeout}) {}
  std::string name;
  ProcessorDevice device;
  WeightReceiver receiver;
};

/// A publisher, its controller's desk, and workers.
struct Run {
  explicit Run(milliseconds wait = milliseconds(20'000))
      : timeout(wait),
        caster(
            desk, groups(0), device, {.name = "learner-0", .bucket_bytes = 5000, .timeout = wait}),
        publisher(
            {.via = "nccl"}, dir.path(), {.run_id = "r", .secret = std::string(64, 'a')}, &caster) {
  }
  ~Run() { desk.end(); }

  Worker& add() {
    workers.push_back(std::make_unique<Worker>(desk, static_cast<int>(workers.size()), timeout));
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (desk.status().waiting.size() < workers.size() && std::chrono::steady_clock::now() < end)
      std::this_thread::yield();
    return *workers.back();
  }
  Transformer model(int64_t step) const {
    return Transformer(testing::tiny_config(), testing::stream(static_cast<uint64_t>(step)));
  }
  Publisher::Published publish(int64_t step) {
    return publisher.publish(0, 0, step, model(step), {});
  }
  /// The digest of what the worker has received of it; "a file" where it is to take that.
  std::string had(Worker& worker, const Publication& publication) const {
    const auto weights = worker.receiver.take(publication);
    return weights ? std::get<WeightFile>(*weights).make_model().digest() : "a file";
  }

  testing::TempDir dir;
  milliseconds timeout;
  BroadcastDesk desk;
  ProcessorDevice device;
  WeightCaster caster;
  Publisher publisher;
  std::vector<std::unique_ptr<Worker>> workers;
};

/// Nobody hears of its end.
class Silent final : public cuda::Communicator {
 public:
  explicit Silent(std::shared_ptr<cuda::Communicator> inner) : inner_(std::move(inner)) {}
  void start(const Work& work) override { inner_->start(work); }
  State poll_but(int64_t last) override { return inner_->poll_but(last); }
  std::string failure() const override { return inner_->failure(); }
  void finish(const Work& work) override { inner_->finish(work); }
  void abort() noexcept override {}

 private:
  std::shared_ptr<cuda::Communicator> inner_;
};

/// Set for the life of the object.
class Setting {
 public:
  Setting(const char* name, const std::string& value) : name_(name) {
    ::setenv(name, value.c_str(), 1);
  }
  ~Setting() { ::unsetenv(name_); }

 private:
  const char* name_;
};

void touch(const std::filesystem::path& file) {
  std::ofstream(file) << "";
}

}  // namespace

TEST_CASE("published weights reach all workers by broadcast, in one epoch", "[actors][cpu]") {
  Run run;
  Worker& one = run.add();
  Worker& two = run.add();
  for (int64_t step = 1; step <= 3; ++step) {
    const auto made = run.publish(step);
    CHECK(made.publication.epoch == 1);
    CHECK(made.publication.broadcast == step);
    CHECK(made.receivers == 2);
    CHECK(!made.publication.file.empty());  // for who misses it
    CHECK(!made.publication.address.empty());
    for (Worker* worker : {&one, &two})
      CHECK(run.had(*worker, made.publication) == run.model(step).digest());
  }
  // Each is had once, and what was never broadcast is not waited for.
  const auto made = run.publish(4);
  CHECK(run.had(one, made.publication) == run.model(4).digest());
  CHECK(run.had(one, made.publication) == "a file");
}

TEST_CASE("a companion is broadcast before the policy, and again only when it has changed",
          "[actors][cpu]") {
  Run run;
  Worker& one = run.add();
  const Transformer policy = run.model(1), companion = run.model(7);
  const auto first = run.publisher.publish(0, 0, 1, policy, {&companion, 0}).publication;
  REQUIRE(first.companions.size() == 1);
  CHECK(run.had(one, first.companions[0]) == companion.digest());
  CHECK(run.had(one, first) == policy.digest());
  const auto second = run.publisher.publish(0, 0, 2, policy, {&companion, 0}).publication;
  CHECK(second.broadcast == 2);
  CHECK(second.companions[0].broadcast == 1);
  CHECK(run.had(one, second.companions[0]) == "a file");
}

TEST_CASE("without workers nothing is broadcast; who comes late begins an epoch", "[actors][cpu]") {
  Run run;
  const auto alone = run.publish(1);
  CHECK(alone.publication.epoch == 0);
  CHECK(alone.receivers == 0);
  Worker& one = run.add();
  CHECK(run.had(one, alone.publication) == "a file");
  const auto first = run.publish(2);
  CHECK(first.publication.epoch == 1);
  Worker& two = run.add();
  CHECK(run.had(two, first.publication) == "a file");
  const auto both = run.publish(3);
  CHECK(both.publication.epoch == 2);
  CHECK(both.receivers == 2);
  for (Worker* worker : {&one, &two})
    CHECK(run.had(*worker, both.publication) == run.model(3).digest());
}

TEST_CASE(
    "a worker that is lost in the middle of a broadcast ends it at once; the next epoch is "
    "of the others",
    "[actors][cpu]") {
  Run run(milliseconds(60'000));
  Worker& one = run.add();
  run.add();
  run.publish(1);
  const auto hold = run.dir / "hold";
  const Setting setting("PRAETOR_PROCESSOR_HOLD", hold.string());
  touch(hold);
  Publisher::Published made;
  std::thread publishing([&] { made = run.publish(2); });
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (run.desk.status().number < 2 && std::chrono::steady_clock::now() < end)
    std::this_thread::yield();
  const auto begin = std::chrono::steady_clock::now();
  // Its process has ended: nothing of it asks any more.
  std::this_thread::sleep_for(milliseconds(100));
  run.desk.gone("rollout-1", "signal 9");
  publishing.join();
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
  CHECK(made.publication.epoch == 0);
  CHECK(run.had(one, made.publication) == "a file");
  std::filesystem::remove(hold);
  const auto next = run.publish(3);
  CHECK(next.publication.epoch == 2);
  CHECK(run.had(one, next.publication) == run.model(3).digest());
}

TEST_CASE("a broadcast that stands still is given up at its deadline, and the file is had",
          "[actors][cpu]") {
  Run run(milliseconds(300));
  Worker& one = run.add();
  const auto hold = run.dir / "hold";
  const Setting setting("PRAETOR_PROCESSOR_HOLD", hold.string());
  touch(hold);
  const auto made = run.publish(1);
  CHECK(made.publication.epoch == 0);
  CHECK(std::filesystem::exists(made.publication.file));
  CHECK(run.had(one, made.publication) == "a file");
  std::filesystem::remove(hold);
  const auto next = run.publish(2);
  CHECK(next.publication.epoch == 2);
  CHECK(run.had(one, next.publication) == run.model(2).digest());
}

TEST_CASE("a worker gives up at once what the publisher has given up, though NCCL says nothing",
          "[actors][cpu]") {
  Run run(milliseconds(60'000));
  Worker& one = run.add();
  // Groups whose sockets stay as they are, whatever becomes of them.
  std::vector<std::shared_ptr<cuda::Communicator>> left;
  const auto silent = [&](const std::string& id, int32_t rank, int32_t world) {
    left.emplace_back(testing::join_processor_group(id, rank, world, 0));
    return std::make_unique<Silent>(left.back());
  };
  ProcessorDevice device;
  WeightCaster caster(run.desk,
                      {.make_id = testing::processor_group_id, .join = silent},
                      device,
                      {.name = "learner-0", .bucket_bytes = 5000, .timeout = milliseconds(300)});
  Publisher publisher(
      {.via = "nccl"}, run.dir.path(), {.run_id = "r", .secret = std::string(64, 'a')}, &caster);
  const auto hold = run.dir / "hold";
  const Setting setting("PRAETOR_PROCESSOR_HOLD", hold.string());
  touch(hold);
  const auto made = publisher.publish(0, 0, 1, run.model(1), {});
  CHECK(made.publication.epoch == 0);
  CHECK(run.had(one, made.publication) == "a file");
  std::filesystem::remove(hold);
  const auto next = publisher.publish(0, 0, 2, run.model(2), {});
  CHECK(next.publication.epoch == 2);
  CHECK(run.had(one, next.publication) == run.model(2).digest());
}

TEST_CASE("a worker whose bytes were damaged takes the file, and is in the next epoch",
          "[actors][cpu]") {
  Run run;
  Worker& one = run.add();
  Worker& two = run.add();
  const auto damage = run.dir / "damage";
  const Setting setting("PRAETOR_PROCESSOR_CORRUPT", damage.string());
  touch(damage);
  const auto made = run.publish(1);
  CHECK(made.publication.epoch == 1);
  const std::vector<std::string> had = {run.had(one, made.publication),
                                        run.had(two, made.publication)};
  CHECK(std::count(had.begin(), had.end(), "a file") == 1);
  CHECK(std::count(had.begin(), had.end(), run.model(1).digest()) == 1);
  const auto next = run.publish(2);
  CHECK(next.publication.epoch == 2);
  CHECK(next.receivers == 2);
  for (Worker* worker : {&one, &two})
    CHECK(run.had(*worker, next.publication) == run.model(2).digest());
}

TEST_CASE("a publisher without a group to join publishes a file", "[actors][cpu]") {
  Run run;
  run.add();
  ProcessorDevice device;
  WeightCaster broken(
      run.desk,
      {.make_id = []() -> std::string { throw InvalidArgument("no NCCL here"); }, .join = nullptr},
      device,
      {.name = "learner-0"});
  const auto written = run.publish(1);
  const WeightCaster::Cast cast = broken.cast({written.publication});
  CHECK(cast.number == BroadcastNumber{});
  CHECK(cast.failure == "no NCCL here");
  CHECK(run.publish(2).publication.epoch > 1);
}

}  // namespace praetor
