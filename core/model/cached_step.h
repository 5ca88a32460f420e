#pragma once

#include <cstdint>
#include <vector>

#include "core/model/transformer_builder.h"

namespace praetor {

/// Transformer::hidden_cached in float32 on the CPU: the kernels and the order of Transformer's
/// forward pass and so its bits, but on buffers that a thread keeps from step to step, with what
/// several weights do to the same rows handed out together. `kind`: of the weights that are
/// multiplied by; these are the bits of kFloat32 alone.
at::Tensor cached_step(const TransformerBuilder::Blocks& blocks,
                       const ModelConfig& config,
                       const at::Tensor& embedding,
                       const TransformerBuilder::Places& places,
                       const CachedRows& rows,
                       KvCache& cache,
                       const std::vector<int64_t>& want,
                       WeightKind kind = WeightKind::kFloat32);

}  // namespace praetor
