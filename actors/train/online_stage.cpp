#include "actors/train/online_stage.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "actors/train/experience_builder.h"
#include "actors/train/interrupt.h"
#include "actors/train/publisher.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/cuda/torch_library.h"
#include "core/data/dataset.h"

namespace praetor {

namespace {

/// How long one question to the controller may stay open.
constexpr std::chrono::milliseconds kPoll{1000};
constexpr std::chrono::milliseconds kNoWait{0};

/// What the first rank tells the others while a batch is made; above 0: a signal ends the run.
constexpr int64_t kWaiting = -1;
constexpr int64_t kClosed = 0;

/// Which network the first rank asks the others to help with, while it publishes.
constexpr int64_t kNoNetwork = 0;
constexpr int64_t kPolicy = 1;
constexpr int64_t kCompanion = 2;
constexpr int64_t kBase = 3;

}  // namespace

OnlineStage::OnlineStage(RunContext& context, const StageConfig& stage)
    : StageRunner(context, stage) {
  auto algorithm = stage.make_algorithm();
  const SamplePlan samples = algorithm->sample_plan();
  const ModelPlan wanted = algorithm->models();
  LearnerModels models;
  open_policy(models);
  if (wanted.critic == CriticKind::kSeparate && wanted.critic_init == "reward") {
    const auto parts = list_parts(stage.rewards);
    const auto part = std::ranges::find_if(
        parts, [](const ListedPart& p) { return p.config->model.has_value(); });
    PRAETOR_CHECK(part != parts.end(), "critic.init: reward without a reward model");
    const auto folder = part->config->folder()->in(
        [this](const std::string& name) { return context_.results() / name; });
    OpenedScalar critic = open_scalar(
        folder,
        RandomStream(
            {.job_seed = context.job.seed, .stage = stage.index, .purpose = Purpose::kInitialise}));
    models.scalar = std::make_unique<ScalarModel>(std::move(critic.model));
    models.scalar_weights = std::move(critic.backbone);
  }
  const auto rows =
      static_cast<int64_t>(read_rows(resolve(stage.data.train), RowForm::kPrompt).size());
  set_total_steps(stage.total_steps(rows, samples.prompts_per_step));
  if (stage.data.eval.given()) {
    held_out_ = static_cast<int64_t>(read_rows(resolve(stage.data.eval), RowForm::kPrompt).size());
    if (stage.eval.prompts > 0) held_out_ = std::min(held_out_, stage.eval.prompts);
  }
  LearnerConfig config = learner_config();
  config.temperature = stage.sampling.temperature;
  config.max_new_tokens = stage.sampling.max_new_tokens;
  config.exact_rollouts = stage.exact_rollouts();
  if (stage.engine.weights != WeightKind::kFloat32) {
    log::info(str(stage.name,
                  ": responses are sampled with weights in ",
                  to_string(stage.engine.weights),
                  ": their log-probabilities are not the learner's (mismatch/...)"));
  }
  device_ = config.device;
  learner_ =
      std::make_unique<Learner>(config, std::move(algorithm), std::move(models), &context.ranks);
  if (context.workers) {
    cuda::release_cached_memory(config.device);  // the engine asks what is free
    local_ = std::make_unique<LocalRoles>(*context.workers,
                                          learner_->policy(),
                                          companion(0).model,
                                          *tokenizer_,
                                          stage,
                                          context_.results(),
                                          context.job.network.own_certificates()
                                              ? read_identity(context.job.network.own_files())
                                              : nullptr,
                                          context.engine_device);
    if (stage.max_staleness > 0) {
      log::warn(str(stage.name,
                    ": in one process sampling and updates take turns: max_staleness ",
                    stage.max_staleness,
                    " makes samples older and saves no time; placement: separate overlaps them"));
    }
  }
}

void OnlineStage::publish(int64_t step, bool wanted) {
  if (!context_.leads()) {
    while (in_parts()) {
      const int64_t which = agree(kNoNetwork);
      if (which == kNoNetwork) break;
      const Transformer& model = which == kPolicy ? learner_->policy()
                                 : which == kBase ? *learner_->adapted(learner_->policy()).base
                                                  : *learner_->companion();
      learner_->visit_weights(model, model.parameters(), nullptr);
    }
    return;
  }
  if (wanted && publication_.version.step != step) {
    publication_ = {.version = {.stage = stage_.index, .lineage = lineage(), .step = step}};
    if (context_.publisher) {
      auto made = context_.publisher->publish(
          stage_.index,
          lineage(),
          step,
          learner_->policy(),
          companion(step),
          [this](const Transformer& model, const Publisher::Take& take) { visit(model, take); },
          learner_->adapted(learner_->policy()));
      publication_ = std::move(made.publication);
      publish_metrics_ = {{"sync/seconds", made.seconds},
                          {"sync/bytes", static_cast<double>(made.bytes)}};
      if (made.receivers) {
        publish_metrics_.emplace_back("sync/epoch", static_cast<double>(publication_.epoch));
        publish_metrics_.emplace_back("sync/receivers", static_cast<double>(*made.receivers));
      }
    } else if (local_) {
      // Engines of this process read the learner's tensors, or those that adapters are merged
      // into, or copies in the processor's memory until the next update.
      engine_weights_.reset();
      engine_weights_ = learner_->gather_weights({&learner_->policy(), companion(step).model});
    }
  }
  if (in_parts()) agree(kNoNetwork);
}

void OnlineStage::visit(const Transformer& model, const Publisher::Take& take) {
  const bool is_base = &model == learner_->adapted(learner_->policy()).base;
  if (in_parts()) agree(&model == &learner_->policy() ? kPolicy : is_base ? kBase : kCompanion);
  learner_->visit_weights(model, model.parameters(), take);
}

Publisher::Companion OnlineStage::companion(int64_t step) const {
  if (learner_->algorithm().sample_plan().others.empty()) return {};
  const Transformer* const model = learner_->companion();
  if (!model) return {};
  return {model, learner_->algorithm().models().anchor ? step : 0, learner_->adapted(*model)};
}

int64_t OnlineStage::agree(int64_t decision) {
  context_.ranks.broadcast(std::span(&decision, 1));
  return decision;
}

void OnlineStage::work_here(bool may_interrupt, const std::function<void(const char*)>& begin) {
  // An engine on the learner's GPU takes what updates and forwards had.
  cuda::release_cached_memory(device_);
  local_->work(may_interrupt, begin);
}

StepBatch OnlineStage::collect(int64_t step) {
  LearnerService& run = context_.run;
  if (!context_.leads()) {
    publish(step - 1, false);
    for (;;) {
      const int64_t decision = agree(kWaiting);
      if (decision > 0) throw Interrupted{static_cast<int>(decision)};
      if (decision == kWaiting) continue;
      auto batch = run.wait_batch(stage_.index, step, context_.slice(), kPoll);
      PRAETOR_CHECK(batch, "the batch of step ", step, " was closed, and is no more");
      return std::move(*batch);
    }
  }
  const bool recorded = run.has_batch(stage_.index, step);
  if (!local_) timer_.begin("publish");
  publish(step - 1, !recorded);
  const Publication weights =
      recorded ? Publication{.version = {.stage = stage_.index, .step = step - 1}} : publication_;
  const auto begin = [&](const char* phase) {
    progress_->phase(step, phase);
    timer_.begin(phase);
  };
  if (!local_) begin("rollout");
  for (;;) {
    // Opened again each time: a controller that was restarted does not know the step.
    run.open_step(stage_.index, step, weights);
    auto batch = run.wait_batch(stage_.index, step, context_.slice(), local_ ? kNoWait : kPoll);
    if (batch) {
      agree(kClosed);
      timer_.end();
      return std::move(*batch);
    }
    if (local_) {
      work_here(true, begin);
      timer_.end();
    }
    const int signal = InterruptGuard::requested();
    agree(signal > 0 ? signal : kWaiting);
    if (signal > 0) throw Interrupted{signal};
  }
}

StageRunner::StepResult OnlineStage::train_step(int64_t step) {
  const StepBatch batch = collect(step);
  progress_->phase(step, "update");
  timer_.begin("update");
  set_busy(true);
  StepResult result;
  Experience experience = gather_experience(context_.ranks, batch.samples);
  result.tokens = experience.tokens.numel();
  engine_weights_.reset();
  if (local_) local_->rest();
  result.report = learner_->update(experience);
  timer_.end();
  if (!context_.leads()) return result;
  timer_.begin("ledger");
  result.metrics = result.report.metrics;
  result.metrics.insert(result.metrics.end(), batch.metrics.begin(), batch.metrics.end());
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
  result.metrics.insert(
      result.metrics.end(), batch.circumstances.begin(), batch.circumstances.end());
  result.metrics.insert(result.metrics.end(), publish_metrics_.begin(), publish_metrics_.end());
  const double waited = timer_.seconds("rollout");
  if (!local_) result.metrics.emplace_back("idle/learner", waited);
  const auto now = std::chrono::steady_clock::now();
  // Where sampling goes on during the update, the wait says nothing of its speed.
  const double seconds =
      stage_.max_staleness == 0 ? waited : std::chrono::duration<double>(now - last_batch_).count();
  last_batch_ = now;
  if (seconds > 0) {
    result.metrics.emplace_back("rollout/tokens_per_second",
                                static_cast<double>(experience.sequence_of.numel()) / seconds);
  }
  result.metrics.emplace_back("sync/version", static_cast<double>(step));
  for (const auto& [name, value] : result.metrics) {
    for (const char* shown :
         {"reward/mean", "objective/kl", "rollout/response_length", "staleness/mean"}) {
      if (shown == std::string_view("staleness/mean") && stage_.max_staleness == 0) continue;
      if (name == shown) result.line += str(result.line.empty() ? "" : "  ", name, " ", value);
    }
  }
  return result;
}

StepReport OnlineStage::replay_step(int64_t step) {
  const auto batch = context_.run.wait_batch(stage_.index, step, context_.slice(), kNoWait);
  if (!batch) throw DataError(stage_.name, " step ", step, ": the ledger has no such step");
  Experience experience = gather_experience(context_.ranks, batch->samples);
  return learner_->update(experience);
}

Evaluation OnlineStage::evaluation_of(int64_t step) {
  LearnerService& run = context_.run;
  publish(step, true);
  const Publication& weights = publication_;
  for (;;) {
    run.open_evaluation(stage_.index, step, held_out_, weights);
    auto batch = run.wait_evaluation(stage_.index, step, local_ ? kNoWait : kPoll);
    agree(batch ? kClosed : kWaiting);
    if (batch) return summarise_evaluation(std::move(*batch));
    if (local_) work_here(false, nullptr);
  }
}

MetricList OnlineStage::evaluate(int64_t step) {
  Evaluation evaluation;
  if (context_.leads()) {
    evaluation = evaluation_of(step);
    if (context_.metrics)
      write_samples(context_.run_dir / "samples", stage_.name, step, evaluation.samples);
  } else {
    publish(step, false);
    while (agree(kWaiting) == kWaiting) {
    }
  }
  const Algorithm& algorithm = learner_->algorithm();
  const bool measured = algorithm.models().reference;
  if (!measured && !algorithm.sample_plan().direction) return evaluation.metrics;
  const Experience experience = gather_experience(context_.ranks, evaluation.scored);
  if (experience.sequences() == 0) return evaluation.metrics;
  for (const auto& [name, value] : algorithm.evaluate_samples(experience))
    evaluation.metrics.emplace_back("eval/" + name, value);
  if (!measured) return evaluation.metrics;
  const at::NoGradGuard no_grad;
  const at::Tensor kl =
      learner_->policy_logprobs(experience) - learner_->reference_logprobs(experience);
  evaluation.metrics.emplace_back(
      "eval/kl",
      kl.to(at::kDouble).sum().item<double>() / static_cast<double>(experience.sequences()));
  return evaluation.metrics;
}

void OnlineStage::write_result(const std::filesystem::path& folder) {
  if (context_.leads()) copy_tokenizer(resolve(stage_.tokenizer), folder);
  const Transformer& policy = learner_->policy();
  save_weights(policy.config(), policy, policy.parameters(), folder);
}

}  // namespace praetor
