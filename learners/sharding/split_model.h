#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/model/model_weights.h"
#include "core/model/tensor_group.h"
#include "core/model/tensor_split.h"
#include "core/model/transformer.h"

namespace praetor {

/// A network of which this rank computes a part (core/model/tensor_split.h), and the whole of it as
/// others see it: its tensors have no memory until they are brought together, but for those that
/// every rank has, which are the part's own.
class SplitModel {
 public:
  /// `model`, whole before, becomes this rank's part; what it was goes on as whole(). Both are
  /// borrowed. @throws InvalidArgument as split_model
  SplitModel(Transformer& model, const TensorGroup& group);

  Transformer& part() const { return part_; }
  const Transformer& whole() const { return whole_; }
  /// Of part().parameters()[i] in whole().parameters()[i].
  const TensorPart& place(size_t i) const { return places_[i]; }

  /// Brings parameter `i` of whole() together while the part's memory is there; all ranks of the
  /// group. `keep`: this one wants it.
  void gather(size_t i, bool keep);
  void release(size_t i);

 private:
  Transformer& part_;
  const TensorGroup& group_;
  Transformer whole_;
  std::vector<TensorPart> places_;
};

/// The parts of `whole` that this rank has of a model that is split, for its shell split alike.
/// They are read tensor by tensor: more than the parts and one of the folder's tensors is never in
/// memory.
/// @param group  borrowed
/// @param seen   told of every parameter, whole, while it is there
std::shared_ptr<const ModelWeights> part_weights(std::shared_ptr<const ModelWeights> whole,
                                                 const TensorGroup& group,
                                                 std::function<void(const NamedTensor&)> seen);

}  // namespace praetor
