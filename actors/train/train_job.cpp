#include "actors/train/train_job.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>
#include <thread>

#include "actors/controller/run_controller.h"
#include "actors/job/check.h"
#include "actors/job/engine_devices.h"
#include "actors/job/learner_devices.h"
#include "actors/launch/allocation_watch.h"
#include "actors/launch/launcher.h"
#include "actors/launch/slurm_allocation.h"
#include "actors/roles/separate_run.h"
#include "actors/train/environment.h"
#include "actors/train/interrupt.h"
#include "actors/train/learner_exchange.h"
#include "actors/train/run_directory.h"
#include "actors/train/stages.h"
#include "actors/train/summary.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "core/base/threads.h"
#include "core/checkpoint/checkpoint.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

/// Where a run goes on: its folder and, when one was named, the checkpoint.
struct ResumePoint {
  std::optional<fs::path> run_dir;
  std::optional<fs::path> checkpoint;
};

ResumePoint find_resume_point(const TrainOptions& options, const JobConfig& job) {
  if (options.resume == "never") return {};
  if (options.resume == "auto") return {RunDirectory::newest(job.output, job.name), std::nullopt};
  const fs::path given = fs::absolute(options.resume).lexically_normal();
  if (fs::exists(given / "resolved.yaml") && fs::exists(given / "checkpoints"))
    return {given, std::nullopt};
  if (fs::exists(given / "manifest.json")) {
    // RUN/checkpoints/STAGE/step-000100
    const fs::path folder = fs::canonical(given);
    return {folder.parent_path().parent_path().parent_path(), folder};
  }
  throw MissingInput(
      options.resume,
      ": neither a run directory nor a checkpoint (give auto, never, or the path of one)");
}

/// Prints what the job reached. False when a stage that had to raise its score did not.
bool report(const JobConfig& job, const fs::path& run_dir, const std::string& until) {
  bool met = true;
  bool over = false;
  for (const StageConfig& stage : job.stages) {
    if (over) break;
    over = stage.name == until;
    if (!stage.trains()) continue;
    const StageSummary summary = summarise(run_dir, stage);
    std::fprintf(stderr, "%s", summary.text.c_str());
    if (stage.eval.require_rise && summary.before && summary.after &&
        !(*summary.after > *summary.before)) {
      std::fprintf(stderr,
                   "%s: the score did not rise, which eval.require_rise asks for\n",
                   stage.name.c_str());
      met = false;
    }
  }
  return met;
}

int run_colocated(const JobConfig& job,
                  const fs::path& run_dir,
                  const std::optional<fs::path>& from_checkpoint,
                  const std::string& until) {
  log::add_file(run_dir / "logs/train.log");
  clean_checkpoints(run_dir);
  const auto ledger = Ledger::open(run_dir);
  const auto ranks = make_local_collective();
  for (const auto& [key, value] : environment_facts(job, *ranks)) ledger->set_fact(key, value);
  MetricsWriter metrics(run_dir);
  RunController controller(job, run_dir, *ledger, {.run_id = run_dir.filename().string()});
  RunContext context{job, run_dir, controller, &controller, &metrics, *ranks};
  run_stages(context, from_checkpoint, until);
  metrics.sync();
  return kExitDone;
}

void check_until(const JobConfig& job, const std::string& until) {
  if (until.empty() || job.find(until)) return;
  std::vector<std::string> names;
  for (const StageConfig& stage : job.stages) names.push_back(stage.name);
  throw InvalidArgument(
      "--until ", printable(until), ": the job has the stages ", join(names, ", "));
}

/// The allocation whose end the run minds.
std::optional<SlurmAllocation> own_allocation(const JobConfig& job) {
  if (job.launcher.kind != "slurm") return std::nullopt;
  return SlurmAllocation::current();
}

/// Asks the run to save, as Slurm's own signal does, when its allocation comes to its end.
std::unique_ptr<AllocationWatch> watch_allocation(const JobConfig& job,
                                                  const fs::path& run_dir,
                                                  const SlurmAllocation& allocation) {
  AllocationWatchOptions options;
  options.left = [id = allocation.job_id] { return slurm_time_left(id); };
  options.need = [file = run_dir / "metrics.jsonl", margin = job.launcher.slurm.margin] {
    return measured_leave_time(file) + std::chrono::seconds(static_cast<int64_t>(margin));
  };
  options.near = [](std::chrono::seconds left) {
    std::fprintf(stderr,
                 "the allocation ends in %lld s\n",
                 static_cast<long long>(std::max<int64_t>(0, left.count())));
    ::kill(::getpid(), SIGUSR1);
  };
  return std::make_unique<AllocationWatch>(std::move(options));
}

/// After an interrupt: a job that Slurm still calls running goes back into its queue; one that it
/// is ending (scancel, or a requeue of its own) is left alone. @return true when it goes on by
/// itself
bool requeue(const JobConfig& job, const SlurmAllocation& allocation) {
  if (!job.launcher.slurm.requeue) return false;
  try {
    if (slurm_job_state(allocation.job_id) != "RUNNING") return false;
    const std::string refusal = slurm_requeue(allocation.job_id);
    if (refusal.empty()) {
      std::fprintf(stderr, "Slurm job %s is queued again\n", allocation.job_id.c_str());
      return true;
    }
    std::fprintf(stderr, "Slurm does not queue the job again: %s\n", refusal.c_str());
  } catch (const Error& failure) {
    std::fprintf(stderr, "Slurm cannot be asked to queue the job again: %s\n", failure.what());
  }
  return false;
}

}  // namespace

