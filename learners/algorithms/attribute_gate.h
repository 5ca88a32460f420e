#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "core/config/yaml_reader.h"
#include "learners/algorithm.h"
#include "learners/algorithms/bradley_terry.h"

namespace praetor {

/// Section `attribute_gate` of a stage.
struct AttributeGateConfig {
  int64_t batch_size = 32;  ///< pairs of one optimizer step, >= 1
  double beta = 1.0;        ///< of the difference of scores, > 0
  GatePlan gate;
  static AttributeGateConfig from_yaml(YamlReader in);
};

/// Bradley-Terry loss of gated scores (Wang et al. 2024, arXiv:2406.12845):
///
///   R = sum_a g_a r'_a;   loss = sum -log sigmoid(beta (R_chosen - R_rejected)) / pairs
///
/// @param values  [2P,A] r' of chosen, rejected, chosen, ...
/// @param gate    [2P,A] g; carries the gradient
/// @param pairs   of the whole optimizer step, every rank
/// @throws ShapeError; InvalidArgument when pairs <= 0
PairLoss gated_pair_loss(const at::Tensor& values,
                         const at::Tensor& gate,
                         double pairs,
                         double beta);

std::unique_ptr<Algorithm> make_attribute_gate(AttributeGateConfig config);

}  // namespace praetor
