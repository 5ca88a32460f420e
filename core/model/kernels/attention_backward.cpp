#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "core/model/kernels/attention.h"
#include "core/model/kernels/attention_shape.h"
#include "core/model/kernels/buffer.h"
#include "core/model/kernels/isa.h"
#include "core/model/kernels/parallel.h"

namespace praetor::ops::kernels {
namespace {

/// Queries whose probabilities are held at once.
constexpr int64_t kQueries = 56;

int64_t panels_of(int64_t columns) {
  return (columns + kPanel - 1) / kPanel;
}

using Shape = AttentionShape;

/// One sequence; its queries are at the last positions of those that it sees.
struct Sequence {
  std::vector<const float*> keys, values;  // rows [kv_heads, d] of all positions
  std::vector<float*> to_keys, to_values;  // likewise
  const float *q, *grad;                   // rows [heads, d] of the queries
  float* to_q;
  int64_t queries;
  int64_t positions() const { return static_cast<int64_t>(keys.size()); }
  int64_t before() const { return positions() - queries; }
};

struct Scratch {
  Buffer key_columns, value_columns, keys, to_keys, to_values;  // of a KV head
  Buffer query, tile, query_rows, grad_rows;                    // of some queries
  Buffer p, dp, slope, packed, to_q;
};

Scratch& scratch() {
  thread_local Scratch scratch;
  return scratch;
}

/// Columns of `rows` x d floats, row r at from(r), as panels [rows, 32] one after the other.
template <typename Row>
void pack_panels(const Row& from, int64_t rows, int64_t d, float* to) {
  for (int64_t c = 0; c < d; c += kPanel) {
    const int64_t n = std::min(kPanel, d - c);
    for (int64_t r = 0; r < rows; ++r, to += kPanel) {
      std::copy(from(r) + c, from(r) + c + n, to);
      std::fill(to + n, to + kPanel, 0.0f);
    }
  }
}

/// Keys [from, to) that some of a block's queries see, `from` a multiple of kPanel.
struct Seen {
  int64_t from, to;
  int64_t keys() const { return to - from; }
};

/// The gradients that pass through one KV head of a sequence.
class HeadBackward {
 public:
  HeadBackward(const Shape& shape, const Sequence& sequence, int64_t kv)
      : shape_(shape),
        sequence_(sequence),
        kv_(kv),
        d_(shape.d),
        padded_(panels_of(shape.d) * kPanel),
        positions_(sequence.positions()),
        stride_(panels_of(positions_) * kPanel + kLanes) {}

  void run() {
    pack_keys();
    for (int64_t g = 0; g < shape_.group(); ++g) {
      for (int64_t q = 0; q < sequence_.queries; q += kQueries)
        block(kv_ * shape_.group() + g, q, std::min(kQueries, sequence_.queries - q));
    }
    for (int64_t j = 0; j < positions_; ++j) {
      const float *k = to_keys_ + j * padded_, *v = to_values_ + j * padded_;
      std::copy(k, k + d_, sequence_.to_keys[j] + kv_ * d_);
      std::copy(v, v + d_, sequence_.to_values[j] + kv_ * d_);
    }
  }

 private:
  void pack_keys() {
    const int64_t panels = panels_of(positions_), offset = kv_ * d_;
    key_columns_ = memory_.key_columns.reserve(panels * kPanel * d_);
    value_columns_ = memory_.value_columns.reserve(panels * kPanel * d_);
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t at = p * kPanel, n = std::min(kPanel, positions_ - at);
      loops_.transpose(sequence_.keys.data() + at, offset, n, d_, key_columns_ + at * d_);
      loops_.transpose(sequence_.values.data() + at, offset, n, d_, value_columns_ + at * d_);
    }
    keys_ = memory_.keys.reserve(positions_ * padded_);
    pack_panels([&](int64_t j) { return sequence_.keys[j] + offset; }, positions_, d_, keys_);
    to_keys_ = memory_.to_keys.reserve(positions_ * padded_);
    to_values_ = memory_.to_values.reserve(positions_ * padded_);
    std::fill(to_keys_, to_keys_ + positions_ * padded_, 0.0f);
    std::fill(to_values_, to_values_ + positions_ * padded_, 0.0f);
  }

