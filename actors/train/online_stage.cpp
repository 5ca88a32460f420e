#include "actors/train/online_stage.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "actors/train/evaluator.h"
#include "actors/train/experience_builder.h"
#include "actors/train/interrupt.h"
#include "core/base/error.h"
#include "core/data/dataset.h"

namespace praetor {

namespace {

/// How long one question to the controller may stay open.
constexpr std::chrono::milliseconds kPoll{1000};
constexpr std::chrono::milliseconds kNoWait{0};

}  // namespace

OnlineStage::OnlineStage(RunContext& context, const StageConfig& stage)
    : StageRunner(context, stage) {
  auto algorithm = stage.make_algorithm();
  const SamplePlan samples = algorithm->sample_plan();
  const ModelPlan wanted = algorithm->models();
  LearnerModels models;
  models.policy = load_policy();
  if (wanted.critic == CriticKind::kSeparate && wanted.critic_init == "reward") {
    const auto part = std::find_if(stage.rewards.parts.begin(),
                                   stage.rewards.parts.end(),
                                   [](const PartConfig& p) { return p.model.has_value(); });
    PRAETOR_CHECK(part != stage.rewards.parts.end(), "critic.init: reward without a reward model");
    const auto folder =
        part->model->stage.empty() ? part->model->path : context_.results() / part->model->stage;
    models.scalar = std::make_unique<ScalarModel>(
        ScalarModel::load(folder,
                          RandomStream({.job_seed = context.job.seed,
                                        .stage = stage.index,
                                        .purpose = Purpose::kInitialise})));
  }
  rows_ = static_cast<int64_t>(read_rows(resolve(stage.data.train), RowForm::kPrompt).size());
  set_total_steps(stage.total_steps(rows_, samples.prompts_per_step));
  if (stage.data.eval.given()) {
    held_out_ = static_cast<int64_t>(read_rows(resolve(stage.data.eval), RowForm::kPrompt).size());
    if (stage.eval.prompts > 0) held_out_ = std::min(held_out_, stage.eval.prompts);
  }
  LearnerConfig config = learner_config();
  config.temperature = stage.sampling.temperature;
  learner_ = std::make_unique<Learner>(config, std::move(algorithm), std::move(models));
  if (context.workers) {
    local_ = std::make_unique<LocalRoles>(
        *context.workers, learner_->policy(), *tokenizer_, stage, context_.results());
  }
}

const Publication& OnlineStage::published(int64_t step) {
  if (publication_.version.step != step) {
    publication_ = {.version = {.stage = stage_.index, .lineage = lineage(), .step = step}};
  }
  return publication_;
}

StepBatch OnlineStage::collect(int64_t step) {
  LearnerService& run = context_.run;
  const bool recorded = run.has_batch(stage_.index, step);
  const Publication weights =
      recorded ? Publication{.version = {.stage = stage_.index, .step = step - 1}}
               : published(step - 1);
  const auto begin = [&](const char* phase) {
    progress_->phase(step, phase);
    timer_.begin(phase);
  };
  if (!local_) begin("rollout");
  for (;;) {
    // Opened again each time: a controller that was restarted does not know the step.
    run.open_step(stage_.index, step, weights);
    auto batch = run.wait_batch(stage_.index, step, {}, local_ ? kNoWait : kPoll);
    if (batch) {
      timer_.end();
      return std::move(*batch);
    }
    if (local_) {
      local_->work(true, begin);
      timer_.end();
    }
    if (const int signal = InterruptGuard::requested()) throw Interrupted{signal};
  }
}

void OnlineStage::add_batch_metrics(const StepBatch& batch, MetricList& metrics) const {
  double sum = 0, squares = 0, length = 0, finished = 0;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  MetricList parts;
  for (const ScoredSample& sample : batch.samples) {
    const double score = *sample.score.score.score;
    sum += score;
    squares += score * score;
    low = std::min(low, score);
    high = std::max(high, score);
    length += static_cast<double>(sample.rollout.behavior_logprobs.size());
    finished += sample.rollout.finish == FinishReason::kStop ? 1 : 0;
    for (const PartScore& part : sample.score.score.parts) {
      const std::string name = "reward/" + part.name + "/mean";
      auto found = std::find_if(
          parts.begin(), parts.end(), [&](const auto& entry) { return entry.first == name; });
      if (found == parts.end()) found = parts.insert(parts.end(), {name, 0.0});
      found->second += part.score.value_or(0) / static_cast<double>(batch.samples.size());
    }
  }
  const auto n = static_cast<double>(batch.samples.size());
  const double mean = sum / n;
  metrics.insert(metrics.end(),
                 {{"reward/mean", mean},
                  {"reward/std", std::sqrt(std::max(0.0, squares / n - mean * mean))},
                  {"reward/min", low},
                  {"reward/max", high}});
  metrics.insert(metrics.end(), parts.begin(), parts.end());
  int64_t dropped = 0;
  for (const auto& [why, count] : batch.dropped) dropped += count;
  metrics.insert(
      metrics.end(),
      {{"rollout/response_length", length / n},
       {"rollout/truncated", 1 - finished / n},
       {"rollout/finished", finished / n},
       {"staleness/mean", 0.0},
       {"staleness/max", 0.0},
       {"data/epoch", static_cast<double>(batch.end_ordinal) / static_cast<double>(rows_)},
       {"data/consumed", static_cast<double>(batch.end_ordinal)},
       {"data/dropped", static_cast<double>(dropped)}});
}

StageRunner::StepResult OnlineStage::train_step(int64_t step) {
  const StepBatch batch = collect(step);
  progress_->phase(step, "update");
  timer_.begin("update");
  StepResult result;
  Experience experience = make_experience(batch.samples);
  result.tokens = experience.tokens.numel();
  result.report = learner_->update(experience);
  timer_.begin("ledger");
  result.metrics = result.report.metrics;
  add_batch_metrics(batch, result.metrics);
  const nlohmann::ordered_json values(
      std::map<std::string, double>(result.metrics.begin(), result.metrics.end()));
  result.outcome = context_.run.commit_step(stage_.index,
                                            result.report.manifest,
                                            {.step = step,
                                             .loss_digest = result.report.loss_digest,
                                             .gradient_digest = result.report.gradient_digest,
                                             .metrics = values.dump()});
  timer_.end();
  // From here on figures of this machine and hour, which a resumed run need not repeat.
  result.metrics.insert(result.metrics.end(), batch.metrics.begin(), batch.metrics.end());
  const double seconds = timer_.seconds("rollout");
  if (seconds > 0) {
    result.metrics.emplace_back("rollout/tokens_per_second",
                                static_cast<double>(experience.sequence_of.numel()) / seconds);
  }
  result.metrics.emplace_back("sync/version", static_cast<double>(step));
  for (const auto& [name, value] : result.metrics) {
    for (const char* shown : {"reward/mean", "objective/kl", "rollout/response_length"}) {
      if (name == shown) result.line += str(result.line.empty() ? "" : "  ", name, " ", value);
    }
  }
  return result;
}

StepReport OnlineStage::replay_step(int64_t step) {
  const auto batch = context_.run.wait_batch(stage_.index, step, {}, kNoWait);
  if (!batch) throw DataError(stage_.name, " step ", step, ": the ledger has no such step");
  Experience experience = make_experience(batch->samples);
  return learner_->update(experience);
}

MetricList OnlineStage::evaluate(int64_t step) {
  LearnerService& run = context_.run;
  const Publication& weights = published(step);
  std::optional<EvaluationBatch> batch;
  for (;;) {
    run.open_evaluation(stage_.index, step, held_out_, weights);
    batch = run.wait_evaluation(stage_.index, step, local_ ? kNoWait : kPoll);
    if (batch) break;
    if (local_) local_->work(false, nullptr);
  }
  Evaluation evaluation = summarise_evaluation(std::move(*batch));
  if (context_.metrics)
    write_samples(context_.run_dir / "samples", stage_.name, step, evaluation.samples);
  if (learner_->algorithm().models().reference && evaluation.experience.sequences() > 0) {
    const at::NoGradGuard no_grad;
    const at::Tensor kl = learner_->policy_logprobs(evaluation.experience) -
                          learner_->reference_logprobs(evaluation.experience);
    evaluation.metrics.emplace_back("eval/kl",
                                    kl.to(at::kDouble).sum().item<double>() /
                                        static_cast<double>(evaluation.experience.sequences()));
  }
  return evaluation.metrics;
}

void OnlineStage::write_result(const std::filesystem::path& folder) {
  copy_tokenizer(resolve(stage_.tokenizer), folder);
  save_hf(learner_->policy(), folder);
}

}  // namespace praetor
