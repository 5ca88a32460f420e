#include "actors/train/online_stage.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "actors/train/evaluator.h"
#include "actors/train/experience_builder.h"
#include "actors/train/interrupt.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/data/dataset.h"

namespace praetor {

namespace {

constexpr int64_t kScoreLease = 256;

bool interrupted() {
  return InterruptGuard::requested() != 0;
}

}  // namespace

OnlineStage::OnlineStage(RunContext& context, const StageConfig& stage)
    : StageRunner(context, stage) {
  auto algorithm = stage.make_algorithm();
  const SamplePlan samples = algorithm->sample_plan();
  const ModelPlan wanted = algorithm->models();
  LearnerModels models;
  models.policy = load_policy();
  const auto stage_folder = [this](const std::string& name) { return context_.results() / name; };
  if (wanted.critic == CriticKind::kSeparate && wanted.critic_init == "reward") {
    const auto part = std::find_if(stage.rewards.parts.begin(),
                                   stage.rewards.parts.end(),
                                   [](const PartConfig& p) { return p.model.has_value(); });
    PRAETOR_CHECK(part != stage.rewards.parts.end(), "critic.init: reward without a reward model");
    const auto folder =
        part->model->stage.empty() ? part->model->path : stage_folder(part->model->stage);
    models.scalar = std::make_unique<ScalarModel>(
        ScalarModel::load(folder,
                          RandomStream({.job_seed = context.job.seed,
                                        .stage = stage.index,
                                        .purpose = Purpose::kInitialise})));
  }

  plan_ = {.stage = stage.index,
           .job_seed = context.job.seed,
           .prompts_per_step = samples.prompts_per_step,
           .samples_per_prompt = static_cast<int32_t>(samples.samples_per_prompt),
           .shuffle = stage.data.shuffle,
           .params = stage.sampling};
  for (const int64_t token : models.policy->config().eos_tokens)
    plan_.params.stop_tokens.push_back(token);
  if (plan_.params.stop_tokens.empty())
    plan_.params.stop_tokens.push_back(end_token(models.policy->config()));

  auto prompts = read_prompts(stage.data.train);
  rows_ = static_cast<int64_t>(prompts.size());
  set_total_steps(stage.total_steps(rows_, samples.prompts_per_step));
  if (stage.data.eval.given()) eval_prompts_ = read_prompts(stage.data.eval);
  LearnerConfig config = learner_config();
  config.temperature = stage.sampling.temperature;
  learner_ = std::make_unique<Learner>(config, std::move(algorithm), std::move(models));

  scorer_ = Scorer::make(stage.rewards, stage_folder);
  engine_ = std::make_unique<Engine>(learner_->policy(), *tokenizer_, stage.engine);
  const Algorithm& method = learner_->algorithm();
  controller_ = std::make_unique<Controller>(
      context.ledger, plan_, std::move(prompts), [&method](const std::vector<ScoredSample>& group) {
        Group judged{.prompt_ordinal = group.front().rollout.id.ordinal};
        for (const ScoredSample& sample : group) {
          judged.scores.push_back(*sample.score.score.score);
          judged.finished.push_back(sample.rollout.finish == FinishReason::kStop);
        }
        return method.accept(judged);
      });
  rollout_worker_ = std::make_unique<RolloutWorker>(*controller_, *engine_, "colocated");
  reward_worker_ = std::make_unique<RewardWorker>(*controller_, *scorer_, "colocated");
}

std::vector<Prompt> OnlineStage::read_prompts(const Source& source) const {
  std::vector<Prompt> prompts;
  for (const Row& row : read_rows(resolve(source), RowForm::kPrompt)) {
    prompts.push_back({prompt_tokens(row, *tokenizer_, stage_.data.format),
                       prompt_text(row, stage_.data.format),
                       row.metadata});
  }
  return prompts;
}

StepBatch OnlineStage::collect(int64_t step) {
  controller_->open_step(step, step - 1);
  const int64_t whole_step = plan_.prompts_per_step * plan_.samples_per_prompt;
  for (;;) {
    if (const auto batch = controller_->close_step()) return *batch;
    progress_->phase(step, "rollout");
    timer_.begin("rollout");
    while (rollout_worker_->work_once(whole_step, interrupted)) {
      if (interrupted()) break;
    }
    if (interrupted()) {
      controller_->worker_lost("colocated");
      timer_.end();
      throw Interrupted{InterruptGuard::requested()};
    }
    progress_->phase(step, "score");
    timer_.begin("score");
    while (reward_worker_->work_once(kScoreLease)) {
    }
    timer_.end();
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
  for (const auto& [why, ids] : batch.dropped) dropped += static_cast<int64_t>(ids.size());
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
  Experience experience = make_experience(batch);
  result.tokens = experience.tokens.numel();
  result.report = learner_->update(experience);
  timer_.begin("ledger");
  result.metrics = result.report.metrics;
  add_batch_metrics(batch, result.metrics);
  const nlohmann::ordered_json values(
      std::map<std::string, double>(result.metrics.begin(), result.metrics.end()));
  result.outcome = controller_->commit_step(batch,
                                            result.report.manifest,
                                            {.step = step,
                                             .loss_digest = result.report.loss_digest,
                                             .gradient_digest = result.report.gradient_digest,
                                             .metrics = values.dump()});
  timer_.end();
  // From here on figures of this machine and hour, which a resumed run need not repeat.
  const auto counters = scorer_->metrics();
  for (const auto& [name, value] : counters) {
    if (name.rfind("judge/", 0) == 0) result.metrics.emplace_back(name, value);
  }
  scorer_->reset_counters();
  const double seconds = timer_.seconds("rollout");
  if (seconds > 0) {
    result.metrics.emplace_back("rollout/tokens_per_second",
                                static_cast<double>(experience.sequence_of.numel()) / seconds);
  }
  result.metrics.emplace_back("sync/version", static_cast<double>(step));
  result.metrics.emplace_back("fault/leases_reissued",
                              static_cast<double>(controller_->leases_reissued()));
  for (const auto& [name, value] : result.metrics) {
    for (const char* shown : {"reward/mean", "objective/kl", "rollout/response_length"}) {
      if (name == shown) result.line += str(result.line.empty() ? "" : "  ", name, " ", value);
    }
  }
  return result;
}

StepReport OnlineStage::replay_step(int64_t step) {
  const auto stage = static_cast<int32_t>(stage_.index);
  const auto record = context_.ledger.batch(stage, step);
  if (!record) throw DataError(stage_.name, " step ", step, ": the ledger has no such step");
  Experience experience = make_experience(load_batch(context_.ledger, stage, *record));
  return learner_->update(experience);
}

MetricList OnlineStage::evaluate(int64_t step) {
  const int64_t count =
      stage_.eval.prompts > 0 ? stage_.eval.prompts : static_cast<int64_t>(eval_prompts_.size());
  Evaluation evaluation = evaluate_prompts(eval_prompts_, count, plan_, *engine_, *scorer_);
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
