#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"
#include "learners/optim/schedule.h"

namespace praetor {

namespace cuda {
class Device;
}

/// Other settings for some parameters of an optimizer.
struct OptimizerGroup {
  std::string match;                  ///< what the parameter's name contains
  double learning_rate_factor = 1.0;  ///< times the learning rate, >= 0
  double weight_decay = 0.0;          ///< >= 0, in place of the section's, and of no_decay
};

/// "norm" and "bias": what does not decay unless a job says otherwise.
std::vector<std::string> norms_and_biases() noexcept;

/// Section `optimizer` of a job. Each kind reads the keys it has a use for.
struct OptimizerConfig {
  std::string kind = "adamw";   ///< adamw, sgd, adafactor
  double learning_rate = 1e-6;  ///< > 0, at the top of the schedule
  double beta1 = 0.9;           ///< [0, 1)
  double beta2 = 0.999;         ///< [0, 1); adamw
  double eps = 1e-8;            ///< > 0; adamw
  double weight_decay = 0.0;    ///< >= 0
  double max_grad_norm = 1.0;   ///< global norm of the gradient; 0: no clipping
  Schedule schedule{};  ///< keys schedule, warmup_steps, min_ratio; total_steps is the stage's

  /// Parameters whose name contains one of these do not decay.
  std::vector<std::string> no_decay = norms_and_biases();
  std::vector<OptimizerGroup> groups;  ///< the first that matches a parameter counts
  /// Of states that are as large as the parameters: kFloat, or kBFloat16 with stochastic rounding.
  c10::ScalarType state_dtype = c10::kFloat;
  /// Of a learner on a GPU: states stay in the processor's memory, and the processor steps.
  bool offload = false;

  double momentum = 0.0;  ///< [0, 1); sgd
  bool nesterov = false;  ///< sgd

  double eps_square = 1e-30;     ///< >= 0, first of adafactor's `eps`: added to squared gradients
  double eps_scale = 1e-3;       ///< >= 0, second of `eps`: least scale of a parameter
  double clip_threshold = 1.0;   ///< > 0, root mean square of an update; adafactor
  double decay_rate = -0.8;      ///< [-1, 0): beta2 of step t is 1 - t^decay_rate; adafactor
  bool scale_parameter = false;  ///< steps are times the parameter's root mean square; adafactor
  bool relative_step = false;    ///< min(0.01, 1 / sqrt(t)) is the learning rate; adafactor

  uint64_t seed = 0;   ///< the job's; not a key
  uint32_t stage = 0;  ///< index of the stage in the job; not a key
  /// Of weights on a GPU: what steps them there, in the order of LibTorch's work
  /// (cuda::Stream::kCompute). Null: LibTorch's operators, to the same bits. Adamw; not a key.
  std::shared_ptr<cuda::Device> kernels;

  static OptimizerConfig from_yaml(YamlReader in) { return from_yaml(in, OptimizerConfig{}); }
  /// `defaults` stand for absent keys.
  static OptimizerConfig from_yaml(YamlReader in, OptimizerConfig defaults);

  /// Learning rate of optimizer step `step` (1 = the first), which is part of update `update`.
  double rate(int64_t update, int64_t step) const;
  /// Of a parameter; null: none matches.
  const OptimizerGroup* group_of(const std::string& parameter) const;
  double decay_of(const std::string& parameter) const;
};

}  // namespace praetor
