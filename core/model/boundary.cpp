#include "core/model/boundary.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "core/base/error.h"

namespace praetor {
namespace {

class Boundary final : public torch::autograd::Node {
 public:
  explicit Boundary(std::function<void()> on_backward) : on_backward_(std::move(on_backward)) {}

  std::string name() const override { return "Boundary"; }
  void release_variables() override { on_backward_ = nullptr; }

 protected:
  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    PRAETOR_CHECK(on_backward_, "a backward comes by once");
    on_backward_();
    return std::move(gradients);
  }

 private:
  std::function<void()> on_backward_;
};

}  // namespace

void add_boundary(const std::vector<at::Tensor*>& values, std::function<void()> on_backward) {
  std::vector<at::Tensor> before;
  std::vector<at::Tensor*> through;
  for (at::Tensor* value : values) {
    if (!value->defined() || !value->requires_grad()) continue;
    through.push_back(value);
    before.push_back(*value);
  }
  if (!at::GradMode::is_enabled() || through.empty()) return;
  const std::shared_ptr<Boundary> node(new Boundary(std::move(on_backward)),
                                       torch::autograd::deleteNode);
  node->set_next_edges(torch::autograd::collect_next_edges(before));
  for (at::Tensor* value : through) {
    at::Tensor after = value->detach();
    torch::autograd::set_history(after, node);
    *value = after;
  }
}

}  // namespace praetor
