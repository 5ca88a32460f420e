#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/model/model_config.h"

namespace praetor {

/// Inverse frequencies of the head_dim/2 rotated pairs, computed in float32 in the order of
/// transformers' modeling_rope_utils (llama3: Llama 3.1; yarn: arXiv:2309.00071; dynamic:
/// NTK-aware). `dynamic` changes nothing up to max_positions, which is the longest sequence a model
/// takes here. @throws InvalidArgument for an unknown scaling.
std::vector<float> inverse_frequencies(const ModelConfig& config);

struct RopeTables {
  at::Tensor cos;  ///< [max_positions, head_dim/2]
  at::Tensor sin;  ///< the same
};
/// Each entry is computed on its own, so that a position's bits do not depend on the table's
/// length.
RopeTables rope_tables(const ModelConfig& config, at::ScalarType dtype);

}  // namespace praetor
