// Ranks of an MPI job, the last of which is killed, stopped or slowed in the middle of its work:
//   mpi_faults kill|stop|slow update|save|load PER_CENT FOLDER
// at exchange PER_CENT x (N - 1) / 100 of the N that the work makes undisturbed. The folder is the
// run's; processes that are left over are found by its name on their command line.
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include "actors/train/checkpoint_saver.h"
#include "core/base/error.h"
#include "core/base/threads.h"
#include "core/collective/exchange_collective.h"
#include "tests/actors/rpc/fake_services.h"
#include "tests/learners/sharding/cases.h"

namespace praetor {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr milliseconds kDeadline{2000}, kPause{600};

/// The last rank's exchanges, some of which its other threads make.
struct Blow {
  std::string kind;
  std::atomic<int64_t> at{-1};  ///< below 0: counts alone
  std::atomic<int64_t> made{0};

  void exchange(const CollectiveCall& call) {
    const int64_t number = made++;
    if (number != at) return;
    std::printf(
        "%s at exchange %ld: %s\n", kind.c_str(), static_cast<long>(number), call.text().c_str());
    std::fflush(stdout);
    if (kind == "slow") std::this_thread::sleep_for(kPause);
    if (kind == "stop") ::kill(::getpid(), SIGSTOP);
    if (kind == "kill") ::kill(::getpid(), SIGKILL);
  }
  /// @return exchanges since the last call
  int64_t count() { return made.exchange(0); }
};

/// As the next step of the run.
void save(Collective& ranks, const Learner& learner, const fs::path& run_dir) {
  static testing::FakeServices run;
  static int64_t step = 0;
  CheckpointSaver saver(run, ranks, {.background = true});
  saver.save({.run_dir = run_dir,
              .stage_name = "ppo",
              .tokenizer = run_dir,
              .environment = {},
              .resolved_job = "name: job\n"},
             learner,
             ++step,
             {});
  saver.finish();
}

int run(const std::string& kind,
        const std::string& phase,
        int64_t per_cent,
        const fs::path& run_dir) {
  const auto ranks = make_mpi_collective({.deadline = kDeadline});
  const bool last = ranks->rank() == ranks->world_size() - 1;
  Blow blow{.kind = kind};
  if (last) {
    dynamic_cast<ExchangeCollective&>(*ranks).state()->probe = [&](const CollectiveCall& call) {
      blow.exchange(call);
    };
  }
  try {
    // Of four ranks two split the layers, so that one may wait for a rank which waits itself.
    const testing::CaseOptions options{.stage = 3, .tensor = ranks->world_size() == 4 ? 2 : 1};
    Learner learner = testing::make_case("ppo", ranks.get(), options);
    Learner calm = testing::make_case("ppo", ranks.get(), options);
    const auto work = [&](Learner& one, int step) {
      if (phase == "update") testing::update_case("ppo", one, step);
      if (phase == "save") save(*ranks, one, run_dir);
      if (phase == "load")
        load_checkpoint(run_dir / "checkpoints/ppo/step-000001", "ppo", *ranks, one);
    };
    if (phase == "load") save(*ranks, learner, run_dir);
    work(learner, 0);
    work(calm, 0);
    blow.count();
    work(calm, 1);
    const int64_t made = blow.count();
    blow.at = per_cent * (made - 1) / 100;
    work(learner, 1);
    blow.at = -1;
    const bool same = testing::weights_digest(learner) == testing::weights_digest(calm);
    if (last) std::printf("%s weights\n", same ? "the same" : "other");
    return same ? 0 : 1;
  } catch (const CollectiveError& error) {
    std::printf("error: %s\n", error.what());
    std::fflush(stdout);
    ranks->abort(error.what());
    return error.exit_status();
  }
}

}  // namespace
}  // namespace praetor

int main(int argc, char** argv) {
  if (argc != 5) return praetor::kExitUsage;
  praetor::configure_numerics();
  praetor::set_threads(1);
  return praetor::run(argv[1], argv[2], std::atoi(argv[3]), argv[4]);
}
