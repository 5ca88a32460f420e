#include "learners/optim/adafactor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <span>
#include <utility>

#include "core/base/error.h"
#include "learners/optim/elements.h"
#include "learners/optim/rounding.h"

namespace praetor {
namespace {

/// Elements whose sums are one task, and one summand of the total: the total does not depend on the
/// number of threads.
constexpr int64_t kSumElements = int64_t{1} << 18;

constexpr int64_t kBlock = 512;  ///< elements whose updates are at hand at once

/// Some elements of an owned piece with a gradient.
struct Block {
  size_t piece = 0;
  int64_t begin = 0, end = 0;  ///< within the piece
};

template <typename Pieces>
std::vector<Block> blocks_of(const Pieces& pieces) {
  std::vector<Block> out;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (!pieces[i].weight.grad().defined() || !pieces[i].weight.is_cpu()) continue;
    for (int64_t begin = 0; begin < pieces[i].weight.numel(); begin += kSumElements)
      out.push_back({i, begin, std::min(begin + kSumElements, pieces[i].weight.numel())});
  }
  return out;
}

void over_blocks(const std::vector<Block>& blocks, const std::function<void(size_t)>& task) {
  ops::kernels::run_tasks(
      ops::kernels::threads_for(static_cast<int64_t>(blocks.size()) * kSumElements),
      static_cast<int64_t>(blocks.size()),
      [&](int64_t i) { task(static_cast<size_t>(i)); });
}

/// Calls part(row, from, to, column) for [begin, end) of a flattened matrix, row by row: [from, to)
/// of them lie in `row`, from `column` on.
template <typename Part>
void over_matrix_rows(int64_t begin, int64_t end, int64_t columns, const Part& part) {
  for (int64_t at = begin; at < end;) {
    const int64_t row = at / columns;
    const int64_t to = std::min(end, (row + 1) * columns);
    part(row, at, to, at - row * columns);
    at = to;
  }
}

template <typename Work>
void with_type(const at::Tensor& weight, const Work& work) {
  if (weight.scalar_type() == at::kDouble) {
    work(double{});
  } else {
    work(float{});
  }
}

bool is_matrix(const std::vector<int64_t>& sizes) {
  return sizes.size() == 2;
}

}  // namespace

Adafactor::Adafactor(OptimizerSetup setup, OptimizerConfig config)
    : Optimizer(std::move(setup), std::move(config)) {
  for (const Whole& whole : wholes_) {
    if (whole.sizes.size() > 2)
      throw InvalidArgument("adafactor: ",
                            whole.name,
                            " has ",
                            whole.sizes.size(),
                            " dimensions; it factors matrices, and takes vectors as they are");
  }
}

std::vector<Adafactor::Sums> Adafactor::gradient_sums() const {
  const std::vector<Block> blocks = blocks_of(pieces_);
  std::vector<Sums> parts(blocks.size());
  over_blocks(blocks, [&](size_t b) {
    const Block& block = blocks[b];
    const Piece& piece = pieces_[block.piece];
    const Whole& whole = wholes_[piece.whole];
    const at::Tensor grad = piece.weight.grad().contiguous();
    Sums& out = parts[b];
    out.elements = static_cast<double>(block.end - block.begin);
    with_type(piece.weight, [&](auto type) {
      using T = decltype(type);
      if (config().scale_parameter) {
        const T* w = piece.weight.const_data_ptr<T>();
        for (int64_t i = block.begin; i < block.end; ++i)
          out.weights += static_cast<double>(w[i]) * static_cast<double>(w[i]);
      }
      if (!is_matrix(whole.sizes)) return;
      const int64_t columns = whole.sizes[1];
      const int64_t first = piece.begin + block.begin, last = piece.begin + block.end;
      const int64_t row_begin = first / columns;
      out.rows.assign(static_cast<size_t>((last - 1) / columns - row_begin + 1), 0);
      out.columns.assign(static_cast<size_t>(columns), 0);
      const T* g = grad.const_data_ptr<T>();
      over_matrix_rows(first, last, columns, [&](int64_t row, int64_t from, int64_t to, int64_t c) {
        double sum = 0;
        double* column = out.columns.data() + c;
        for (int64_t i = from; i < to; ++i, ++column) {
          const T one = g[i - piece.begin];
          const double square =
              static_cast<double>(one * one + static_cast<T>(config().eps_square));
          sum += square;
          *column += square;
        }
        out.rows[static_cast<size_t>(row - row_begin)] += sum;
      });
    });
  });
  std::vector<Sums> out(wholes_.size());
  for (size_t w = 0; w < wholes_.size(); ++w) {
    if (!is_matrix(wholes_[w].sizes)) continue;
    out[w].rows.assign(static_cast<size_t>(wholes_[w].sizes[0]), 0);
    out[w].columns.assign(static_cast<size_t>(wholes_[w].sizes[1]), 0);
  }
  for (size_t b = 0; b < blocks.size(); ++b) {
    const Piece& piece = pieces_[blocks[b].piece];
    Sums& to = out[piece.whole];
    const Sums& from = parts[b];
    to.elements += from.elements;
    to.weights += from.weights;
    if (from.columns.empty()) continue;
    const auto row =
        static_cast<size_t>((piece.begin + blocks[b].begin) / wholes_[piece.whole].sizes[1]);
    for (size_t i = 0; i < from.rows.size(); ++i) to.rows[row + i] += from.rows[i];
    for (size_t i = 0; i < from.columns.size(); ++i) to.columns[i] += from.columns[i];
  }
  add_device_sums(out);
  return out;
}