  /// Queries `at` .. at + n - 1 of query head `head`.
  void block(int64_t head, int64_t at, int64_t n) {
    const auto place = [&](int64_t r) { return ((at + r) * shape_.heads + head) * d_; };
    const auto position = [&](int64_t r) { return sequence_.before() + at + r; };
    const Seen seen{shape_.first(position(0)) / kPanel * kPanel, position(n - 1) + 1};
    float* query = memory_.query.reserve(n * d_);
    for (int64_t r = 0; r < n; ++r) {
      const float* from = sequence_.q + place(r);
      for (int64_t j = 0; j < d_; ++j) query[r * d_ + j] = from[j] * shape_.scale;
    }
    float* p = memory_.p.reserve(n * stride_);
    float* dp = memory_.dp.reserve(n * stride_);
    with_keys(query, d_, n, key_columns_, seen, p);
    with_keys(sequence_.grad + place(0), shape_.heads * d_, n, value_columns_, seen, dp);
    for (int64_t r = 0; r < n; ++r) {
      const int64_t first = shape_.first(position(r));
      probabilities(seen, first, position(r) + 1, p + r * stride_, dp + r * stride_);
    }
    const auto grad_row = [&](int64_t r) { return sequence_.grad + place(r); };
    float* rows = memory_.grad_rows.reserve(n * padded_);
    pack_panels(grad_row, n, d_, rows);
    to_positions(p, seen, rows, n, to_values_);
    rows = memory_.query_rows.reserve(n * padded_);
    pack_panels([&](int64_t r) { return query + r * d_; }, n, d_, rows);
    to_positions(dp, seen, rows, n, to_keys_);

    float* packed = memory_.packed.reserve(loops_.tile_rows * seen.keys());
    float* sums = memory_.to_q.reserve(loops_.tile_rows * padded_);
    for (int64_t r = 0; r < n; r += loops_.tile_rows) {
      const int64_t tile = std::min(loops_.tile_rows, n - r);
      loops_.pack_rows(dp + r * stride_ + seen.from, stride_, tile, seen.keys(), packed);
      loops_.product(tile,
                     seen.keys(),
                     packed,
                     tile,
                     keys_ + seen.from * kPanel,
                     positions_ * kPanel,
                     panels_of(d_),
                     sums,
                     padded_,
                     false);
      for (int64_t i = 0; i < tile; ++i) {
        float* to = sequence_.to_q + place(r + i);
        for (int64_t j = 0; j < d_; ++j) to[j] = sums[i * padded_ + j] * shape_.scale;
      }
    }
  }

  /// to[r][j] = row r of x times column j of `columns`, for the keys that are seen.
  void with_keys(
      const float* x, int64_t ldx, int64_t n, const float* columns, const Seen& seen, float* to) {
    float* packed = memory_.tile.reserve(loops_.tile_rows * d_);
    for (int64_t r = 0; r < n; r += loops_.tile_rows) {
      const int64_t tile = std::min(loops_.tile_rows, n - r);
      loops_.pack_rows(x + r * ldx, ldx, tile, d_, packed);
      loops_.product(tile,
                     d_,
                     packed,
                     tile,
                     columns + seen.from * d_,
                     d_ * kPanel,
                     panels_of(seen.keys()),
                     to + r * stride_ + seen.from,
                     stride_,
                     false);
    }
  }

  /// Turns one row's scores into probabilities of keys begin .. end - 1, with the forward's bits,
  /// and the gradients to the probabilities into those to the scaled scores; 0 where another query
  /// of the block sees a key.
  void probabilities(const Seen& seen, int64_t begin, int64_t end, float* p, float* dp) {
    const int64_t n = end - begin;
    if (shape_.softcap > 0) {
      loops_.softcap(p + begin, shape_.softcap, n, p + begin);
      float* slope = memory_.slope.reserve(n);
      for (int64_t i = 0; i < n; ++i) {
        const float t = p[begin + i] / shape_.softcap;
        slope[i] = 1 - t * t;
      }
    }
    const float inverse = 1.0f / exponentials(loops_, p, begin, end);
    loops_.softmax_backward(p + begin, inverse, n, dp + begin);
    for (int64_t i = 0; shape_.softcap > 0 && i < n; ++i) dp[begin + i] *= memory_.slope.data()[i];
    for (float* row : {p, dp}) {
      std::fill(row + seen.from, row + begin, 0.0f);
      std::fill(row + end, row + std::max(end, seen.to), 0.0f);
    }
  }

