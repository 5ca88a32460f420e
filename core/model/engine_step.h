#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/model/transformer.h"
#include "core/model/weight_kind.h"

/// A step of the engine over a model whose weights are of a kind of the engine's own: they are made
/// of the model's once, and again whenever these have changed.
namespace praetor {

/// @throws InvalidArgument for another kind than kFloat32 where the model is not float32 on the CPU
void check_weight_kind(const Transformer& model, WeightKind kind);

/// As Transformer::hidden_cached. @throws as check_weight_kind
at::Tensor hidden_cached(const Transformer& model,
                         const CachedRows& rows,
                         KvCache& cache,
                         const std::vector<int64_t>& want,
                         WeightKind kind);

/// As Transformer::logits. @throws as check_weight_kind
at::Tensor logits(const Transformer& model, const at::Tensor& hidden, WeightKind kind);

}  // namespace praetor
