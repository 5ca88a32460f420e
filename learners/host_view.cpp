#include "learners/host_view.h"

#include <ATen/core/grad_mode.h>

#include "core/model/converted.h"
#include "core/model/kernels/packed_weight.h"
#include "core/model/model_weights.h"
#include "learners/sharding/resize_storage.h"

namespace praetor {
HostView::HostView(const Transformer& base, const LoraAdapter* adapter, const at::Tensor& head)
    : base_(base), adapter_(adapter), model_(host_shell(base)), there_(base.parameters()) {
  if (adapter) adapter_here_ = adapter->moved(at::kCPU);
  for (const NamedTensor& named : model_.parameters()) here_.push_back(named.tensor);
  if (!head.defined()) return;
  there_.push_back({"score.weight", head});
  here_.push_back(waiting_tensor(head.sizes().vec(), head.scalar_type()));
}

void HostView::renew_adapter(int64_t version) const {
  if (!adapter_ || adapter_version_ == version) return;
  const at::NoGradGuard no_grad;
  const auto from = adapter_->parameters(), to = adapter_here_->parameters();
  for (size_t i = 0; i < to.size(); ++i) to[i].tensor.copy_(from[i].tensor);
  adapter_version_ = version;
}

void HostView::fill(size_t i) const {
  const at::NoGradGuard no_grad;
  const NamedTensor& from = there_[i];
  // A language head that nobody uses stays in parts.
  if (from.tensor.storage().nbytes() == 0) return;
  const at::Tensor& to = here_[i];
  if (!filled(i)) resize_storage(to, static_cast<size_t>(to.numel()) * to.element_size());
  to.copy_(from.tensor);
  if (!adapter_here_) return;
  const at::Tensor merged = adapter_here_->merged_weight({from.name, to});
  if (!merged.is_same(to)) to.copy_(merged);
}

void HostView::release(size_t i) const {
  if (!filled(i)) return;
  ops::kernels::forget_packed_weights(here_[i]);
  resize_storage(here_[i], 0);
}

}  // namespace praetor
