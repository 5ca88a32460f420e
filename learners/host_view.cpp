#include "learners/host_view.h"

#include <ATen/core/grad_mode.h>

#include "core/model/converted.h"
#include "core/model/kernels/packed_weight.h"
#include "core/model/model_weights.h"
#include "learners/sharding/resize_storage.h"

namespace praetor {
HostView::HostView(const Transformer& base, const LoraAdapter* adapter, const at::Tensor& head)
    : base_(base), adapter_(adapter), model_(host_shell(base)), there_(base.parameters()) {
  for (const NamedTensor& named : model_.parameters()) here_.push_back(named.tensor);
  if (!head.defined()) return;
  there_.push_back({"score.weight", head});
  here_.push_back(waiting_tensor(head.sizes().vec(), head.scalar_type()));
}

void HostView::fill(size_t i) const {
  const at::NoGradGuard no_grad;
  const NamedTensor& from = there_[i];
  // A language head that nobody uses stays in parts.
  if (from.tensor.storage().nbytes() == 0) return;
  const at::Tensor& to = here_[i];
  if (!filled(i)) resize_storage(to, static_cast<size_t>(to.numel()) * to.element_size());
  to.copy_(adapter_ ? adapter_->merged_weight(from) : from.tensor);
}

void HostView::release(size_t i) const {
  if (!filled(i)) return;
  ops::kernels::forget_packed_weights(here_[i]);
  resize_storage(here_[i], 0);
}

}  // namespace praetor
