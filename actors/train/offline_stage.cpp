#include "actors/train/offline_stage.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/data/dataset.h"
#include "core/model/packed.h"
#include "learners/preference/reference_rows.h"
#include "reward/models/reward_model.h"

namespace praetor {

namespace {

/// Responses whose rewards give the moments that are stored with a reward model.
constexpr size_t kMomentSamples = 512;

}  // namespace

OfflineStage::OfflineStage(RunContext& context, const StageConfig& stage)
    : StageRunner(context, stage) {
  trains_policy_ = stage.result != StageResult::kRewardModel;
  auto algorithm = stage.make_algorithm();
  per_step_ = algorithm->sample_plan().prompts_per_step;
  form_ = algorithm->sample_plan().rows;
  question_ = algorithm->sample_plan().question;
  LearnerModels models;
  if (trains_policy_) {
    models.policy = load_policy();
  } else {
    const RandomStream stream(
        {.job_seed = context.job.seed, .stage = stage.index, .purpose = Purpose::kInitialise});
    if (stage.model.create) {
      auto backbone = load_policy();
      ScalarHead head = ScalarHead::make(backbone->config().hidden_size, stream);
      models.scalar =
          std::make_unique<ScalarModel>(ScalarModel{std::move(*backbone), std::move(head)});
    } else {
      models.scalar =
          std::make_unique<ScalarModel>(ScalarModel::load(resolve(stage.model.source), stream));
    }
  }
  const int64_t eos = end_token();
  train_ = read_examples(stage.data.train, eos);
  if (stage.data.eval.given()) {
    eval_ = read_examples(stage.data.eval, eos);
    if (stage.eval.prompts > 0 && eval_.size() > static_cast<size_t>(stage.eval.prompts)) {
      eval_.resize(static_cast<size_t>(stage.eval.prompts));
    }
  }
  const auto rows = static_cast<int64_t>(train_.size());
  order_ = std::make_unique<RowOrder>(rows, context.job.seed, stage.index, stage.data.shuffle);
  set_total_steps(stage.total_steps(rows, per_step_));
  learner_ = std::make_unique<Learner>(
      learner_config(), std::move(algorithm), std::move(models), &context.ranks);
  if (learner_->algorithm().models().reference_in_rows) add_reference();
}

void OfflineStage::add_reference() {
  std::vector<Example*> all;
  for (auto* rows : {&train_, &eval_}) {
    for (RowExamples& row : *rows) {
      for (Example& example : row) all.push_back(&example);
    }
  }
  const auto file = context_.run_dir / "reference" / (stage_.name + ".safetensors");
  add_reference_logprobs(*learner_, context_.ranks, file, all);
}

std::vector<OfflineStage::RowExamples> OfflineStage::read_examples(const Source& source,
                                                                   int64_t eos) const {
  const auto file = resolve(source);
  const TextFormat& format = stage_.data.format;
  const auto rows = read_rows(file, form_);
  const auto examples_of_row = [&](const Row& row) -> RowExamples {
    if (form_ == RowForm::kCompletion) return {completion_example(row, *tokenizer_, format, eos)};
    if (question_) return pair_question_examples(row, *question_, answers(), *tokenizer_, format);
    return preference_examples(row, *tokenizer_, format, eos);
  };
  std::vector<RowExamples> out;
  for (const Row& row : rows) {
    RowExamples examples = examples_of_row(row);
    const bool fits = std::all_of(examples.begin(), examples.end(), [&](const Example& example) {
      return static_cast<int64_t>(example.tokens.size()) <= format.max_length;
    });
    if (!fits) continue;
    for (Example& example : examples) example.row = static_cast<int64_t>(out.size());
    out.push_back(std::move(examples));
  }
  if (out.size() < rows.size()) {
    log::warn(str(file.string(),
                  ": ",
                  rows.size() - out.size(),
                  " of ",
                  rows.size(),
                  " rows are longer than data.max_length = ",
                  format.max_length,
                  " tokens and are left out"));
  }
  if (out.empty()) throw DataError(file.string(), ": no row is left to train on");
  return out;
}

std::array<int64_t, 2> OfflineStage::answers() const {
  try {
    return answer_tokens(question_->answers, *tokenizer_);
  } catch (const DataError& failure) {
    throw DataError(resolve(stage_.tokenizer).string(), ": ", failure.what());
  }
}

std::vector<SampleId> OfflineStage::rows_of_step(int64_t step) const {
  std::vector<SampleId> ids;
  for (int64_t i = 0; i < per_step_; ++i) ids.push_back({(step - 1) * per_step_ + i, 0});
  return ids;
}

std::vector<Example> OfflineStage::examples_of(const std::vector<SampleId>& ids) {
  std::vector<Example> out;
  for (const SampleId& id : ids) {
    const RowExamples& row = train_[static_cast<size_t>(order_->row(id.ordinal))];
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

StageRunner::StepResult OfflineStage::train_step(int64_t step) {
  RowStep rows{.batch = {.step = step, .samples = rows_of_step(step)}};
  const std::vector<SampleId>& ids = rows.batch.samples;
  for (const SampleId& id : ids) {
    rows.fresh.push_back({.ordinal = id.ordinal,
                          .epoch = order_->epoch(id.ordinal),
                          .row = order_->row(id.ordinal),
                          .samples = 1});
  }
  progress_->phase(step, "update");
  timer_.begin("update");
  set_busy(true);
  StepResult result;
  const std::vector<Example> examples = examples_of(ids);
  for (const Example& example : examples) {
    result.tokens += static_cast<int64_t>(example.tokens.size());
  }
  result.report = learner_->update(examples);
  timer_.end();
  const StepReport& report = result.report;
  if (!context_.leads()) return result;
  const nlohmann::ordered_json values(
      std::map<std::string, double>(report.metrics.begin(), report.metrics.end()));
  timer_.begin("ledger");
  rows.batch.manifest = report.manifest;
  rows.record = {.step = step,
                 .loss_digest = report.loss_digest,
                 .gradient_digest = report.gradient_digest,
                 .metrics = values.dump()};
  result.outcome = context_.run.commit_rows(stage_.index, rows);
  timer_.end();
  result.metrics = report.metrics;
  result.metrics.emplace_back(
      "data/epoch",
      static_cast<double>(ids.back().ordinal + 1) / static_cast<double>(order_->rows()));
  result.metrics.emplace_back("data/consumed", static_cast<double>(ids.back().ordinal + 1));
  for (const auto& [name, value] : report.metrics) {
    if (name == headline_.curve || name == "rm/loss" || name == "pm/loss" || name == "dpo/loss")
      result.line += str(result.line.empty() ? "" : "  ", name, " ", value);
  }
  return result;
}

StepReport OfflineStage::replay_step(int64_t step) {
  return learner_->update(examples_of(rows_of_step(step)));
}

MetricList OfflineStage::evaluate(int64_t) {
  std::vector<Example> examples;
  for (const RowExamples& row : eval_) examples.insert(examples.end(), row.begin(), row.end());
  MetricList out;
  for (const auto& [name, value] : learner_->evaluate(examples))
    out.emplace_back("eval/" + name, value);
  return out;
}

void OfflineStage::write_result(const std::filesystem::path& folder) {
  copy_tokenizer(resolve(stage_.tokenizer), folder);
  if (trains_policy_) {
    save_hf(learner_->policy(), folder);
    return;
  }
  save_hf(learner_->scalar(), folder);
  // Moments of the rewards, so that whoever scores with this model can bring it to mean 0 and
  // deviation 1.
  std::vector<std::vector<int64_t>> sequences;
  for (const RowExamples& row : train_) {
    if (sequences.size() >= kMomentSamples) break;
    for (const Example& example : row) sequences.push_back(example.tokens);
  }
  const at::NoGradGuard no_grad;
  const at::Tensor scores = learner_->scalar().score(pack(sequences)).to(at::kDouble);
  const double mean = scores.mean().item<double>();
  const double deviation = std::sqrt((scores - mean).square().mean().item<double>());
  write_normaliser(folder, mean, std::max(deviation, 1e-6));
}

}  // namespace praetor
