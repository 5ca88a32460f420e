#include "actors/train/learner_exchange.h"

#include <chrono>
#include <cstdlib>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "actors/train/environment.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "tests/support/catch.h"
#include "tests/support/processor_communicator.h"
#include "tests/support/ranks.h"
#include "tests/support/shared_data.h"

namespace praetor {
namespace {

using Catch::Contains;
using testing::run_ranks;

/// A job with one stage that trains and these lines at its end.
JobConfig job_of(const testing::TempDir& dir, const std::string& device, const std::string& end) {
  write_file_atomic(dir / "job.yaml",
                    R"(
name: run
stages:
  - {kind: toy_language, name: language}
  - kind: sft
    tokenizer: {stage: language}
    model: {create: {hidden_size: 16, num_layers: 1, num_heads: 2, max_positions: 64}}
    data: {train: "stage:language/sft.jsonl"}
    steps: 3
    learner: {device: )" +
                        device + "}\n" + end + "\n");
  return JobConfig::read(dir / "job.yaml");
}

std::string errors_of(const std::string& device, const std::string& end) {
  const testing::TempDir dir;
  return join(job_of(dir, device, end).document->errors(), "\n");
}

RankGpu gpu(const std::string& host, int32_t index) {
  return {.host = host,
          .nccl_host = host,
          .index = index,
          .name = "a GPU",
          .id = str("gpu-", index),
          .failure = ""};
}

/// NCCL between these tests' ranks; that rank cannot join.
NcclGroup emulated(int32_t device, int32_t broken = -1) {
  return {.make_id = testing::processor_group_id,
          .join = [=](const std::string& id,
                      int32_t rank,
                      int32_t world) -> std::unique_ptr<cuda::Communicator> {
            if (rank == broken) throw MissingInput("the GPU is gone");
            return testing::join_processor_group(id, rank, world, device);
          },
          .on_device = true};
}

constexpr auto kMinute = std::chrono::seconds(60);

}  // namespace

TEST_CASE("what learner ranks exchange through is auto, mpi or nccl, and nccl has its conditions",
          "[actors][cpu][cuda]") {
  const testing::TempDir dir;
  const JobConfig plain = job_of(dir, "cuda", "");
  CHECK(plain.roles.learner_collective == "auto");
  CHECK(plain.learns_on_gpus());
  CHECK_FALSE(job_of(dir, "cpu", "").learns_on_gpus());
  CHECK_THAT(plain.resolved(), Contains("collective: auto") && Contains("timeout: 600"));

  const std::string two = "placement: separate\nroles: {learner: {ranks: 2, collective: ";
  CHECK(errors_of("cuda", two + "nccl}}").empty());
  CHECK(errors_of("cpu", two + "mpi}}").empty());
  CHECK_THAT(errors_of("cuda", two + "gloo}}"),
             Contains("roles.learner.collective: ") && Contains("auto, mpi, nccl"));
  CHECK_THAT(errors_of("cpu", two + "mpi, timeout: 0}}"),
             Contains("roles.learner.timeout: ") && Contains("[0.1, 86400]"));
  CHECK_THAT(
      errors_of("cpu", two + "nccl}}"),
      Contains("job.yaml:12:") &&
          Contains("roles.learner.collective: nccl exchanges between learners on GPUs, and "
                   "no stage that trains has learner: {device: cuda}; auto or mpi is wanted"));
  CHECK_THAT(errors_of("cuda", "roles: {learner: {ranks: 2, collective: nccl}}"),
             Contains("roles.learner.collective: nccl exchanges between several learner ranks, and "
                      "with placement: colocated there is one; leave it out, or set placement: "
                      "separate"));
  CHECK_THAT(errors_of("cuda", "placement: separate\nroles: {learner: {collective: nccl}}"),
             Contains("roles.learner.collective: nccl exchanges between several learner ranks, and "
                      "roles.learner.ranks is 1; leave it out, or ask for more ranks"));
}

TEST_CASE("NCCL wants a GPU of its own for every rank, and what it takes for hosts decides",
          "[actors][cpu][cuda]") {
  CHECK(why_not_nccl({gpu("a", 0), gpu("a", 1), gpu("b", 0), gpu("b", 1)}).empty());
  // Whatever number a rank knows it by.
  RankGpu same = gpu("b", 0);
  same.id = gpu("b", 1).id;
  CHECK(why_not_nccl({gpu("a", 1), gpu("b", 1), same}) ==
        "rank 1 on b and rank 2 on b have one GPU, number 1 (a GPU), and NCCL wants one for each: "
        "start no more ranks on a host than it has GPUs");
  same.nccl_host = "another";
  CHECK(why_not_nccl({gpu("a", 1), gpu("b", 1), same}).empty());
  RankGpu none = gpu("b", 0);
  none.failure = "no library";
  CHECK(why_not_nccl({gpu("a", 0), gpu("a", 0), none}) == "rank 2 on b: no library");
}

TEST_CASE("ranks with a GPU each get a group of NCCL's for its memory, and the run says so",
          "[actors][cpu][cuda]") {
  const auto wanted = GENERATE(as<std::string>(), "auto", "nccl");
  const testing::TempDir dir;
  const JobConfig job = job_of(dir, "cuda", "");
  std::vector<std::string> seen(3);
  const auto errors = run_ranks(3, [&](Collective& ranks) {
    const std::string before = environment_facts(job, ranks).at("exchange");
    const std::string over = exchange_over_gpus(
        ranks, wanted, gpu("host", ranks.rank()), emulated(ranks.rank()), {.deadline = kMinute});
    std::vector<float> one = {1.0F};
    ranks.device()->all_reduce<float>(one);
    seen[static_cast<size_t>(ranks.rank())] =
        str(over, ", ", one[0], ", ", before, ", ", environment_facts(job, ranks).at("exchange"));
  });
  CHECK(errors == std::vector<std::string>(3));
  CHECK(seen == std::vector<std::string>(3, "NCCL on 3 GPUs, 3, threads, nccl"));
}

TEST_CASE("where one rank has no GPU for NCCL all of them do without, or all refuse",
          "[actors][cpu][cuda]") {
  const bool insists = GENERATE(false, true);
  std::vector<std::string> seen(2);
  const auto errors = run_ranks(2, [&](Collective& ranks) {
    RankGpu mine = gpu("host", ranks.rank());
    if (ranks.rank() == 1) mine.failure = "GPU library: there is none";
    try {
      seen[static_cast<size_t>(ranks.rank())] =
          exchange_over_gpus(ranks, insists ? "nccl" : "auto", mine, emulated(ranks.rank()));
    } catch (const ExchangeRefused& refused) {
      seen[static_cast<size_t>(ranks.rank())] = str(refused.exit_status(), " ", refused.what());
    }
    if (ranks.device()) throw InternalError("a group of GPUs");
    ranks.barrier();  // the group is as good as before
  });
  CHECK(errors == std::vector<std::string>(2));
  const std::string why = "rank 1 on host: GPU library: there is none";
  CHECK(seen == std::vector<std::string>(
                    2,
                    insists ? "66 roles.learner.collective: nccl: " + why +
                                  "; mpi does without NCCL, and auto takes it where it can be had"
                            : "MPI and the processor's memory: " + why));
}

TEST_CASE("a rank that fails to join leaves no other one with a group", "[actors][cpu][cuda]") {
  const bool insists = GENERATE(false, true);
  std::vector<std::string> seen(2);
  // One deadline for both ways, as a job sets it: who fails at once waits for the other's end.
  const CollectiveOptions options{.deadline = std::chrono::milliseconds(1500)};
  const auto errors = run_ranks(
      2,
      [&](Collective& ranks) {
        auto& said = seen[static_cast<size_t>(ranks.rank())];
        said = exchange_over_gpus(ranks,
                                  insists ? "nccl" : "auto",
                                  gpu("host", ranks.rank()),
                                  emulated(ranks.rank(), 1),
                                  options);
        if (ranks.device()) said = "a group of GPUs";
      },
      options);
  // Who has failed is named, not who waited for it.
  const std::string why = "rank 1 on host: the GPU is gone";
  CHECK((insists ? errors : seen) ==
        std::vector<std::string>(
            2,
            (insists ? "roles.learner.collective: nccl: " : "MPI and the processor's memory: ") +
                why));
}

TEST_CASE("ranks on the CPU, or one alone, ask for no GPU", "[actors][cpu][cuda]") {
  const testing::TempDir dir;
  const JobConfig cpu = job_of(dir, "cpu", "");
  const JobConfig alone = job_of(dir, "cuda", "");
  const JobConfig mpi =
      job_of(dir, "cuda", "placement: separate\nroles: {learner: {ranks: 2, collective: mpi}}");
  CHECK(run_ranks(2, [&](Collective& ranks) {
          set_learner_exchange(cpu, ranks);
          set_learner_exchange(mpi, ranks);
          if (ranks.device()) throw InternalError("a group of GPUs");
        }) == std::vector<std::string>(2));
  const auto one = make_local_collective();
  set_learner_exchange(alone, *one);
  CHECK(one->device() == nullptr);
}

}  // namespace praetor
