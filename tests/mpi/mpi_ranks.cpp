// Ranks of an MPI job that hold the mpi backend against ranks as threads.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/base/threads.h"
#include "core/collective/collective.h"
#include "core/collective/grid.h"
#include "core/collective/nccl_collective.h"
#include "tests/core/collective/transcript.h"
#include "tests/learners/sharding/transcript.h"
#include "tests/support/processor_communicator.h"
#include "tests/support/ranks.h"

namespace praetor {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Transcript = std::function<std::string(Collective&)>;

/// Each rank's transcript over `ranks` must be what the same rank gives in a group of threads.
int compare(Collective& ranks, const std::string& what, const Transcript& transcript) {
  const std::vector<std::string> mpi = ranks.all_gather_bytes(transcript(ranks));
  int64_t differences = 0;
  if (ranks.rank() == 0) {
    std::vector<std::string> threads(mpi.size());
    const auto errors = testing::run_ranks(ranks.world_size(), [&](Collective& mine) {
      threads[static_cast<size_t>(mine.rank())] = transcript(mine);
    });
    for (size_t r = 0; r < mpi.size(); ++r) {
      if (mpi[r] == threads[r] && errors[r].empty()) continue;
      ++differences;
      std::fprintf(stderr,
                   "FAILED: %s: rank %zu of %zu: mpi %s, threads %s %s\n",
                   what.c_str(),
                   r,
                   mpi.size(),
                   mpi[r].c_str(),
                   threads[r].c_str(),
                   errors[r].c_str());
    }
    if (differences == 0)
      std::printf("%s: %zu ranks, mpi equals threads: %s\n",
                  what.c_str(),
                  mpi.size(),
                  mpi[0].substr(0, 16).c_str());
  }
  ranks.broadcast<int64_t>(std::span(&differences, 1));
  return differences == 0 ? 0 : 1;
}

int collective() {
  // Small chunks, so that messages are cut as those above 2^31 bytes are.
  const auto ranks = make_mpi_collective({.deadline = seconds(60), .chunk_bytes = 10'000});
  return compare(*ranks, "collective", testing::collective_transcript);
}

int groups() {
  const auto ranks = make_mpi_collective({.deadline = seconds(60), .chunk_bytes = 10'000});
  return compare(*ranks, "groups", testing::group_transcript);
}

/// Of a grid in rows of two the last rank stops calling. The rank beside it fails by the deadline,
/// and those that wait for that one, in other groups, with it.
int missing_in_group() {
  const auto ranks = make_mpi_collective({.deadline = seconds(2)});
  const int32_t last = ranks->world_size() - 1;
  std::string error;
  int status = 1;
  {
    const CollectiveGrid grid = make_grid(*ranks, 2, "shards", "replicas");
    ranks->barrier();
    if (ranks->rank() == last) std::this_thread::sleep_for(seconds(90));
    std::vector<float> sums(3);
    try {
      // Of four ranks 0 waits for rank 2 alone, which waits for rank 3, and is told in time.
      if (ranks->rank() != last - 1) std::this_thread::sleep_for(milliseconds(1500));
      (ranks->rank() == last - 1 ? grid.row : grid.column)->all_reduce<float>(sums);
      ranks->barrier();
    } catch (const CollectiveError& caught) {
      error = caught.what();
      status = caught.exit_status();
    }
  }
  std::printf("error: %s\n", error.c_str());
  std::fflush(stdout);
  return status;
}

int learner() {
  const auto ranks = make_mpi_collective({.deadline = seconds(60)});
  return compare(*ranks, "learner", testing::learner_transcript);
}

int resume() {
  const auto ranks = make_mpi_collective({.deadline = seconds(60)});
  return compare(*ranks, "resume", testing::resume_transcript);
}

/// The last rank stops calling; the others must fail by their deadline, and the job must end.
int missing() {
  const auto ranks = make_mpi_collective({.deadline = seconds(1)});
  std::vector<float> sums(3);
  ranks->barrier();
  if (ranks->rank() == ranks->world_size() - 1) std::this_thread::sleep_for(seconds(90));
  try {
    ranks->all_reduce<float>(sums);
  } catch (const CollectiveError& error) {
    std::printf("error: %s\n", error.what());
    std::fflush(stdout);
    return error.exit_status();
  }
  return 1;
}

/// The last rank is stopped within a call over an emulated NCCL, which does not say whom it lacks.
int stopped() {
  const auto ranks = make_mpi_collective({.deadline = seconds(60)});
  const NcclGroup group{
      .make_id = testing::processor_group_id,
      .join = [device = ranks->rank()](const std::string& id, int32_t rank, int32_t world) {
        return testing::join_processor_group(id, rank, world, device);
      }};
  ranks->set_device(make_nccl_collective(*ranks, group, {.deadline = seconds(2)}));
  Collective& nccl = *ranks->device();
  std::vector<float> sums(3);
  nccl.all_reduce<float>(sums);
  ranks->set_step(5);
  if (ranks->rank() == ranks->world_size() - 1) std::raise(SIGSTOP);
  try {
    // One rank waits over MPI, for those that fail elsewhere.
    if (ranks->world_size() > 2 && ranks->rank() == ranks->world_size() - 2) ranks->barrier();
    nccl.all_reduce<float>(sums);
  } catch (const CollectiveError& error) {
    std::printf("error: %s\n", error.what());
    std::fflush(stdout);
    ranks->abort(error.what());
    return error.exit_status();
  }
  return 1;
}

int main_of(const std::string& name) {
  if (name == "collective") return collective();
  if (name == "learner") return learner();
  if (name == "resume") return resume();
  if (name == "groups") return groups();
  if (name == "missing") return missing();
  if (name == "stopped") return stopped();
  if (name == "missing_in_group") return missing_in_group();
  std::fprintf(stderr, "unknown case %s\n", name.c_str());
  return kExitUsage;
}

}  // namespace
}  // namespace praetor

int main(int argc, char** argv) {
  praetor::configure_numerics();
  praetor::set_threads(1);
  return praetor::main_of(argc > 1 ? argv[1] : "");
}
