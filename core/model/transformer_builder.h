#pragma once

#include <vector>

#include "core/model/checkpointing.h"
#include "core/model/forward_hooks.h"
#include "core/model/lora.h"
#include "core/model/tensor_group.h"
#include "core/model/transformer.h"
#include "core/model/weight_kind.h"

namespace praetor {

/// Makes a Transformer of tensors that exist already, and reaches into one; for core's sources.
struct TransformerBuilder {
  using Blocks = Transformer::Blocks;
  using Places = Transformer::Places;
  /// `parameters` as parameter_layout(config, with_head) orders and shapes them, all of one dtype,
  /// owned by the result. With a `group`, borrowed, they are one rank's parts (tensor_split.h).
  static Transformer assemble(ModelConfig config,
                              std::vector<NamedTensor> parameters,
                              const TensorGroup* group = nullptr);
  /// The ranks that `model` is split over; null: it is whole.
  static const TensorGroup* group_of(const Transformer& model);
  /// As praetor::set_hooks.
  static void set_hooks(Transformer& model, ForwardHooks* hooks);
  /// As praetor::set_activation_checkpointing.
  static void set_checkpointing(Transformer& model, ActivationCheckpointing what);
  /// As praetor::hidden_cached, of a kind that fits the model.
  static at::Tensor hidden_cached(const Transformer& model,
                                  const CachedRows& rows,
                                  KvCache& cache,
                                  const std::vector<int64_t>& want,
                                  WeightKind kind);
  /// For AdapterScope. @return the one before
  static const LoraAdapter* set_adapter(const Transformer& model, const LoraAdapter* adapter);
};

/// Values drawn from normal(0, deviation), in the order of the elements.
at::Tensor normal_tensor(const std::vector<int64_t>& shape,
                         double deviation,
                         RandomStream& stream,
                         at::ScalarType dtype);

}  // namespace praetor
