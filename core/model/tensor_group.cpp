#include "core/model/tensor_group.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <memory>
#include <span>
#include <vector>

#include "core/base/error.h"
#include "core/collective/collective.h"

namespace praetor {
namespace {

using torch::autograd::variable_list;

/// Passes gradients on as they come.
class PassOn final : public torch::autograd::Node {
 public:
  std::string name() const override { return "TensorGroupSum"; }

 protected:
  variable_list apply(variable_list&& gradients) override { return std::move(gradients); }
};

/// Sums gradients over the ranks.
class SumGradient final : public torch::autograd::Node {
 public:
  explicit SumGradient(const TensorGroup& group) : group_(group) {}
  std::string name() const override { return "TensorGroupShared"; }

 protected:
  variable_list apply(variable_list&& gradients) override {
    if (!gradients[0].defined()) return std::move(gradients);
    at::Tensor sum = gradients[0].clone(at::MemoryFormat::Contiguous);
    group_.add_up(sum);
    return {sum};
  }

 private:
  const TensorGroup group_;
};

bool wants_gradient(const at::Tensor& x) {
  return at::GradMode::is_enabled() && x.requires_grad();
}

/// `out` has come from `x` through `node`.
void connect(const at::Tensor& x, const at::Tensor& out, torch::autograd::Node* node) {
  const std::shared_ptr<torch::autograd::Node> held(node, torch::autograd::deleteNode);
  held->set_next_edges(torch::autograd::collect_next_edges(x));
  torch::autograd::set_history(out, held);
}

template <typename T>
void sum(Collective& ranks, const at::Tensor& x) {
  ranks.all_reduce(std::span(x.mutable_data_ptr<T>(), static_cast<size_t>(x.numel())));
}

}  // namespace

TensorGroup::TensorGroup(Collective& ranks)
    : ranks_(ranks), rank_(ranks.rank()), size_(ranks.world_size()) {}

at::Tensor TensorGroup::summed(const at::Tensor& part) const {
  const at::Tensor out = part.detach().clone(at::MemoryFormat::Contiguous);
  add_up(out);
  if (wants_gradient(part)) connect(part, out, new PassOn);
  return out;
}

at::Tensor TensorGroup::shared(const at::Tensor& x) const {
  if (!x.defined() || !wants_gradient(x)) return x;
  const at::Tensor out = x.detach();
  connect(x, out, new SumGradient(*this));
  return out;
}

Collective* TensorGroup::way(const at::Tensor& x) const {
  return x.is_cpu() ? &ranks_ : ranks_.device();
}

void TensorGroup::add_up(const at::Tensor& x) const {
  PRAETOR_CHECK(x.is_contiguous(), "a sum over ranks of a tensor that is not contiguous");
  Collective* const ranks = way(x);
  if (!ranks) {
    const at::Tensor here = x.cpu();
    add_up(here);
    x.copy_(here);
    return;
  }
  switch (x.scalar_type()) {
    case at::kFloat:
      return sum<float>(*ranks, x);
    case at::kDouble:
      return sum<double>(*ranks, x);
    case at::kBFloat16:
      return sum<c10::BFloat16>(*ranks, x);
    default:
      throw InvalidArgument("tensor ranks do not sum ", c10::toString(x.scalar_type()));
  }
}

at::Tensor TensorGroup::all(const at::Tensor& x) const {
  Collective* const ranks = way(x);
  if (!ranks) return all(x.cpu()).to(x.device());
  const at::Tensor mine = x.detach().contiguous();
  std::vector<int64_t> sizes = mine.sizes().vec();
  sizes.insert(sizes.begin(), size_);
  const at::Tensor out = at::empty(sizes, mine.options().requires_grad(false));
  ranks->all_gather<std::byte>(
      {static_cast<const std::byte*>(mine.const_data_ptr()), mine.nbytes()},
      {static_cast<std::byte*>(out.mutable_data_ptr()), out.nbytes()});
  return out;
}

}  // namespace praetor