  /// to[j] += sum over the block's queries r of weights[r][j] rows[r], for the keys that are seen.
  void to_positions(
      const float* weights, const Seen& seen, const float* rows, int64_t n, float* to) {
    for (int64_t j = seen.from; j < seen.to; j += loops_.tile_rows) {
      loops_.product(std::min(loops_.tile_rows, seen.to - j),
                     n,
                     weights + j,
                     stride_,
                     rows,
                     n * kPanel,
                     panels_of(d_),
                     to + j * padded_,
                     padded_,
                     true);
    }
  }

  const Table& loops_ = table();
  Scratch& memory_ = scratch();
  const Shape& shape_;
  const Sequence& sequence_;
  int64_t kv_, d_, padded_, positions_;
  int64_t stride_;                                           // floats from row to row of p
  float *key_columns_ = nullptr, *value_columns_ = nullptr;  // panels [d, 32] of transposed rows
  float* keys_ = nullptr;                                    // panels [positions, 32]
  float *to_keys_ = nullptr, *to_values_ = nullptr;          // [positions, padded]
};

}  // namespace

AttentionGradients causal_attention_backward(const at::Tensor& q,
                                             const at::Tensor& k,
                                             const at::Tensor& v,
                                             const at::Tensor& grad,
                                             const std::vector<int64_t>& offsets,
                                             const AttentionOptions& options,
                                             const std::vector<int64_t>& prefix) {
  const int64_t d = q.size(2);
  const Shape shape(q.size(1), k.size(1), d, options);
  const at::Tensor qc = q.contiguous(), kc = k.contiguous(), vc = v.contiguous();
  const at::Tensor gc = grad.contiguous();
  const auto plain = q.options().requires_grad(false);
  AttentionGradients to{
      at::empty(q.sizes(), plain), at::empty(k.sizes(), plain), at::empty(v.sizes(), plain)};
  const int64_t q_row = shape.heads * d, k_row = shape.kv_heads * d;

  // What a sequence adds to its prefix is kept until all are done, and then added in order.
  struct Addition {
    int64_t at, rows;
    at::Tensor keys, values;
  };
  std::vector<Addition> additions;
  std::vector<Sequence> sequences;
  int64_t work = 0;
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    const int64_t begin = offsets[i], queries = offsets[i + 1] - begin;
    if (queries == 0) continue;
    Sequence one{.q = qc.const_data_ptr<float>() + begin * q_row,
                 .grad = gc.const_data_ptr<float>() + begin * q_row,
                 .to_q = to.q.mutable_data_ptr<float>() + begin * q_row,
                 .queries = queries};
    const auto rows = [&](int64_t first, int64_t count, float* keys, float* values) {
      for (int64_t j = 0; j < count; ++j) {
        one.keys.push_back(kc.const_data_ptr<float>() + (first + j) * k_row);
        one.values.push_back(vc.const_data_ptr<float>() + (first + j) * k_row);
        one.to_keys.push_back(keys + j * k_row);
        one.to_values.push_back(values + j * k_row);
      }
    };
    if (!prefix.empty() && prefix[i] >= 0) {
      const int64_t at = offsets[prefix[i]], count = offsets[prefix[i] + 1] - at;
      const auto room = [&] { return at::empty({count, shape.kv_heads, d}, plain); };
      additions.push_back({at, count, room(), room()});
      rows(at,
           count,
           additions.back().keys.mutable_data_ptr<float>(),
           additions.back().values.mutable_data_ptr<float>());
    }
    rows(begin,
         queries,
         to.k.mutable_data_ptr<float>() + begin * k_row,
         to.v.mutable_data_ptr<float>() + begin * k_row);
    work += 5 * queries * one.positions() * q_row;
    sequences.push_back(std::move(one));
  }
  run_tasks(
      threads_for(work), static_cast<int64_t>(sequences.size()) * shape.kv_heads, [&](int64_t i) {
        HeadBackward(shape, sequences[i / shape.kv_heads], i % shape.kv_heads).run();
      });
  for (const Addition& one : additions) {
    to.k.narrow(0, one.at, one.rows).add_(one.keys);
    to.v.narrow(0, one.at, one.rows).add_(one.values);
  }
  return to;
}

}  // namespace praetor::ops::kernels