int train_job(const TrainOptions& options) {
  const JobConfig job = load_checked_job(options.job, options.overrides);
  check_until(job, options.until);
  for (const std::string& note : notes_on(job)) log::warn(note);
  if (job.placement == "separate")
    Launcher::make(job);  // what it lacks is told before anything is made
  const bool workers_here = job.placement != "separate" ||
                            (job.launcher.kind == "local" && job.roles.rollout_workers > 0);
  if (workers_here) require_engine_devices(job);
  // Learners of other hosts say it themselves.
  if (job.placement != "separate" || job.launcher.kind == "local") {
    require_learner_devices(job);
    require_exchange_library(job);
  }
  set_threads(job.threads);

  const ResumePoint resume = find_resume_point(options, job);
  const RunDirectory run = resume.run_dir
                               ? RunDirectory::open(*resume.run_dir)
                               : RunDirectory::create(job.output,
                                                      job.name,
                                                      {{"job.yaml", read_file(options.job)},
                                                       {"resolved.yaml", job.resolved()}});
  std::fprintf(stderr, "run directory: %s\n", run.path().c_str());
  if (resume.run_dir) write_file_atomic(run / "resolved.yaml", job.resolved());

  const InterruptGuard guard(job.placement == "separate" ? "" : kSaving);
  const auto allocation = own_allocation(job);
  const auto watch = allocation ? watch_allocation(job, run.path(), *allocation) : nullptr;
  int status = kExitDone;
  try {
    status = job.placement == "separate"
                 ? run_separate(job, run.path(), resume.checkpoint, options.until)
                 : run_colocated(job, run.path(), resume.checkpoint, options.until);
    if (status == kExitDone && !report(job, run.path(), options.until)) status = kExitGoalMissed;
  } catch (const Interrupted& stop) {
    std::fprintf(stderr,
                 "go on with: praetor train %s --resume %s\n",
                 options.job.c_str(),
                 run.path().c_str());
    status = 128 + stop.signal;
    if (allocation && stop.signal != SIGINT && requeue(job, *allocation)) status = kExitTemporary;
  }
  std::printf(
      "%s\n",
      nlohmann::ordered_json{{"run", run.path().string()}, {"status", status}}.dump().c_str());
  return status;
}

Replayed replay_job(const fs::path& run_dir, const std::string& stage_name, int64_t step) {
  const JobConfig job = JobConfig::load(run_dir / "resolved.yaml");
  const auto ledger = Ledger::open_read_only(run_dir);
  const StageConfig* stage = nullptr;
  std::vector<std::string> names;
  for (const StageConfig& candidate : job.stages) {
    if (!candidate.trains()) continue;
    names.push_back(candidate.name);
    if (stage_name.empty() ? ledger->last_step(static_cast<int32_t>(candidate.index)) > 0
                           : candidate.name == stage_name) {
      stage = &candidate;
    }
  }
  if (!stage)
    throw InvalidArgument("--stage ", stage_name, ": the run has the stages ", join(names, ", "));
  const auto index = static_cast<int32_t>(stage->index);
  const auto record = ledger->step(index, step);
  if (!record) {
    throw DataError(stage->name,
                    " step ",
                    step,
                    ": not recorded; the run has steps 1 to ",
                    ledger->last_step(index));
  }
  RunController controller(job, run_dir, *ledger, {.run_id = run_dir.filename().string()});
  const auto world = static_cast<int32_t>(std::stol(ledger->fact("ranks").value_or("1")));
  const auto threads = static_cast<int>(std::stol(ledger->fact("threads").value_or("0")));
  require_learner_devices(job);
  const auto checkpoint = newest_checkpoint(controller, run_dir, index, step);
  // The ranks of the run as threads of this process: their sums have the same order.
  const auto ranks = make_thread_group(world);
  std::vector<StepReport> reports(ranks.size());
  std::vector<std::exception_ptr> failures(ranks.size());
  const auto replay = [&](size_t rank) {
    try {
      set_threads(threads);
      RunContext context{job, run_dir, controller, nullptr, nullptr, *ranks[rank]};
      reports[rank] = StageRunner::make(context, *stage)->replay(step, checkpoint);
    } catch (const std::exception& failure) {
      failures[rank] = std::current_exception();
      ranks[rank]->abort(failure.what());
    }
  };
  std::vector<std::thread> others;
  for (size_t rank = 1; rank < ranks.size(); ++rank) others.emplace_back(replay, rank);
  replay(0);
  for (std::thread& other : others) other.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  const StepReport& now = reports.front();
  return {stage->name,
          step,
          now.loss_digest,
          now.gradient_digest,
          record->loss_digest,
          record->gradient_digest};
}

}  // namespace praetor
