#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/model/lora.h"
#include "core/model/named_tensor.h"
#include "core/model/transformer.h"

namespace praetor {

/// A network on another device than the CPU, with its adapter merged if it has one, as others see
/// it: in the processor's memory, which its tensors have from `fill` to `release` alone. A and B,
/// which are small, have a copy there that stays.
///
/// Merged is here, of these copies, and never on the device, whose products round otherwise: so
/// engines of this process, results and whatever else reads a view have the bits of a worker that
/// merges what was published of base and adapter, and of a checkpoint's export.
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

  /// The adapter in the processor's memory, as the last renew_adapter found it; null: there is
  /// none.
  const LoraAdapter* adapter() const { return adapter_here_ ? &*adapter_here_ : nullptr; }
  /// Brings it over, unless `version` is the one that it has.
  void renew_adapter(int64_t version) const;

  /// Tensor `i` is as it is now, under adapter(); it has memory there. What was made of it before
  /// is old.
  void fill(size_t i) const;
  bool filled(size_t i) const { return here_[i].storage().nbytes() > 0; }
  void release(size_t i) const;

 private:
  const Transformer& base_;
  const LoraAdapter* adapter_;
  std::optional<LoraAdapter> adapter_here_;
  mutable int64_t adapter_version_ = -1;
  Transformer model_;
  std::vector<NamedTensor> there_;
  std::vector<at::Tensor> here_;
};

}  // namespace praetor
