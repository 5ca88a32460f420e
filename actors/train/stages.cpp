#include "actors/train/stages.h"

#include <limits>

#include "actors/toy/toy_language.h"
#include "core/base/log.h"
#include "core/checkpoint/checkpoint.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

void run_toy_language(const RunContext& context, const StageConfig& stage) {
  if (!context.leads()) return context.ranks.barrier();
  context.run.begin_stage(stage.index, 0);
  const fs::path folder = context.results() / stage.name;
  write_toy_language(folder, context.job.seed, stage.toy);
  context.run.finish_stage(stage.index, folder.lexically_relative(context.run_dir).string());
  log::info(str(stage.name, ": wrote a tokenizer and data to ", folder.string()));
  context.ranks.barrier();
}

}  // namespace

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

void run_stages(RunContext& context,
                const std::optional<fs::path>& from_checkpoint,
                const std::string& until) {
  const std::string wanted =
      from_checkpoint ? CheckpointReader(*from_checkpoint, {.parts = 0}).manifest().stage : "";
  // As it was before anything is trained again.
  std::vector<StageProgress> known;
  for (const StageConfig& stage : context.job.stages)
    known.push_back(context.run.stage_progress(stage.index));
  context.ranks.barrier();
  bool reached = wanted.empty();
  bool over = false;
  for (const StageConfig& stage : context.job.stages) {
    if (over) break;
    over = stage.name == until;
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

}  // namespace praetor
