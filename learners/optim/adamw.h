#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"
#include "core/model/transformer.h"
#include "learners/optim/schedule.h"

namespace praetor {

/// Section `optimizer` of a job.
struct OptimizerConfig {
  double learning_rate = 1e-6;  ///< > 0, at the top of the schedule
  double beta1 = 0.9;           ///< [0, 1)
  double beta2 = 0.999;         ///< [0, 1)
  double eps = 1e-8;            ///< > 0
  double weight_decay = 0.0;    ///< >= 0; norm weights and biases are never decayed
  double max_grad_norm = 1.0;   ///< global norm of the gradient; 0: no clipping
  Schedule schedule{};  ///< keys schedule, warmup_steps, min_ratio; total_steps is the stage's
  static OptimizerConfig from_yaml(YamlReader in) { return from_yaml(in, OptimizerConfig{}); }
  /// `defaults` stand for absent keys.
  static OptimizerConfig from_yaml(YamlReader in, OptimizerConfig defaults);
};

/// Adam with decoupled weight decay (arXiv:1711.05101), the arithmetic of torch.optim.AdamW.
///
///   w <- w (1 - lr decay);  m <- m + (1 - b1)(g - m);  v <- b2 v + (1 - b2) g^2
///   w <- w - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
///
/// One pass over each tensor. Weights and moments are float32 (float64 for float64 weights), on the
/// CPU. A tensor without a gradient keeps its weight and its moments. The version counter of each
/// changed tensor moves, so that caches made from it are made anew. Not synchronised.
class AdamW {
 public:
  /// The tensors of `parameters` are shared with their model: a step writes to them. They may be
  /// pieces of parameters (NAME@BEGIN-END, sharding/flat_layout.h), which decay as these do.
  /// @throws InvalidArgument naming a tensor that is not contiguous float32 or float64 on the CPU,
  /// or a name given twice
  AdamW(std::vector<NamedTensor> parameters, OptimizerConfig config);

  /// One step with the gradients the parameters hold.
  /// @param learning_rate  of this step, schedule applied
  void step(double learning_rate);
  /// Drops the gradients.
  void zero_grad();

  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  const OptimizerConfig& config() const { return config_; }
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }
  /// "exp_avg/<name>" and "exp_avg_sq/<name>" for every parameter; the tensors themselves, not
  /// copies.
  std::vector<NamedTensor> state() const;

 private:
  std::vector<NamedTensor> parameters_;
  OptimizerConfig config_;
  std::vector<at::Tensor> exp_avg_;
  std::vector<at::Tensor> exp_avg_sq_;
  std::vector<bool> decayed_;
  int64_t steps_ = 0;
};

/// True for the weights that decay: all but norms ("norm" in the name) and biases.
bool is_decayed(const std::string& name);

}  // namespace praetor
