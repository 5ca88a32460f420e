#include "learners/advantage/gae.h"

#include <ATen/ATen.h>

#include "core/base/error.h"
#include "learners/algorithms/checks.h"

namespace praetor {

Gae gae(const at::Tensor& reward,
        const at::Tensor& value,
        const at::Tensor& sequence_of,
        GaeConfig config,
        const at::Tensor& mask,
        const at::Tensor& bootstrap) {
  require_same_shape("gae", reward, {{"value", value}, {"sequence_of", sequence_of}});
  if (mask.defined()) require_same_shape("gae", reward, {{"mask", mask}});
  require_ascending("gae", sequence_of);

  const int64_t count = reward.numel();
  const at::Tensor r = reward.detach().to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor v = value.detach().to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor s = sequence_of.to(at::kCPU).contiguous();
  const at::Tensor m = mask.defined() ? mask.to(at::kCPU).contiguous() : at::Tensor();
  const at::Tensor b = bootstrap.defined()
                           ? bootstrap.detach().to(at::kCPU, at::kDouble).contiguous()
                           : at::Tensor();
  at::Tensor advantage = at::zeros({count}, r.options());
  at::Tensor returns = at::zeros({count}, r.options());

  const double* rewards = r.const_data_ptr<double>();
  const double* values = v.const_data_ptr<double>();
  const int64_t* sequence = s.const_data_ptr<int64_t>();
  const bool* counts = m.defined() ? m.const_data_ptr<bool>() : nullptr;
  if (b.defined() && count > 0 && sequence[count - 1] >= b.numel()) {
    throw ShapeError(
        "gae: bootstrap has ", b.numel(), " values, but sequence_of names ", sequence[count - 1]);
  }
  double* out = advantage.mutable_data_ptr<double>();
  double* target = returns.mutable_data_ptr<double>();

  double next_value = 0;
  double next_advantage = 0;
  for (int64_t t = count - 1; t >= 0; --t) {
    if (t == count - 1 || sequence[t] != sequence[t + 1]) {
      next_value = b.defined() ? b.const_data_ptr<double>()[sequence[t]] : 0;
      next_advantage = 0;
    }
    if (counts && !counts[t]) continue;
    const double delta = rewards[t] + config.gamma * next_value - values[t];
    next_advantage = delta + config.gamma * config.lambda * next_advantage;
    next_value = values[t];
    out[t] = next_advantage;
    target[t] = next_advantage + values[t];
  }
  return {advantage.to(reward.options()), returns.to(reward.options())};
}

}  // namespace praetor
