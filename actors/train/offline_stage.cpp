#include "actors/train/offline_stage.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <tuple>
#include <utility>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/data/dataset.h"
#include "core/data/labels.h"
#include "learners/micro_batch.h"
#include "learners/preference/reference_rows.h"

namespace praetor {

namespace {

/// Responses whose rewards give the moments that are stored with a reward model.
constexpr size_t kMomentSamples = 512;

}  // namespace

OfflineStage::OfflineStage(RunContext& context, const StageConfig& stage)
    : StageRunner(context, stage) {
  auto algorithm = stage.make_algorithm();
  const ModelPlan plan = algorithm->models();
  trains_policy_ = plan.policy;
  form_ = algorithm->sample_plan().rows;
  question_ = algorithm->sample_plan().question;
  labels_ = algorithm->sample_plan().labels;
  const int64_t eos = end_token();
  train_ = read_examples(stage.data.train, eos);
  if (stage.data.eval.given()) {
    eval_ = read_examples(stage.data.eval, eos);
    if (stage.eval.prompts > 0 && eval_.size() > static_cast<size_t>(stage.eval.prompts)) {
      eval_.resize(static_cast<size_t>(stage.eval.prompts));
    }
  }
  const auto rows = static_cast<int64_t>(train_.size());
  per_step_ = algorithm->sample_plan().prompts_per_step;
  order_ = std::make_unique<RowOrder>(rows, context.job.seed, stage.index, stage.data.shuffle);
  set_total_steps(stage.total_steps(rows, per_step_));
  if (per_step_ == 0) per_step_ = rows;
  LearnerModels models;
  if (trains_policy_) {
    open_policy(models);
  } else {
    open_scalar_model(models);
  }
  if (plan.gate) {
    // Its answers to the rows are asked for before there is a learner.
    if (!plan.gate->verbosity.empty() && models.scalar_weights)
      read_whole(*models.scalar_weights, models.scalar->backbone);
    models.gate = make_gate(*models.scalar, *plan.gate);
  }
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

void OfflineStage::open_scalar_model(LearnerModels& models) const {
  const RandomStream stream(
      {.job_seed = context_.job.seed, .stage = stage_.index, .purpose = Purpose::kInitialise});
  auto heads = std::max<int64_t>(1, static_cast<int64_t>(labels_.size()));
  if (stage_.model.create) {
    Transformer backbone = created_model();
    ScalarHead head = ScalarHead::make(backbone.config().hidden_size, stream, at::kFloat, heads);
    models.scalar =
        std::make_unique<ScalarModel>(ScalarModel{std::move(backbone), std::move(head), labels_});
    return;
  }
  const auto folder = resolve(stage_.model.source);
  if (stage_.start == StageResult::kAttributeModel)
    heads = static_cast<int64_t>(attributes_in(folder).size());
  const int64_t own = stage_.probes ? ModelConfig::load(folder).num_labels : 0;
  OpenedScalar opened = open_scalar(folder, stream, at::kFloat, own > 0 ? own : heads);
  models.scalar_weights = with_adapter(std::move(opened.backbone));
  models.scalar = std::make_unique<ScalarModel>(std::move(opened.model));
  ScalarModel& scalar = *models.scalar;
  // A probe leaves the head of a reward model behind.
  if (own > 0)
    scalar.head = ScalarHead::make(scalar.backbone.config().hidden_size, stream, at::kFloat, heads);
  if (!labels_.empty()) scalar.labels = labels_;
}

std::unique_ptr<AttributeGate> OfflineStage::make_gate(const ScalarModel& model,
                                                       const GatePlan& plan) const {
  const RandomStream stream({.job_seed = context_.job.seed,
                             .stage = stage_.index,
                             .prompt_ordinal = 1,
                             .purpose = Purpose::kInitialise});
  auto gate =
      std::make_unique<AttributeGate>(AttributeGate::make(model.backbone.config().hidden_size,
                                                          model.head.weight.size(0),
                                                          plan.layers,
                                                          plan.width,
                                                          stream));
  if (plan.verbosity.empty()) return gate;
  const auto folder = resolve(stage_.model.source);
  const auto known = names_of(attributes_in(folder));
  if (const auto wrong = unknown_attribute(plan.verbosity, known))
    throw DataError(folder.string(), ": ", stage_.kind, ".verbosity: ", *wrong);
  gate->verbosity = std::ranges::find(known, plan.verbosity) - known.begin();
  const at::Tensor values = numbers_of(model, 2 * static_cast<size_t>(plan.reference));
  gate->correction =
      verbosity_correction(values, gate->verbosity).to(gate->correction.scalar_type());
  return gate;
}

at::Tensor OfflineStage::numbers_of(const ScalarModel& model, size_t count) const {
  const at::NoGradGuard no_grad;
  std::vector<Example> examples;
  for (size_t i = 0; i < train_.size() && examples.size() < count; ++i)
    examples.insert(examples.end(), train_[i].begin(), train_[i].end());
  const auto of_row = static_cast<int64_t>(train_.front().size());
  const SequenceBatch batch = SequenceBatch::from(examples, of_row);
  std::vector<int64_t> order(examples.size());
  std::iota(order.begin(), order.end(), 0);
  std::vector<at::Tensor> out;
  for (const auto& sequences :
       plan_micro_batches(batch, units_of(order, of_row), stage_.learner.micro_batch_tokens)) {
    const PackedSlice slice = pack_slice(batch, sequences, model.backbone.config().switch_length());
    const at::Tensor last = model.backbone.hidden(slice.packed, slice.last);
    out.push_back(model.head(last).to(at::kDouble).view({-1, model.head.weight.size(0)}));
  }
  return at::cat(out);
}

std::vector<OfflineStage::RowExamples> OfflineStage::read_examples(const Source& source,
                                                                   int64_t eos) const {
  const auto file = resolve(source);
  const TextFormat& format = stage_.data.format;
  const auto rows = read_rows(file, form_);
  const auto labels_of = [&](const Row& row) {
    try {
      return row_labels(row.metadata, labels_);
    } catch (const DataError& failure) {
      throw DataError(file.string(), ":", row.line, ": ", failure.what());
    }
  };
  const auto examples_of_row = [&](const Row& row) -> RowExamples {
    if (form_ == RowForm::kCompletion) {
      RowExamples one{completion_example(row, *tokenizer_, format, eos)};
      one.front().labels = labels_of(row);
      return one;
    }
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

std::vector<Attribute> OfflineStage::described_attributes() const {
  if (labels_.empty()) return attributes_in(resolve(stage_.model.source));
  const std::vector<double> weights = stage_.make_algorithm()->label_weights();
  std::vector<Attribute> out;
  for (size_t i = 0; i < labels_.size(); ++i)
    out.push_back({.name = labels_[i], .weight = weights[i]});
  return out;
}

void OfflineStage::write_result(const std::filesystem::path& folder) {
  if (context_.leads()) copy_tokenizer(resolve(stage_.tokenizer), folder);
  if (trains_policy_) {
    const Transformer& policy = learner_->policy();
    save_weights(policy.config(), policy, policy.parameters(), folder);
    return;
  }
  const ScalarModel& model = learner_->scalar();
  save_weights(model.config(), model.backbone, model.parameters(), folder);
  const auto whole = learner_->gather_weights({&model.backbone});
  if (context_.leads()) write_moments(folder);
}

void OfflineStage::write_moments(const std::filesystem::path& folder) {
  const ScalarModel& model = learner_->scalar();
  // Moments of what the model says, so that whoever scores with it can bring it to mean 0 and
  // deviation 1.
  const at::NoGradGuard no_grad;
  at::Tensor values = numbers_of(model, kMomentSamples);
  const auto moments = [](const at::Tensor& x) {
    const double mean = x.mean().item<double>();
    return std::pair(mean, std::max(std::sqrt((x - mean).square().mean().item<double>()), 1e-6));
  };
  RewardFile file;
  at::Tensor score = values.select(1, 0);
  if (stage_.result == StageResult::kAttributeModel) {
    file.attributes = described_attributes();
    if (stage_.make_algorithm()->models().gate) {
      learner_->gate().save(folder);
      values = learner_->gate().corrected(values.to(at::kFloat)).to(at::kDouble);
    }
    score = at::zeros_like(score);
    for (size_t a = 0; a < file.attributes.size(); ++a) {
      Attribute& one = file.attributes[a];
      const at::Tensor own = values.select(1, static_cast<int64_t>(a));
      std::tie(one.mean, one.std) = moments(own);
      score = score + one.weight * own;
    }
  }
  std::tie(file.mean, file.std) = moments(score);
  file.write(folder);
}

}  // namespace praetor
