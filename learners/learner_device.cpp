// Networks on another device than the CPU, and what others see of them.
#include <ATen/Context.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "core/base/error.h"
#include "core/base/str.h"
#include "learners/learner_impl.h"

namespace praetor {

void Learner::Impl::require_device() const {
  if (!on_device()) return;
  // In bfloat16 what float32 products take in has no more digits than a tensor core's: attention's
  // are as good by these, and several times faster. In float32 they would not be float32.
  if (config.device.is_cuda())
    at::globalContext().setAllowTF32CuBLAS(config.precision == at::kBFloat16);
  if (config.exact_rollouts)
    throw InvalidArgument("exact_rollouts: an engine's float32 is the CPU's, not that of device ",
                          config.device.str());
}

void Learner::Impl::add_host_views() {
  if (!on_device()) return;
  const auto view = [this](const Net& net, const at::Tensor& head = {}) {
    return std::make_unique<HostView>(whole(*net.model), net.adapter, head);
  };
  if (models.policy) policy_view = view(policy_net());
  if (plan.anchor) {
    companion_view = view(anchor_net());
  } else if (plan.reference) {
    companion_view = view(reference_net());
  }
  if (adapter && models.policy) {
    const bool shown = companion_view && !companion_view->adapter() &&
                       &companion_view->base() == &whole(*models.policy);
    if (!shown) base_view = view({models.policy.get(), nullptr});
  }
  if (!models.scalar) return;
  scalar_view = view(scalar_net(), models.scalar->head.weight);
  host_scalar = std::make_unique<ScalarModel>(
      ScalarModel{shared_copy(scalar_view->model()), {scalar_view->head()}, models.scalar->labels});
}

std::vector<const HostView*> Learner::Impl::views() const {
  std::vector<const HostView*> out;
  for (const auto* view : {&policy_view, &companion_view, &base_view, &scalar_view})
    if (*view) out.push_back(view->get());
  return out;
}

const HostView* Learner::Impl::view_of(const Transformer& model) const {
  if (host_scalar && &model == &host_scalar->backbone) return scalar_view.get();
  for (const HostView* view : views())
    if (&view->model() == &model) return view;
  return nullptr;
}

Adapted Learner::Impl::adapted_on_host(const Transformer& model) const {
  const HostView* const view = view_of(model);
  if (!view || !view->adapter() || view == scalar_view.get()) return {};
  view->renew_adapter(adapter_version);
  return {&(base_view ? base_view : companion_view)->model(), view->adapter()};
}

void Learner::Impl::over_tensors(const HostView& view,
                                 bool works,
                                 bool on_every_rank,
                                 const std::function<void(size_t)>& work) const {
  const std::vector<NamedTensor>& all = view.there();
  if (works) view.renew_adapter(adapter_version);
  SplitModel* const split = split_of(view.base());
  // Of a network that is split the ranks that share the layers with one that works take part in
  // bringing them together; so do in a unit's those of the same copy.
  const bool helps = on_every_rank || data->rank() == 0;
  const bool gathers = on_every_rank || sharding_ranks().copy() == 0;
  const auto held = [&](size_t i) -> const at::Tensor& {
    const bool part = split && i < split->part().parameters().size();
    return part ? split->part().parameters()[i].tensor : all[i].tensor;
  };
  std::vector<bool> done(all.size(), !helps);
  std::exception_ptr failure;  // the other ranks go on with what is left
  const auto one = [&](size_t i) {
    if (done[i]) return;
    done[i] = true;
    const bool in_parts = split && !held(i).is_same(all[i].tensor);
    if (in_parts) split->gather(i, works);
    try {
      if (works && !failure) work(i);
    } catch (...) {
      failure = std::current_exception();
    }
    if (in_parts) split->release(i);
  };
  const ShardedNetwork* const network = sharding_of(split ? split->part() : view.base());
  if (network && network->is_cut() && gathers) {
    for (FlatUnit* unit : network->units()) {
      unit->gather(helps);
      for (const NamedTensor& parameter : unit->parameters()) {
        for (size_t i = 0; i < all.size(); ++i)
          if (parameter.tensor.is_same(held(i))) one(i);
      }
      unit->release();
    }
  }
  for (size_t i = 0; i < all.size(); ++i) one(i);
  if (failure) std::rethrow_exception(failure);
}

std::shared_ptr<const void> Learner::Impl::gather_to_host(
    const std::vector<const Transformer*>& wanted, bool on_every_rank) const {
  const bool keep = on_every_rank || ranks->rank() == 0;
  std::vector<const HostView*> views;
  for (const Transformer* model : wanted) {
    const HostView* const view = model ? view_of(*model) : nullptr;
    if (!view || std::ranges::find(views, view) != views.end()) continue;
    views.push_back(view);
    over_tensors(*view, keep, on_every_rank, [&](size_t i) { view->fill(i); });
  }
  return {static_cast<const void*>(this), [views](const void*) {
            for (const HostView* view : views) {
              for (size_t i = 0; i < view->here().size(); ++i) view->release(i);
            }
          }};
}

void Learner::Impl::visit_on_host(
    const std::vector<NamedTensor>& tensors,
    const std::function<void(std::span<const NamedTensor>)>& visit) const {
  const bool reads = ranks->rank() == 0;
  for (const HostView* view : views()) {
    const auto wanted = [&](const at::Tensor& here) {
      return std::ranges::find_if(tensors,
                                  [&](const NamedTensor& one) { return one.tensor.is_same(here); });
    };
    const bool any = std::ranges::any_of(
        view->here(), [&](const at::Tensor& here) { return wanted(here) != tensors.end(); });
    if (!any) continue;
    over_tensors(*view, reads, false, [&](size_t i) {
      const auto one = wanted(view->here()[i]);
      if (one == tensors.end()) return;
      const bool kept = view->filled(i);
      view->fill(i);
      visit(std::span(&*one, 1));
      if (!kept) view->release(i);
    });
  }
}

const AttributeGate& Learner::Impl::host_gate() const {
  if (!on_device()) return *models.gate;
  gate_here = models.gate->moved(at::kCPU);
  return gate_here;
}

}  // namespace praetor
