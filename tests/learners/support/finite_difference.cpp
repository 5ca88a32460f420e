#include "tests/learners/support/finite_difference.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace praetor::testing {

double gradient_error(const std::function<at::Tensor(const at::Tensor&)>& f,
                      const at::Tensor& x,
                      double h) {
  const at::Tensor leaf = x.detach().clone().set_requires_grad(true);
  f(leaf).backward();
  const at::Tensor analytic = leaf.grad().contiguous();
  double worst = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    const at::Tensor up = x.detach().clone();
    const at::Tensor down = x.detach().clone();
    up.view(-1)[i] += h;
    down.view(-1)[i] -= h;
    const double difference = (f(up).item<double>() - f(down).item<double>()) / (2 * h);
    worst = std::max(worst, std::abs(difference - analytic.view(-1)[i].item<double>()));
  }
  return worst;
}

at::Tensor vec(std::vector<double> values) {
  return at::tensor(values, at::TensorOptions().dtype(at::kDouble));
}

at::Tensor mask_of(std::vector<int> values) {
  return at::tensor(values, at::TensorOptions().dtype(at::kInt)).to(at::kBool);
}

at::Tensor ids(std::vector<int64_t> values) {
  return at::tensor(values, at::TensorOptions().dtype(at::kLong));
}

}  // namespace praetor::testing
