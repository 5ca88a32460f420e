#pragma once

#include <memory>

#include "core/config/yaml_reader.h"
#include "learners/algorithm.h"
#include "learners/algorithms/attribute_model.h"

namespace praetor {

/// Section `attribute_probe` of a stage.
struct AttributeProbeConfig {
  AttributeWeights attributes = AttributeModelConfig{}.attributes;
  ProbePlan probe;
  static AttributeProbeConfig from_yaml(YamlReader in);
};

/// The first stage of a gated multi-objective reward model (ArmoRM, Wang et al. 2024,
/// arXiv:2406.12845): an attribute model whose backbone is frozen, and whose head is not trained
/// but solved for, each attribute by itself (learners/algorithms/ridge.h):
///
///   w_a = argmin sum over rows labelled with a of (w h - label_a)^2 + alpha_a |w|^2
///
/// h is the last token's hidden state. One step takes every row.
std::unique_ptr<Algorithm> make_attribute_probe(AttributeProbeConfig config);

}  // namespace praetor
