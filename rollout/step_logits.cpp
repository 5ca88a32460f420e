#include "rollout/step_logits.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>

#include "core/model/kernels/parallel.h"

namespace praetor {
namespace {

/// True when two models with about the same to do have a thread each. Then a step has one wait
/// rather than some thirty for each model, and what a model is made of stays in one core's cache.
bool side_by_side(const StepLogits::Models& models) {
  if (models.size() != 2 || at::get_num_threads() != 2 || models[0]->decoder()) return false;
  const auto [less, more] = std::minmax({models[0]->work(), models[1]->work()});
  return less > 0 && 2 * more <= 3 * less;
}

SampledToken sampled_of(const cuda::SampleResult& from) {
  return {.token = from.token,
          .model_logprob = from.model_logprob,
          .behavior_logprob = from.behavior_logprob,
          .sampled_logprob = from.sampled_logprob,
          .kept_mass = from.kept_mass};
}

/// The rows of logits that some draws need, copied from the GPU.
class CopiedRows {
 public:
  explicit CopiedRows(size_t rows) : place_(rows, -1) {}

  /// The row's number among those that are copied.
  int64_t add(std::span<const VoicedRow> voiced, int64_t row) {
    int64_t& place = place_[static_cast<size_t>(row)];
    if (place >= 0) return place;
    place = static_cast<int64_t>(voiced_.size());
    voiced_.push_back(voiced[static_cast<size_t>(row)]);
    for (size_t m = 0; m < wanted_.size(); ++m) {
      int64_t& of_model = voiced_.back().row[m];
      if (of_model < 0) continue;
      wanted_[m].push_back(of_model);
      of_model = static_cast<int64_t>(wanted_[m].size()) - 1;
    }
    return place;
  }

  at::Tensor mixed(const StepLogits::Models& models) const {
    std::array<at::Tensor, 2> logits;
    for (size_t m = 0; m < models.size(); ++m) {
      if (!wanted_[m].empty()) logits[m] = models[m]->decoder()->logits(wanted_[m]);
    }
    return mix_voices(logits, voiced_);
  }

 private:
  std::vector<int64_t> place_;  ///< by row; -1: not copied
  std::vector<VoicedRow> voiced_;
  std::array<std::vector<int64_t>, 2> wanted_;  ///< by model
};

}  // namespace

void StepLogits::compute() {
  mixed_ = at::Tensor();
  const auto count = static_cast<int64_t>(models_.size());
  ops::kernels::run_tasks(side_by_side(models_) ? 2 : 1, count, [&](int64_t i) {
    const c10::NoGradGuard no_grad;  // it is the thread's
    models_[static_cast<size_t>(i)]->run();
  });
}

// What draws from the row where its logits lie; null: the sampler does.
cuda::Decoder* StepLogits::place_of(const VoicedRow& voiced, const SamplingParams& params) const {
  const bool mixture = voiced.row[kPolicyModel] >= 0 && voiced.row[kCompanionModel] >= 0;
  if (mixture || params.repetition_penalty != 1.0 || !params.processors.empty() ||
      params.top_logprobs > 0)
    return nullptr;
  return models_[voiced.row[kPolicyModel] >= 0 ? kPolicyModel : kCompanionModel]->decoder();
}

void StepLogits::draw(std::span<const VoicedRow> voiced,
                      std::span<const SampleRow> rows,
                      std::vector<SampledToken>& out) {
  if (!models_.front()->decoder()) {
    if (!mixed_.defined()) {
      std::array<at::Tensor, 2> logits;
      for (size_t m = 0; m < models_.size(); ++m) logits[m] = models_[m]->take_logits();
      mixed_ = mix_voices(logits, voiced);
    }
    sampler_.sample(mixed_, rows, out);
    return;
  }
  out.assign(rows.size(), {});
  for (size_t m = 0; m < models_.size(); ++m)
    draw_there(*models_[m]->decoder(), m, voiced, rows, out);
  draw_here(voiced, rows, out);
}

void StepLogits::draw_there(cuda::Decoder& decoder,
                            size_t model,
                            std::span<const VoicedRow> voiced,
                            std::span<const SampleRow> rows,
                            std::vector<SampledToken>& out) {
  std::vector<cuda::SampleSpec> specs;
  mine_.clear();
  for (size_t i = 0; i < rows.size(); ++i) {
    const VoicedRow& from = voiced[static_cast<size_t>(rows[i].logits_row)];
    const SamplingParams& p = *rows[i].params;
    if (place_of(from, p) != &decoder) continue;
    mine_.push_back(i);
    specs.push_back(cuda::sample_spec(static_cast<int32_t>(from.row[model]),
                                      p.temperature,
                                      p.top_k,
                                      p.top_p,
                                      p.min_p,
                                      rows[i].key,
                                      rows[i].position));
  }
  const std::vector<cuda::SampleResult> results = decoder.sample(specs);
  for (size_t k = 0; k < mine_.size(); ++k) out[mine_[k]] = sampled_of(results[k]);
}

void StepLogits::draw_here(std::span<const VoicedRow> voiced,
                           std::span<const SampleRow> rows,
                           std::vector<SampledToken>& out) {
  mine_.clear();
  here_.clear();
  CopiedRows copied(voiced.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    if (place_of(voiced[static_cast<size_t>(rows[i].logits_row)], *rows[i].params)) continue;
    mine_.push_back(i);
    here_.push_back(rows[i]);
    here_.back().logits_row = copied.add(voiced, rows[i].logits_row);
  }
  if (here_.empty()) return;
  sampler_.sample(copied.mixed(models_), here_, drawn_);
  for (size_t k = 0; k < mine_.size(); ++k) out[mine_[k]] = std::move(drawn_[k]);
}

}  // namespace praetor