void Adafactor::add_over_ranks(std::vector<Sums>& sums) const {
  if (!ranks_ || ranks_->world_size() == 1) return;
  std::vector<double> all;
  for (const Sums& one : sums) {
    all.insert(all.end(), {one.elements, one.weights});
    all.insert(all.end(), one.rows.begin(), one.rows.end());
    all.insert(all.end(), one.columns.begin(), one.columns.end());
  }
  ranks_->all_reduce(std::span<double>(all));
  auto from = all.cbegin();
  const auto take = [&](std::vector<double>& to) {
    std::copy_n(from, to.size(), to.begin());
    from += static_cast<std::ptrdiff_t>(to.size());
  };
  for (Sums& one : sums) {
    one.elements = *from++;
    one.weights = *from++;
    take(one.rows);
    take(one.columns);
  }
}

Adafactor::Factors Adafactor::factors_of(Whole& whole, const Sums& sums, double beta2) const {
  Factors out;
  const at::Tensor *row = nullptr, *column = nullptr;
  for (size_t k = 0; k < whole.specs.size(); ++k) {
    if (whole.specs[k].elementwise) continue;
    (row ? column : row) = &whole.states[k];
  }
  with_type(*row, [&](auto type) {
    using T = decltype(type);
    const T kept = static_cast<T>(beta2), fresh = static_cast<T>(1 - beta2);
    const auto move = [&](const at::Tensor& state, const std::vector<double>& total, int64_t over) {
      T* to = state.mutable_data_ptr<T>();
      double sum = 0;
      for (size_t i = 0; i < total.size(); ++i) {
        to[i] = kept * to[i] + fresh * static_cast<T>(total[i] / static_cast<double>(over));
        sum += static_cast<double>(to[i]);
      }
      return sum / static_cast<double>(total.size());
    };
    const T mean = static_cast<T>(move(*row, sums.rows, whole.sizes[1]));
    move(*column, sums.columns, whole.sizes[0]);
    for (size_t i = 0; i < sums.rows.size(); ++i)
      out.rows.push_back(static_cast<double>(T{1} / std::sqrt(row->const_data_ptr<T>()[i] / mean)));
    for (size_t i = 0; i < sums.columns.size(); ++i)
      out.columns.push_back(static_cast<double>(T{1} / std::sqrt(column->const_data_ptr<T>()[i])));
  });
  return out;
}

void Adafactor::add_updates(const std::vector<Factors>& factors,
                            double beta2,
                            std::vector<Sums>& sums) {
  const std::vector<Block> blocks = blocks_of(pieces_);
  std::vector<double> parts(blocks.size(), 0);
  over_blocks(blocks, [&](size_t b) {
    const Block& block = blocks[b];
    const Piece& piece = pieces_[block.piece];
    const Whole& whole = wholes_[piece.whole];
    const at::Tensor grad = piece.weight.grad().contiguous();
    with_type(piece.weight, [&](auto type) {
      using T = decltype(type);
      const T* g = grad.const_data_ptr<T>();
      if (!is_matrix(whole.sizes)) {
        T* v = piece.states.back().template mutable_data_ptr<T>();
        const T kept = static_cast<T>(beta2), fresh = static_cast<T>(1 - beta2);
        for (int64_t i = block.begin; i < block.end; ++i)
          v[i] = kept * v[i] + fresh * (g[i] * g[i] + static_cast<T>(config().eps_square));
      }
      std::array<T, kBlock> u;
      for (int64_t from = block.begin; from < block.end; from += kBlock) {
        const int64_t to = std::min(from + kBlock, block.end);
        normalised(whole, piece, factors[piece.whole], g, from, to, u.data());
        for (int64_t i = 0; i < to - from; ++i)
          parts[b] += static_cast<double>(u[size_t(i)]) * static_cast<double>(u[size_t(i)]);
      }
    });
  });
  for (size_t b = 0; b < blocks.size(); ++b)
    sums[pieces_[blocks[b].piece].whole].updates += parts[b];
  add_device_updates(factors, beta2, sums);
  if (!ranks_ || ranks_->world_size() == 1) return;
  std::vector<double> all;
  for (const Sums& one : sums) all.push_back(one.updates);
  ranks_->all_reduce(std::span<double>(all));
  for (size_t w = 0; w < sums.size(); ++w) sums[w].updates = all[w];
}

