#include "core/model/checkpointing.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "core/base/error.h"
#include "core/model/boundary.h"
#include "core/model/transformer_builder.h"

namespace praetor {
namespace {

using Run = std::function<at::Tensor(const at::Tensor&)>;

at::Tensor leaf_of(const at::Tensor& x) {
  return x.detach().requires_grad_(x.requires_grad());
}

class Recompute final : public torch::autograd::Node {
 public:
  Recompute(const at::Tensor& x, Run run) : x_(leaf_of(x)), run_(std::move(run)) {}

  std::string name() const override { return "Recompute"; }
  void release_variables() override {
    x_ = at::Tensor();
    run_ = nullptr;
  }

 protected:
  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    PRAETOR_CHECK(run_, "a layer's backward runs once");
    const at::Tensor x = leaf_of(x_);
    at::Tensor out;
    {
      const c10::AutoGradMode grad(true);
      out = run_(x);
    }
    if (gradients[0].defined()) torch::autograd::backward({out}, {gradients[0]});
    return {x.grad()};
  }

 private:
  at::Tensor x_;
  Run run_;
};

}  // namespace

const std::vector<std::string>& activation_checkpointing_names() {
  static const std::vector<std::string> kNames{"none", "selective", "block"};
  return kNames;
}

ActivationCheckpointing activation_checkpointing_of(const std::string& name) {
  const auto& names = activation_checkpointing_names();
  const auto found = std::ranges::find(names, name);
  PRAETOR_CHECK(found != names.end(), "activation checkpointing ", name);
  return static_cast<ActivationCheckpointing>(found - names.begin());
}

void set_activation_checkpointing(Transformer& model, ActivationCheckpointing what) {
  TransformerBuilder::set_checkpointing(model, what);
}

at::Tensor recomputed(const at::Tensor& x, Run run) {
  if (!c10::GradMode::is_enabled()) return run(x);
  at::Tensor out;
  {
    // With gradients, to see whether there are any; the graph goes at once.
    const at::Tensor with_graph = run(leaf_of(x));
    if (!with_graph.requires_grad()) return with_graph;
    out = with_graph.detach();
  }
  const std::shared_ptr<Recompute> node(new Recompute(x, std::move(run)),
                                        torch::autograd::deleteNode);
  node->set_next_edges(torch::autograd::collect_next_edges(x));
  torch::autograd::set_history(out, node);
  return out;
}

void drop_until_backward(const std::vector<at::Tensor>& values,
                         const std::vector<at::Tensor*>& outputs,
                         std::function<std::vector<at::Tensor>()> again) {
  const bool wanted =
      c10::GradMode::is_enabled() && std::ranges::any_of(outputs, [](const at::Tensor* output) {
        return output->defined() && output->requires_grad();
      });
  if (!wanted) return;
  std::vector<c10::Storage> storages;
  for (const at::Tensor& value : values) storages.push_back(value.storage());
  add_boundary(outputs, [storages, again = std::move(again)] {
    const c10::NoGradGuard no_grad;
    const std::vector<at::Tensor> made = again();
    for (size_t i = 0; i < storages.size(); ++i) {
      c10::StorageImpl* const to = storages[i].unsafeGetStorageImpl();
      c10::StorageImpl* const from = made[i].storage().unsafeGetStorageImpl();
      PRAETOR_CHECK(made[i].is_contiguous() && made[i].storage_offset() == 0,
                    "what is computed again has a storage of its own");
      to->set_nbytes(from->nbytes());
      to->set_data_ptr_noswap(from->set_data_ptr(at::DataPtr()));
    }
  });
  for (const c10::Storage& storage : storages) {
    c10::StorageImpl* const impl = storage.unsafeGetStorageImpl();
    impl->set_data_ptr_noswap(at::DataPtr(nullptr, impl->device()));
    impl->set_nbytes(size_t{0});
  }
}

}  // namespace praetor
