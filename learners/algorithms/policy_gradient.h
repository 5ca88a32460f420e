#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "core/config/yaml_reader.h"
#include "learners/advantage/groups.h"
#include "learners/advantage/mismatch.h"
#include "learners/advantage/reward_shaping.h"
#include "learners/algorithm.h"
#include "learners/algorithms/kl_config.h"

namespace praetor {

/// Keys that all critic-free policy gradients share. A method starts from its own defaults.
struct PolicyGradientConfig {
  int64_t prompts_per_step = 64;
  int64_t samples_per_prompt = 8;          ///< K, >= 1
  int64_t epochs = 1;                      ///< passes over each batch of experience, >= 1
  int64_t minibatches = 1;                 ///< optimizer steps of a pass, >= 1
  double clip_low = 0.2;                   ///< ratio floor is 1 - clip_low, (0, 1)
  double clip_high = 0.2;                  ///< ratio ceiling is 1 + clip_high, > 0
  double dual_clip = 0;                    ///< c of arXiv:1912.09729, > 1; 0: off
  std::string ratio = "token";             ///< token, sequence, sequence_mean
  std::string aggregation = "token-mean";  ///< of the loss, aggregation_names()
  int64_t max_tokens = 0;                  ///< longest response, T_max; 0: what the sampling allows
  double score_clip = 0;                   ///< scores to [-c, c]; 0: off
  double missing_eos_penalty = 0;  ///< taken from the score of a response that did not end itself
  double overlong_buffer = 0;   ///< last part of max_tokens in which length costs, [0, 1]; 0: off
  bool mask_truncated = false;  ///< responses that did not end are left out of the loss
  double entropy_coefficient = 0;  ///< >= 0
  double target_kl_update = 0;     ///< mean k3 that ends the update early; 0: off
  KlConfig kl;
  MismatchConfig mismatch;

  /// Absent keys keep what stands here.
  void read(YamlReader& in);
};

/// A scored batch as advantages are made from it.
struct ScoredBatch {
  const Experience& experience;
  const ShapedReward& shaped;
  at::Tensor reward;  ///< [N] float64: score after clip and penalties, less the KL penalty of the
                      ///< whole sequence where that is in the reward
  const Groups& groups;
  at::Tensor mask;  ///< [R] tokens that train

  /// [N] to [R], in the dtype of log-probabilities.
  at::Tensor per_token(const at::Tensor& per_sequence) const;
};

/// A policy gradient with a clipped ratio and without a critic: score, penalties and KL to rewards,
/// rewards to advantages (the method's part), then policy_objective.
class PolicyGradient : public Algorithm {
 public:
  PolicyGradient(std::string name, PolicyGradientConfig config);

  std::string name() const override { return name_; }
  bool corrects_staleness() const final { return true; }
  ModelPlan models() const override;
  SamplePlan sample_plan() const override;
  UpdatePlan update_plan() const override;
  Batch build_batch(Experience& experience, const BatchContext& context) final;
  LossResult loss(const MicroBatch& batch) const final;
  void after_step() final;
  std::string state_json() const final;
  void load_state_json(const std::string& text) final;

 protected:
  /// [R]; what stands outside batch.mask is not looked at. `metrics` takes the method's own.
  virtual at::Tensor advantages(const ScoredBatch& batch, Metrics& metrics) = 0;
  /// Says once that prompts with a single sample have nothing to be compared with, and reports
  /// group/...
  void report_groups(const ScoredBatch& batch, Metrics& metrics);

 private:
  const std::string name_;
  const PolicyGradientConfig config_;
  const KlForm kl_form_;
  KlController controller_;
  int64_t max_tokens_;  ///< of this update
  double step_kl_ = 0;
  double step_sequences_ = 0;
  bool warned_ = false;
};

}  // namespace praetor
