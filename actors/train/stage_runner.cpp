#include "actors/train/stage_runner.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "actors/controller/prompts.h"
#include "actors/job/learner_devices.h"
#include "actors/roles/member.h"
#include "actors/train/environment.h"
#include "actors/train/interrupt.h"
#include "actors/train/offline_stage.h"
#include "actors/train/online_stage.h"
#include "core/base/error.h"
#include "core/base/file_layer.h"
#include "core/base/fs.h"
#include "core/base/log.h"
#include "core/base/log_context.h"
#include "core/model/folder_writer.h"
#include "core/model/peft_folder.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

std::optional<double> find(const MetricList& metrics, const std::string& name) {
  for (const auto& [key, value] : metrics) {
    if (key == name) return value;
  }
  return std::nullopt;
}

}  // namespace

void StepTimer::begin(const std::string& name) {
  end();
  current_ = name;
  start_ = std::chrono::steady_clock::now();
}

void StepTimer::end() {
  if (current_.empty()) return;
  const double spent =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  for (auto& [name, seconds] : parts_) {
    if (name == current_) {
      seconds += spent;
      current_.clear();
      return;
    }
  }
  parts_.emplace_back(current_, spent);
  current_.clear();
}

MetricList StepTimer::metrics() const {
  MetricList out;
  double sum = 0;
  for (const auto& [name, seconds] : parts_) {
    out.emplace_back("time/" + name, seconds);
    sum += seconds;
  }
  out.emplace_back("time/step", sum);
  return out;
}

double StepTimer::seconds(const std::string& name) const {
  for (const auto& [part, spent] : parts_) {
    if (part == name) return spent;
  }
  return 0;
}

std::unique_ptr<StageRunner> StageRunner::make(RunContext& context, const StageConfig& stage) {
  PRAETOR_CHECK(stage.trains(), "stage ", stage.name, " does not train");
  if (stage.online()) return std::make_unique<OnlineStage>(context, stage);
  return std::make_unique<OfflineStage>(context, stage);
}

StageRunner::StageRunner(RunContext& context, const StageConfig& stage)
    : context_(context),
      stage_(stage),
      headline_(stage.make_algorithm()->headline()),
      tokenizer_(Tokenizer::load(resolve(stage.tokenizer))),
      saver_(context.run,
             context.ranks,
             {.background = stage.checkpoint.background,
              .on_durable = [this](int64_t) { retain(); }}) {}

StageRunner::~StageRunner() = default;

std::shared_ptr<const ModelWeights> StageRunner::with_adapter(
    std::shared_ptr<const ModelWeights> base) const {
  if (stage_.model.adapter.empty()) return base;
  LoraAdapter adapter = load_peft(stage_.model.adapter, base->shell().config());
  return merged_weights(std::move(base), std::move(adapter));
}

void StageRunner::open_policy(LearnerModels& models) const {
  if (stage_.model.create) {
    models.policy = std::make_unique<Transformer>(created_model());
    return;
  }
  models.policy_weights = with_adapter(open_model(resolve(stage_.model.source)));
  models.policy = std::make_unique<Transformer>(models.policy_weights->shell());
}

Transformer StageRunner::created_model() const {
  ModelConfig config = *stage_.model.create;
  if (config.vocab_size == 0) config.vocab_size = tokenizer_->vocab_size();
  config.bos_token = tokenizer_->bos();
  config.pad_token = tokenizer_->pad();
  if (const auto eos = tokenizer_->eos()) config.eos_tokens = {*eos};
  return {
      config,
      RandomStream(
          {.job_seed = context_.job.seed, .stage = stage_.index, .purpose = Purpose::kInitialise})};
}

int64_t StageRunner::end_token() const {
  return end_tokens(stage_, *tokenizer_, context_.results()).front();
}

LearnerConfig StageRunner::learner_config() const {
  LearnerConfig config = stage_.learner;
  config.seed = context_.job.seed;
  config.stage = stage_.index;
  config.optimizer.schedule.total_steps = total_steps_;
  config.device = device_of_rank(config.device);
  config.optimizer.kernels = kernels_on(config.device);
  if (!config.device.is_cpu()) {
    log::info(
        str(stage_.name, ": rank ", context_.ranks.rank(), " learns on ", config.device.str()));
  }
  return config;
}

CheckpointContext StageRunner::checkpoint_context() const {
  return {.run_dir = context_.run_dir,
          .stage = stage_.index,
          .stage_name = stage_.name,
          .tokenizer = resolve(stage_.tokenizer),
          .environment = environment_facts(context_.job, context_.ranks),
          .resolved_job = context_.job.resolved(),
          .base = learner_->adapter() ? resolve(stage_.model.source) : fs::path(),
          .base_adapter = stage_.model.adapter};
}

