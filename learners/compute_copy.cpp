#include "learners/compute_copy.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <memory>

#include "core/base/error.h"
#include "core/model/converted.h"

namespace praetor {
namespace {

/// Moves the gradient of a copy to its master.
class ToMaster final : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit ToMaster(at::Tensor master) : master_(std::move(master)) {}

  void operator()(const torch::autograd::Variable& copy) override {
    const at::NoGradGuard no_grad;
    const at::Tensor gradient = copy.grad().to(master_.scalar_type());
    copy.mutable_grad() = at::Tensor();
    at::Tensor& sum = master_.mutable_grad();
    if (sum.defined()) {
      sum.add_(gradient);
    } else {
      sum = gradient;
    }
  }

 private:
  at::Tensor master_;
};

}  // namespace

ComputeCopy::ComputeCopy(const Transformer& masters,
                         bool language_head,
                         const at::Tensor& scalar_head)
    : masters_(masters), network_(converted(masters, at::kBFloat16, language_head)) {
  const auto& from = masters.parameters();
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i].tensor.scalar_type() != at::kFloat) {
      throw InvalidArgument("precision bfloat16: ",
                            from[i].name,
                            " is ",
                            c10::toString(from[i].tensor.scalar_type()),
                            "; the weights that are stepped are float32");
    }
    const at::Tensor& copy = network_.parameters()[i].tensor;
    if (copy.scalar_type() == at::kBFloat16) pairs_.push_back({from[i].tensor, copy});
  }
  if (!scalar_head.defined()) return;
  scalar_head_ = scalar_head.detach().to(at::kBFloat16);
  pairs_.push_back({scalar_head, scalar_head_});
}

void ComputeCopy::train() const {
  for (const Pair& pair : pairs_) {
    if (!pair.master.requires_grad()) continue;
    pair.copy.set_requires_grad(true);
    torch::autograd::impl::set_post_acc_grad_hooks(pair.copy,
                                                   std::make_unique<ToMaster>(pair.master));
  }
}

void ComputeCopy::refresh() const {
  const at::NoGradGuard no_grad;
  for (const Pair& pair : pairs_) pair.copy.copy_(pair.master);
}

}  // namespace praetor
