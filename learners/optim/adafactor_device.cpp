// Adafactor's sums and updates of pieces on another device than the CPU.
#include <ATen/ATen.h>

#include <algorithm>

#include "learners/optim/adafactor.h"
#include "learners/optim/elements.h"
#include "learners/optim/rounding.h"

namespace praetor {
namespace {

/// Where elements [begin, end) of a flattened matrix lie in its rows.
struct Rows {
  int64_t first, count;  ///< rows that have some of them
  int64_t before;        ///< elements of the first row before `begin`
  Rows(int64_t begin, int64_t end, int64_t columns)
      : first(begin / columns),
        count((end - 1) / columns - first + 1),
        before(begin - first * columns) {}
};

at::Tensor square_sum(const at::Tensor& x) {
  return x.to(at::kDouble).square().sum();
}

at::Tensor to_device(const std::vector<double>& values,
                     int64_t begin,
                     int64_t count,
                     const at::Tensor& like) {
  const std::vector<double> some(values.begin() + begin, values.begin() + begin + count);
  return at::tensor(some, at::kDouble).to(like.options());
}

void add(const at::Tensor& from, std::vector<double>& to, int64_t begin) {
  const at::Tensor host = from.cpu().contiguous();
  const double* values = host.const_data_ptr<double>();
  for (int64_t i = 0; i < host.numel(); ++i) to[static_cast<size_t>(begin + i)] += values[i];
}

}  // namespace

void Adafactor::add_device_sums(std::vector<Sums>& sums) const {
  for (const Piece& piece : pieces_) {
    if (!piece.weight.grad().defined() || piece.weight.is_cpu()) continue;
    const Whole& whole = wholes_[piece.whole];
    Sums& to = sums[piece.whole];
    const at::Tensor grad = piece.weight.grad().contiguous();
    to.elements += static_cast<double>(piece.weight.numel());
    for (int64_t begin = 0; begin < piece.weight.numel(); begin += kDeviceElements) {
      const int64_t end = std::min(begin + kDeviceElements, piece.weight.numel());
      if (config().scale_parameter)
        to.weights += square_sum(elements_of(piece.weight, begin, end)).item<double>();
      if (whole.sizes.size() != 2) continue;
      const int64_t columns = whole.sizes[1];
      const Rows rows(piece.begin + begin, piece.begin + end, columns);
      const at::Tensor g = elements_of(grad, begin, end);
      // What belongs to other ranks counts as zeros.
      const at::Tensor squares = at::zeros({rows.count * columns}, g.options().dtype(at::kDouble));
      squares.narrow(0, rows.before, end - begin).copy_((g * g).add_(config().eps_square));
      add(squares.view({rows.count, columns}).sum(1), to.rows, rows.first);
      add(squares.view({rows.count, columns}).sum(0), to.columns, 0);
    }
  }
}

void Adafactor::add_device_updates(const std::vector<Factors>& factors,
                                   double beta2,
                                   std::vector<Sums>& sums) {
  for (const Piece& piece : pieces_) {
    if (!piece.weight.grad().defined() || piece.weight.is_cpu()) continue;
    const Whole& whole = wholes_[piece.whole];
    const at::Tensor grad = piece.weight.grad().contiguous();
    for (int64_t begin = 0; begin < piece.weight.numel(); begin += kDeviceElements) {
      const int64_t end = std::min(begin + kDeviceElements, piece.weight.numel());
      if (whole.sizes.size() != 2) {
        const at::Tensor g = elements_of(grad, begin, end);
        elements_of(piece.states.back(), begin, end)
            .mul_(beta2)
            .add_((g * g).add_(config().eps_square).mul_(1 - beta2));
      }
      const at::Tensor u = device_normalised(whole, piece, factors[piece.whole], grad, begin, end);
      sums[piece.whole].updates += square_sum(u).item<double>();
    }
  }
}

at::Tensor Adafactor::device_normalised(const Whole& whole,
                                        const Piece& piece,
                                        const Factors& by,
                                        const at::Tensor& gradient,
                                        int64_t begin,
                                        int64_t end) {
  const at::Tensor g = elements_of(gradient, begin, end);
  if (whole.sizes.size() != 2)
    return elements_of(piece.states.back(), begin, end).sqrt().reciprocal_().mul_(g);
  const int64_t columns = whole.sizes[1];
  const Rows rows(piece.begin + begin, piece.begin + end, columns);
  const at::Tensor r = to_device(by.rows, rows.first, rows.count, g);
  const at::Tensor c = to_device(by.columns, 0, columns, g);
  const at::Tensor factor = (r.unsqueeze(1) * c.unsqueeze(0)).view(-1);
  return factor.narrow(0, rows.before, end - begin) * g;
}

at::Tensor Adafactor::device_averaged(
    const Whole& whole, const Piece& piece, const at::Tensor& u, int64_t begin, int64_t end) {
  if (!(config().beta1 > 0)) return u;
  const at::Tensor kept = elements_of(piece.states[0], begin, end);
  const at::Tensor mean = kept.to(u.scalar_type());
  mean.mul_(config().beta1).add_(u * (1 - config().beta1));
  if (!mean.is_same(kept)) {
    const RoundingBits bits =
        rounding_bits(whole.key, steps(), piece.begin + begin, end - begin, u.device());
    kept.copy_(round_stochastically(mean, bits.low));
  }
  return mean;
}

}  // namespace praetor