int64_t StageRunner::restore(const std::optional<fs::path>& checkpoint) {
  const int64_t step =
      checkpoint ? load_checkpoint(*checkpoint, stage_.name, context_.ranks, *learner_) : 0;
  saved_step_ = checkpoint ? step : -1;
  if (!context_.leads()) return step;
  const StageProgress before = context_.run.begin_stage(stage_.index, step);
  const int64_t recorded = before.last_step;
  lineage_ = before.lineage;
  context_.metrics->truncate_after(stage_.name, checkpoint ? step : -1);
  if (recorded > step) {
    log::info(str(stage_.name,
                  ": going on from step ",
                  step,
                  "; steps ",
                  step + 1,
                  " to ",
                  recorded,
                  " are trained again from the record"));
  } else if (step > 0) {
    log::info(str(stage_.name, ": going on from step ", step));
  }
  if (checkpoint) {
    for (const std::string& what : differences(checkpoint_environment(*checkpoint),
                                               environment_facts(context_.job, context_.ranks))) {
      log::warn(str("this run is equivalent, not identical, to the one before: ", what));
    }
  }
  return step;
}

void StageRunner::save(int64_t step, const MetricList& evaluation) {
  if (saved_step_ == step) return;
  std::map<std::string, double> metrics;
  for (const auto& [name, value] : evaluation) {
    if (std::isfinite(value)) metrics[name] = value;
  }
  if (context_.metrics) context_.metrics->sync();
  saver_.save(checkpoint_context(), *learner_, step, metrics);
  saved_step_ = step;
}

BestBy StageRunner::best_by() const {
  const CheckpointConfig& config = stage_.checkpoint;
  if (!config.keeps_best()) return {};
  const bool named = !config.keep_best.metric.empty();
  return {.metric = named ? config.keep_best.metric : headline_.quality,
          .highest = named ? config.keep_best.highest : headline_.more_is_better,
          .count = std::max<int64_t>(config.keep_best.count, 1)};
}

void StageRunner::require_best_metric(const MetricList& evaluation) const {
  const BestBy by = best_by();
  if (by.metric.empty() || find(evaluation, by.metric)) return;
  std::string known;
  for (const auto& [name, value] : evaluation) known += (known.empty() ? "" : ", ") + name;
  throw ConfigError("stage ",
                    stage_.name,
                    ": checkpoint.keep_best.metric: evaluations have no ",
                    by.metric,
                    "; they have ",
                    known);
}

void StageRunner::retain() {
  const BestBy by = best_by();
  const auto best = best_checkpoints(context_.run_dir, stage_.name, by);
  if (!best.empty()) point_best_at(context_.run_dir, best.front());
  const Retention retention{.keep_last = stage_.checkpoint.keep_last,
                            .keep_every = stage_.checkpoint.keep_every,
                            .best = by};
  apply_retention(context_.run_dir, stage_.name, retention, [this](const fs::path& folder) {
    context_.run.forget_checkpoint(folder.lexically_relative(context_.run_dir).string());
  });
}

int StageRunner::agreed_interrupt() {
  auto signal = static_cast<int64_t>(InterruptGuard::requested());
  context_.ranks.broadcast(std::span(&signal, 1));
  return static_cast<int>(signal);
}