template <typename T>
void Adafactor::normalised(const Whole& whole,
                           const Piece& piece,
                           const Factors& by,
                           const T* gradient,
                           int64_t begin,
                           int64_t end,
                           T* out) {
  if (!is_matrix(whole.sizes)) {
    const T* v = piece.states.back().template const_data_ptr<T>();
    for (int64_t i = begin; i < end; ++i) *out++ = gradient[i] * (T{1} / std::sqrt(v[i]));
    return;
  }
  over_matrix_rows(piece.begin + begin,
                   piece.begin + end,
                   whole.sizes[1],
                   [&](int64_t row, int64_t from, int64_t to, int64_t c) {
                     const T r = static_cast<T>(by.rows[static_cast<size_t>(row)]);
                     const double* column = by.columns.data() + c;
                     for (int64_t i = from - piece.begin; i < to - piece.begin; ++i)
                       *out++ = r * static_cast<T>(*column++) * gradient[i];
                   });
}

double Adafactor::rate_of(const Whole& whole, const Sums& sums, double learning_rate) const {
  double rate = learning_rate * whole.rate;
  if (config().scale_parameter)
    rate *=
        std::max(config().eps_scale, std::sqrt(sums.weights / static_cast<double>(whole.numel)));
  return rate;
}

template <typename T>
void Adafactor::average(const Whole& whole, const Piece& piece, int64_t begin, int64_t n, T* u) {
  const T beta1 = static_cast<T>(config().beta1);
  const auto move = [&](T* mean) {
    for (int64_t i = 0; i < n; ++i) u[i] = mean[i] = beta1 * mean[i] + (1 - beta1) * u[i];
  };
  const at::Tensor& state = piece.states[0];
  if (state.scalar_type() != at::kBFloat16) return move(state.mutable_data_ptr<T>() + begin);
  std::array<T, kBlock> mean;
  std::array<uint32_t, kBlock> bits;
  auto* const kept = static_cast<uint16_t*>(state.mutable_data_ptr()) + begin;
  for (int64_t i = 0; i < n; ++i) mean[size_t(i)] = static_cast<T>(from_bfloat16(kept[i]));
  move(mean.data());
  rounding_bits(whole.key, steps(), piece.begin + begin, n, bits.data());
  for (int64_t i = 0; i < n; ++i)
    kept[i] = round_stochastically(static_cast<float>(mean[size_t(i)]), bits[size_t(i)] & 0xffffu);
}

void Adafactor::update(double learning_rate) {
  const double beta2 = 1 - std::pow(static_cast<double>(steps()), config().decay_rate);
  std::vector<Sums> sums = gradient_sums();
  add_over_ranks(sums);
  std::vector<Factors> factors(wholes_.size());
  for (size_t w = 0; w < wholes_.size(); ++w) {
    if (sums[w].elements > 0 && is_matrix(wholes_[w].sizes))
      factors[w] = factors_of(wholes_[w], sums[w], beta2);
  }
  add_updates(factors, beta2, sums);
  over_elements([&](const Piece& piece, const at::Tensor& grad, int64_t begin, int64_t end) {
    const Whole& whole = wholes_[piece.whole];
    const Sums& of = sums[piece.whole];
    const double rate = rate_of(whole, of, learning_rate);
    const double rms = std::sqrt(of.updates / static_cast<double>(whole.numel));
    if (!piece.weight.is_cpu()) {
      at::Tensor u = device_normalised(whole, piece, factors[piece.whole], grad, begin, end);
      u.mul_(rate / std::max(1.0, rms / config().clip_threshold));
      u = device_averaged(whole, piece, u, begin, end);
      elements_of(piece.weight, begin, end).mul_(1 - rate * whole.decay).sub_(u);
      return;
    }
    with_type(piece.weight, [&](auto type) {
      using T = decltype(type);
      const T scale = static_cast<T>(rate / std::max(1.0, rms / config().clip_threshold));
      const T keep = static_cast<T>(1 - rate * whole.decay);
      std::array<T, kBlock> u;
      for (int64_t from = begin; from < end; from += kBlock) {
        const int64_t to = std::min(from + kBlock, end), n = to - from;
        normalised(
            whole, piece, factors[piece.whole], grad.const_data_ptr<T>(), from, to, u.data());
        for (int64_t i = 0; i < n; ++i) u[size_t(i)] *= scale;
        if (config().beta1 > 0) average(whole, piece, from, n, u.data());
        T* const weight = piece.weight.template mutable_data_ptr<T>() + from;
        for (int64_t i = 0; i < n; ++i) weight[i] = keep * weight[i] - u[size_t(i)];
      }
    });
  });
}

}  // namespace praetor
