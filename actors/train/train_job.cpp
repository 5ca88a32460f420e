#include "actors/train/train_job.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "actors/controller/run_controller.h"
#include "actors/job/check.h"
#include "actors/toy/toy_language.h"
#include "actors/train/environment.h"
#include "actors/train/interrupt.h"
#include "actors/train/run_directory.h"
#include "actors/train/stage_runner.h"
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

std::optional<fs::path> newest_checkpoint(LearnerService& run,
                                          const fs::path& run_dir,
                                          int32_t stage,
                                          int64_t before) {
  std::optional<fs::path> found;
  for (const CheckpointRecord& record : run.checkpoints()) {
    if (record.stage == stage && record.durable && record.step < before &&
        fs::exists(run_dir / record.path)) {
      found = run_dir / record.path;
    }
  }
  return found;
}

void run_toy_language(const RunContext& context, const StageConfig& stage) {
  context.run.begin_stage(stage.index, 0);
  const fs::path folder = context.results() / stage.name;
  write_toy_language(folder, context.job.seed, stage.toy);
  context.run.finish_stage(stage.index, folder.lexically_relative(context.run_dir).string());
  log::info(str(stage.name, ": wrote a tokenizer and data to ", folder.string()));
}

void run_stages(RunContext& context, const std::optional<fs::path>& from_checkpoint) {
  const std::string wanted =
      from_checkpoint ? CheckpointReader(*from_checkpoint).manifest().stage : "";
  // As it was before anything is trained again.
  std::vector<StageProgress> known;
  for (const StageConfig& stage : context.job.stages)
    known.push_back(context.run.stage_progress(stage.index));
  bool reached = wanted.empty();
  for (const StageConfig& stage : context.job.stages) {
    const StageProgress& record = known[stage.index];
    const bool finished = record.finished && fs::exists(context.run_dir / record.result);
    if (!reached && stage.name == wanted) {
      reached = true;
      StageRunner::make(context, stage)->run(from_checkpoint);
      continue;
    }
    // What lies before the named checkpoint is done; what lies after it is done again.
    if (!reached || (finished && wanted.empty())) continue;
    if (!stage.trains()) {
      run_toy_language(context, stage);
      continue;
    }
    const auto checkpoint = wanted.empty() ? newest_checkpoint(context.run,
                                                               context.run_dir,
                                                               static_cast<int32_t>(stage.index),
                                                               std::numeric_limits<int64_t>::max())
                                           : std::nullopt;
    StageRunner::make(context, stage)->run(checkpoint);
  }
}

/// Prints what the job reached. False when a stage that had to raise its score did not.
bool report(const RunContext& context) {
  bool met = true;
  for (const StageConfig& stage : context.job.stages) {
    if (!stage.trains()) continue;
    const StageSummary summary = summarise(context.run_dir, stage);
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

}  // namespace

int train_job(const TrainOptions& options) {
  const JobConfig job = load_checked_job(options.job, options.overrides);
  set_threads(job.threads);

  const ResumePoint resume = find_resume_point(options, job);
  const RunDirectory run = resume.run_dir ? RunDirectory::open(*resume.run_dir)
                                          : RunDirectory::create(job.output, job.name);
  std::fprintf(stderr, "run directory: %s\n", run.path().c_str());
  log::add_file(run / "logs/train.log");
  if (!resume.run_dir) write_file_atomic(run / "job.yaml", read_file(options.job));
  write_file_atomic(run / "resolved.yaml", job.resolved());

  const InterruptGuard guard;
  int status = kExitDone;
  try {
    clean_checkpoints(run.path());
    const auto ledger = Ledger::open(run.path());
    for (const auto& [key, value] : environment_facts(job)) ledger->set_fact(key, value);
    MetricsWriter metrics(run.path());
    RunController controller(job, run.path(), *ledger, {.run_id = run.path().filename().string()});
    RunContext context{job, run.path(), controller, &controller, &metrics};
    run_stages(context, resume.checkpoint);
    metrics.sync();
    if (!report(context)) status = kExitGoalMissed;
  } catch (const Interrupted& stop) {
    std::fprintf(stderr,
                 "go on with: praetor train %s --resume %s\n",
                 options.job.c_str(),
                 run.path().c_str());
    status = 128 + stop.signal;
  }
  std::printf(
      "%s\n",
      nlohmann::ordered_json{{"run", run.path().string()}, {"status", status}}.dump().c_str());
  return status;
}

Replayed replay_job(const fs::path& run_dir, const std::string& stage_name, int64_t step) {
  const JobConfig job = JobConfig::load(run_dir / "resolved.yaml");
  set_threads(job.threads);
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
  RunContext context{job, run_dir, controller, nullptr, nullptr};
  const StepReport now = StageRunner::make(context, *stage)
                             ->replay(step, newest_checkpoint(controller, run_dir, index, step));
  return {stage->name,
          step,
          now.loss_digest,
          now.gradient_digest,
          record->loss_digest,
          record->gradient_digest};
}

}  // namespace praetor
