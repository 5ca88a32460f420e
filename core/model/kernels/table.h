#pragma once

#include <cstdint>

/// The innermost loops, one set for each instruction set. Every set performs the same operations in
/// the same order on each output element, so their results are bitwise equal. No LibTorch here:
/// these sources are compiled with wider instructions than the rest and must not define an inline
/// function that another source could pick up.
namespace praetor::ops::kernels {

/// Columns of a packed panel.
constexpr int64_t kPanel = 32;

/// A product of rows with packed panels whose elements are of type Panel; see Table.
template <typename Panel>
using PanelProduct = void(int64_t rows,
                          int64_t k,
                          const float* a,
                          int64_t lda,
                          const Panel* panels,
                          int64_t panel_stride,
                          int64_t count,
                          float* c,
                          int64_t ldc,
                          bool resume);

struct Table {
  const char* name;   ///< "avx512", "avx2", "scalar"
  int64_t tile_rows;  ///< most rows of a product tile; as many keep the registers busiest

  /// to[i][r] = x[r * ldx + i] for i < k and r < rows <= 2 tile_rows: rows as
  /// `product` wants them.
  void (*pack_rows)(const float* x, int64_t ldx, int64_t rows, int64_t k, float* to);

  /// c[r][j] = chain over k of a[k][r] * panel[k][j], for `rows` <= tile_rows rows and `count`
  /// panels of 32 columns; a [k][lda]; panel p starts at panels + p * panel_stride and is [k][32];
  /// the chain starts from 0, or from c when `resume`.
  PanelProduct<float>* product;

  /// The same with panels of bfloat16, given by their upper halves as floats, and of int8.
  PanelProduct<uint16_t>* product_bfloat16;
  PanelProduct<int8_t>* product_int8;

  /// c[r][p * 16 + j] = chain over k of a[k][r] * keys[p][k * stride + j], j < 16, for `count`
  /// groups of 16 columns, the last of `lanes` <= 16 (others are neither read nor written); `rows`
  /// <= tile_rows; a [k][rows].
  void (*scores)(int64_t rows,
                 int64_t k,
                 const float* a,
                 const float* const* keys,
                 int64_t stride,
                 int64_t count,
                 int64_t lanes,
                 float* c,
                 int64_t ldc);

  /// panel[i][j] = rows[j][offset + i] for i < k, j < n <= 32; zero for j >= n.
  void (*transpose)(const float* const* rows, int64_t offset, int64_t n, int64_t k, float* panel);

  /// out[r][i] = chain over j < n of p[r][j] * rows[j][offset + i], i < d, for `count` <= 6 rows;
  /// the chain starts from 0, or from out when `resume`.
  void (*weigh)(int64_t count,
                int64_t n,
                const float* p,
                int64_t ldp,
                const float* const* rows,
                int64_t offset,
                int64_t d,
                float* out,
                int64_t ldo,
                bool resume);

  /// Replaces n scores by exp(score - max) and returns their sum. The buffer has room up to the
  /// next multiple of 16.
  float (*softmax)(float* scores, int64_t n);

  /// p *= inverse, then dp = p (dp - sum of p dp).
  void (*softmax_backward)(float* p, float inverse, int64_t n, float* dp);

  /// Maximum of a row, sum of exp(x - max) and, where `moment` is given, sum of exp(x - max) (x -
  /// max).
  void (*log_sum)(const float* x, int64_t n, float* max, float* sum, float* moment);

  // In those that follow y may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* y);
  void (*layer_norm)(
      const float* x, const float* weight, const float* bias, float eps, int64_t n, float* y);
  void (*swiglu)(const float* gate, const float* up, int64_t n, float* y);
  /// gelu(x), times `up` where that is given.
  void (*gelu)(const float* x, const float* up, int64_t n, float* y);
  /// cap tanh(x / cap).
  void (*softcap)(const float* x, float cap, int64_t n, float* y);
  /// One head: `half` pairs (x[i], x[half + i]).
  void (*rope)(const float* x, const float* cos, const float* sin, int64_t half, float* y);

  // Gradients of those above, from the gradient to y. `to_weight`, where it is given, is added to.
  void (*rms_norm_backward)(const float* grad,
                            const float* x,
                            const float* weight,
                            float eps,
                            int64_t n,
                            float* to_x,
                            float* to_weight);
  void (*swiglu_backward)(const float* grad,
                          const float* gate,
                          const float* up,
                          int64_t n,
                          float* to_gate,
                          float* to_up);
  /// Without `up` there is no `to_up`.
  void (*gelu_backward)(
      const float* grad, const float* x, const float* up, int64_t n, float* to_x, float* to_up);
};

const Table& scalar_table();
const Table& avx2_table();
const Table& avx512_table();

}  // namespace praetor::ops::kernels