void StageRunner::run(const std::optional<fs::path>& checkpoint) {
  const int64_t start = restore(checkpoint);
  Progress progress(stage_.name, total_steps_, start);
  progress_ = &progress;
  const bool evaluates = stage_.data.eval.given();
  if (evaluates && !checkpoint) {
    const MetricList first = evaluate(0);
    if (context_.leads()) require_best_metric(first);
    if (context_.metrics) context_.metrics->write(stage_.name, 0, first);
    if (const auto value = find(first, headline_.quality)) {
      progress.say(str(stage_.name, " before the first step: ", headline_.quality, " ", *value));
    }
  }

  timer_ = {};
  for (int64_t step = start + 1; step <= total_steps_; ++step) {
    StepResult result;
    try {
      log::set_step(step);
      if (const int signal = agreed_interrupt()) throw Interrupted{signal};
      result = train_step(step);
      if (context_.member) context_.member->made_progress();
      set_busy(false);
    } catch (const Interrupted&) {
      // No weight has changed since the last step: its state is what the run goes on from.
      save(step - 1, {});
      saver_.finish();
      progress.say(str(stage_.name, ": interrupted; saved at step ", step - 1));
      throw;
    }
    if (result.outcome == StepOutcome::kReplayedDifferent) {
      log::warn(str(stage_.name,
                    " step ",
                    step,
                    ": trained again with another result than recorded; from here on the run is "
                    "equivalent, not identical"));
    }
    const bool last = step == total_steps_;
    const bool due = last || (stage_.eval.every > 0 && step % stage_.eval.every == 0);
    MetricList evaluation;
    if (evaluates && due) {
      progress.phase(step, "evaluate");
      timer_.begin("evaluate");
      evaluation = evaluate(step);
      timer_.end();
      result.metrics.insert(result.metrics.end(), evaluation.begin(), evaluation.end());
      if (const auto value = find(evaluation, headline_.quality)) {
        result.line += str("  ", headline_.quality, " ", *value);
      }
    }
    const MetricList times = timer_.metrics();
    struct rusage usage {};
    ::getrusage(RUSAGE_SELF, &usage);
    const double learning =
        times.back().second - timer_.seconds("evaluate") - timer_.seconds("checkpoint");
    result.metrics.emplace_back("perf/tokens_per_second",
                                static_cast<double>(result.tokens) / std::max(learning, 1e-9));
    result.metrics.emplace_back("perf/peak_memory_bytes",
                                static_cast<double>(usage.ru_maxrss) * 1024);
    result.metrics.insert(result.metrics.end(), times.begin(), times.end());
    // Before the checkpoint: a resumed run goes on after the checkpoint's step and never writes
    // that step's row again. So the time of a checkpoint stands in the row of the next step.
    if (context_.metrics) context_.metrics->write(stage_.name, step, result.metrics);
    timer_ = {};
    // The best evaluation can be kept only if each evaluated state is saved.
    const bool candidate = stage_.checkpoint.keeps_best() && !evaluation.empty();
    if (last || candidate || (stage_.checkpoint.every > 0 && step % stage_.checkpoint.every == 0)) {
      timer_.begin("checkpoint");
      save(step, evaluation);
      timer_.end();
    } else {
      saver_.poll();
    }
    progress.step_done(step, result.line);
  }
  finish();
  progress_ = nullptr;
}

void StageRunner::set_busy(bool busy) const {
  if (context_.member) context_.member->set_busy(busy);
}

/// The checkpoint with the best evaluation, on every rank; empty: there is none.
fs::path StageRunner::best_checkpoint() {
  std::string best;
  if (context_.leads()) {
    const auto found = best_checkpoints(context_.run_dir, stage_.name, best_by());
    if (!found.empty()) best = found.front().string();
  }
  return context_.ranks.all_gather_bytes(best).front();
}

void StageRunner::save_weights(const ModelConfig& config,
                               const Transformer& model,
                               const std::vector<NamedTensor>& parameters,
                               const fs::path& folder) const {
  std::optional<FolderWriter> out;
  if (context_.leads()) out.emplace(config, parameters, folder);
  learner_->visit_weights(model, parameters, [&](std::span<const NamedTensor> some) {
    for (const NamedTensor& named : some) out->put(named);
  });
  if (out) out->finish();
}

void StageRunner::finish() {
  saver_.finish();
  if (stage_.checkpoint.keep == "best" && stage_.data.eval.given()) {
    const fs::path best = best_checkpoint();
    if (!best.empty()) {
      const int64_t step = load_checkpoint(best, stage_.name, context_.ranks, *learner_);
      log::info(str(stage_.name, ": the result is the best evaluated checkpoint, step ", step));
    }
  }
  // Made beside its place and renamed, so that a crash leaves the whole result or none.
  const fs::path target = context_.results() / stage_.name;
  const fs::path part = context_.results() / ("." + stage_.name + ".part");
  if (context_.leads()) remove_tree(part);
  write_result(part);
  if (context_.leads()) {
    remove_tree(target);
    if (file_layer().rename(part, target) != 0)
      throw IoError("cannot rename ", part.string(), ": ", std::strerror(errno));
    // The ledger is about to say that it is there.
    fsync_directory(context_.results());
    context_.run.finish_stage(stage_.index, target.lexically_relative(context_.run_dir).string());
  }
  // The next stage reads it.
  context_.ranks.barrier();
}

StepReport StageRunner::replay(int64_t step, const std::optional<fs::path>& checkpoint) {
  int64_t at =
      checkpoint ? load_checkpoint(*checkpoint, stage_.name, context_.ranks, *learner_) : 0;
  StepReport report;
  while (at < step) report = replay_step(++at);
  return report;
}

}  // namespace praetor
