#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

#include "core/model/lora.h"
#include "core/model/named_tensor.h"
#include "core/model/transformer.h"

namespace praetor {

/// A network on another device than the CPU, with its adapter merged if it has one, as others see
/// it: in the processor's memory, which its tensors have from `fill` to `release` alone.
class HostView {
 public:
  /// `base` and `adapter`, which may be null, are borrowed.
  /// @param head  scalar head beside it, or undefined
  HostView(const Transformer& base, const LoraAdapter* adapter, const at::Tensor& head = {});

  const Transformer& base() const { return base_; }
  const Transformer& model() const { return model_; }
  const at::Tensor& head() const { return here_.back(); }

  /// What it is made of: the base's parameters in their order, then the head.
  const std::vector<NamedTensor>& there() const { return there_; }
  /// The same in the processor's memory.
  const std::vector<at::Tensor>& here() const { return here_; }

  /// Tensor `i` is as it is now; it has memory there. What was made of it before is old.
  void fill(size_t i) const;
  bool filled(size_t i) const { return here_[i].storage().nbytes() > 0; }
  void release(size_t i) const;

 private:
  const Transformer& base_;
  const LoraAdapter* adapter_;
  Transformer model_;
  std::vector<NamedTensor> there_;
  std::vector<at::Tensor> here_;
};

}  // namespace praetor
