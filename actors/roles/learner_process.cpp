#include "actors/roles/learner_process.h"

#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "actors/job/learner_devices.h"
#include "actors/launch/die_with_parent.h"
#include "actors/roles/member.h"
#include "actors/roles/serve_options.h"
#include "actors/rpc/broadcast_client.h"
#include "actors/train/environment.h"
#include "actors/train/interrupt.h"
#include "actors/train/learner_exchange.h"
#include "actors/train/publisher.h"
#include "actors/train/stages.h"
#include "actors/train/weight_caster.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/log.h"
#include "core/base/log_context.h"
#include "core/base/threads.h"
#include "core/checkpoint/checkpoint.h"
#include "core/cuda/choose.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr std::chrono::milliseconds kControllerStart{30'000};

/// Ranks of the MPI job that this process belongs to: mpirun says it, or srun where it started one.
int group_size() {
  if (const char* size = std::getenv("OMPI_COMM_WORLD_SIZE")) return std::atoi(size);
  const char* size = std::getenv("SLURM_STEP_NUM_TASKS");
  return size && std::getenv("PMIX_RANK") ? std::atoi(size) : 1;
}

std::unique_ptr<Collective> join_group(const JobConfig& job) {
  if (group_size() == 1) return make_local_collective();
  return make_mpi_collective({.deadline = milliseconds_of(job.roles.learner_timeout)});
}

/// Ranks of the group that share this host, as mpirun or srun ("4(x2),3") says; 0: nobody does.
int ranks_on_host() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE"}) {
    if (const char* value = std::getenv(name)) return std::atoi(value);
  }
  return 0;
}

int threads_of_rank(const JobConfig& job) {
  if (job.roles.learner_threads > 0) return static_cast<int>(job.roles.learner_threads);
  const auto ranks = static_cast<int>(job.roles.learner_ranks);
  if (ranks == 1) return job.threads;
  if (job.threads > 0) return std::max(1, job.threads / ranks);
  const int here = ranks_on_host() > 0 ? ranks_on_host() : ranks;
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / here);
}

/// What the first rank broadcasts weights with.
struct Broadcasting {
  Broadcasting(const PublishConfig& config, const RpcClientOptions& calls, const std::string& name)
      : gpu(take_gpu()),
        service(calls),
        caster(service,
               groups_on(gpu.place().device()),
               gpu.device(),
               {.name = name,
                .bucket_bytes = config.bucket_bytes,
                .timeout = milliseconds_of(config.timeout)}) {}

  static cuda::ChosenDevice take_gpu() {
    try {
      return cuda::ChosenDevice::take();
    } catch (const MissingInput& missing) {
      throw MissingInput("publish.via: nccl: the first learner rank broadcasts from a GPU: ",
                         missing.what());
    }
  }

  cuda::ChosenDevice gpu;
  BroadcastClient service;
  WeightCaster caster;
};

}  // namespace

fs::path learners_done_file(const fs::path& run_dir) {
  return run_dir / "learners.done";
}

int run_learner(const LearnerOptions& options) {
  const fs::path& run_dir = options.run_dir;
  if (started_by_launcher()) die_with_parent();
  const InterruptGuard guard(kSaving);
  // The run's own file, which whoever began the run has read.
  const JobConfig job = JobConfig::load(run_dir / "resolved.yaml");
  const auto ranks = join_group(job);
  const std::string name = str("learner-", ranks->rank());
  log::set_role(name);
  if (ranks->rank() > 0) {
    // The first rank speaks for the group.
    log::set_stderr(false);
    log::add_file(run_dir / "logs" / (name + ".log"));
    log::set_role(name);
  }
  int status = kExitDone;
  try {
    require_learner_devices(job);
    set_threads(threads_of_rank(job));
    set_learner_exchange(job, *ranks);
    const RunAddress address = RunAddress::of(run_dir, kControllerStart);
    // A signal must not break off what saves the run; and the controller may be on its way back.
    const RpcClientOptions calls =
        address.options(milliseconds_of(job.supervision.patience), nullptr);
    Member member(calls,
                  {.name = name,
                   .role = Role::kLearner,
                   .host = host_name(),
                   .pid = ::getpid(),
                   .rank = ranks->rank(),
                   .threads = threads(),
                   .incarnation = incarnation_of_process()});
    LearnerClient run(calls);
    std::unique_ptr<MetricsWriter> metrics;
    std::unique_ptr<Broadcasting> broadcasting;
    std::unique_ptr<Publisher> publisher;
    if (ranks->rank() == 0) {
      clean_checkpoints(run_dir);
      for (const auto& [key, value] : environment_facts(job, *ranks)) run.set_fact(key, value);
      metrics = std::make_unique<MetricsWriter>(run_dir);
      if (job.publish.broadcasts())
        broadcasting = std::make_unique<Broadcasting>(job.publish, calls, name);
      publisher = std::make_unique<Publisher>(
          job.publish,
          run_dir,
          serve_options(job.network, run_dir, address.run_id, address.secret, options.advertise),
          broadcasting ? &broadcasting->caster : nullptr);
    }
    RunContext context{.job = job,
                       .run_dir = run_dir,
                       .run = run,
                       .workers = nullptr,
                       .metrics = metrics.get(),
                       .ranks = *ranks,
                       .publisher = publisher.get(),
                       .member = &member};
    const bool first = incarnation_of_process() == 1 || !std::getenv("PRAETOR_INCARNATION");
    run_stages(context,
               first && !options.from.empty() ? std::optional(options.from) : std::nullopt,
               options.until);
    if (metrics) metrics->sync();
    if (ranks->rank() == 0) write_file_atomic(learners_done_file(run_dir), "");
  } catch (const Interrupted& stop) {
    status = 128 + stop.signal;
  } catch (const std::exception& failure) {
    // Said before the group is torn down, which may end this process.
    log::error(failure.what());
    if (!dynamic_cast<const ExchangeRefused*>(&failure))
      ranks->abort(str(name, ": ", failure.what()));
    const auto* ours = dynamic_cast<const Error*>(&failure);
    status = ours ? ours->exit_status() : kExitBug;
  }
  return status;
}

}  // namespace praetor
