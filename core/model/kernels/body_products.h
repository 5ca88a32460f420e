// Product kernels over Vec, a vector of 16 floats that the including source defines for its
// instruction set, with kTileRows and wide(rows): how many vectors of columns a tile of
// that many rows keeps in registers (1, 2, 4 or 8). Included by scalar.cpp, avx2.cpp and avx512.cpp
// alone.
#pragma once

#include <cstdint>

#include "core/model/kernels/table.h"

namespace praetor::ops::kernels {
namespace {

// Weights come from memory once for a few rows: the lines that are needed so many bytes later are
// asked for now, across the borders of pages, where the processor's own prefetching ends.
constexpr int64_t kAhead = 4096;

// All tiles add one product an element and step, k ascending: the order of the chain is the order
// of the loop.

template <int R, int C, typename W>
inline void product_tile(int64_t k,
                         const float* a,
                         int64_t lda,
                         const W* panel,
                         int64_t panel_stride,
                         float* c,
                         int64_t ldc,
                         bool resume) {
  Vec sum[R][C];
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) sum[r][j] = resume ? load(c + r * ldc + j * 16) : all(0.0f);
  }
  for (int64_t i = 0; i < k; ++i) {
    Vec w[C];
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) {
      const W* from = panel + (j / 2) * panel_stride + (j % 2) * 16;
      w[j] = load_weights(from);
      if constexpr (R > 2) __builtin_prefetch(reinterpret_cast<const char*>(from) + kAhead);
    }
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      const Vec x = all(a[r]);
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) sum[r][j] = fma(x, w[j], sum[r][j]);
    }
    a += lda;
    panel += kPanel;
  }
#pragma GCC unroll 32
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) store(c + r * ldc + j * 16, sum[r][j]);
  }
}

template <int R, typename W>
void product_rows(int64_t k,
                  const float* a,
                  int64_t lda,
                  const W* panels,
                  int64_t panel_stride,
                  int64_t count,
                  float* c,
                  int64_t ldc,
                  bool resume) {
  const int64_t vectors = 2 * count;
  int64_t v = 0;
  const auto panel = [&] { return panels + (v / 2) * panel_stride + (v % 2) * 16; };
  if constexpr (wide(R) >= 8) {
    for (; v + 8 <= vectors; v += 8) {
      product_tile<R, 8>(k, a, lda, panel(), panel_stride, c + v * 16, ldc, resume);
    }
  }
  if constexpr (wide(R) >= 4) {
    for (; v + 4 <= vectors; v += 4) {
      product_tile<R, 4>(k, a, lda, panel(), panel_stride, c + v * 16, ldc, resume);
    }
  }
  if constexpr (wide(R) >= 2) {
    for (; v + 2 <= vectors; v += 2) {
      product_tile<R, 2>(k, a, lda, panel(), panel_stride, c + v * 16, ldc, resume);
    }
  }
  for (; v < vectors; ++v) {
    product_tile<R, 1>(k, a, lda, panel(), panel_stride, c + v * 16, ldc, resume);
  }
}

template <int R, typename W>
void product_switch(int64_t rows,
                    int64_t k,
                    const float* a,
                    int64_t lda,
                    const W* panels,
                    int64_t panel_stride,
                    int64_t count,
                    float* c,
                    int64_t ldc,
                    bool resume) {
  if (rows == R) {
    product_rows<R>(k, a, lda, panels, panel_stride, count, c, ldc, resume);
  } else if constexpr (R > 1) {
    product_switch<R - 1, W>(rows, k, a, lda, panels, panel_stride, count, c, ldc, resume);
  }
}

template <int R, int C, bool kPart>
inline void scores_tile(int64_t k,
                        const float* a,
                        const float* const* keys,
                        int64_t stride,
                        int64_t lanes,
                        float* c,
                        int64_t ldc) {
  Vec sum[R][C];
  const float* from[C];
#pragma GCC unroll 4
  for (int j = 0; j < C; ++j) {
    from[j] = keys[j];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sum[r][j] = all(0.0f);
  }
  for (int64_t i = 0; i < k; ++i) {
    Vec w[C];
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) {
      w[j] = kPart ? load_part(from[j], lanes, 0.0f) : load(from[j]);
      from[j] += stride;
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec x = all(a[r]);
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) sum[r][j] = fma(x, w[j], sum[r][j]);
    }
    a += R;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) {
      float* to = c + r * ldc + j * 16;
      if (kPart) {
        store_part(to, lanes, sum[r][j]);
      } else {
        store(to, sum[r][j]);
      }
    }
  }
}

template <int R>
void scores_switch(int64_t rows,
                   int64_t k,
                   const float* a,
                   const float* const* keys,
                   int64_t stride,
                   int64_t count,
                   int64_t lanes,
                   float* c,
                   int64_t ldc) {
  if (rows != R) {
    if constexpr (R > 1) {
      scores_switch<R - 1>(rows, k, a, keys, stride, count, lanes, c, ldc);
    }
    return;
  }
  constexpr int kTogether = wide(R) < 4 ? wide(R) : 4;
  const int64_t whole = lanes < 16 ? count - 1 : count;
  int64_t p = 0;
  for (; p + kTogether <= whole; p += kTogether)
    scores_tile<R, kTogether, false>(k, a, keys + p, stride, 16, c + p * 16, ldc);
  for (; p < whole; ++p) scores_tile<R, 1, false>(k, a, keys + p, stride, 16, c + p * 16, ldc);
  if (p < count) scores_tile<R, 1, true>(k, a, keys + p, stride, lanes, c + p * 16, ldc);
}

template <int R, int C, bool kPart>
inline void weigh_tile(int64_t n,
                       const float* p,
                       int64_t ldp,
                       const float* const* rows,
                       int64_t offset,
                       int64_t lanes,
                       float* out,
                       int64_t ldo,
                       bool resume) {
  Vec sum[R][C];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) {
      const float* from = out + r * ldo + j * 16;
      sum[r][j] = !resume ? all(0.0f) : kPart ? load_part(from, lanes, 0.0f) : load(from);
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    const float* row = rows[i] + offset;
    Vec w[C];
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) w[j] = kPart ? load_part(row, lanes, 0.0f) : load(row + j * 16);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec x = all(p[r * ldp + i]);
#pragma GCC unroll 8
      for (int j = 0; j < C; ++j) sum[r][j] = fma(x, w[j], sum[r][j]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) {
      float* to = out + r * ldo + j * 16;
      if (kPart) {
        store_part(to, lanes, sum[r][j]);
      } else {
        store(to, sum[r][j]);
      }
    }
  }
}

template <int R>
void weigh_switch(int64_t count,
                  int64_t n,
                  const float* p,
                  int64_t ldp,
                  const float* const* rows,
                  int64_t offset,
                  int64_t d,
                  float* out,
                  int64_t ldo,
                  bool resume) {
  if (count != R) {
    if constexpr (R > 1) {
      weigh_switch<R - 1>(count, n, p, ldp, rows, offset, d, out, ldo, resume);
    }
    return;
  }
  int64_t i = 0;
  if constexpr (wide(R) >= 8) {
    for (; i + 128 <= d; i += 128) {
      weigh_tile<R, 8, false>(n, p, ldp, rows, offset + i, 16, out + i, ldo, resume);
    }
  }
  if constexpr (wide(R) >= 4) {
    for (; i + 64 <= d; i += 64) {
      weigh_tile<R, 4, false>(n, p, ldp, rows, offset + i, 16, out + i, ldo, resume);
    }
  }
  if constexpr (wide(R) >= 2) {
    for (; i + 32 <= d; i += 32) {
      weigh_tile<R, 2, false>(n, p, ldp, rows, offset + i, 16, out + i, ldo, resume);
    }
  }
  for (; i + 16 <= d; i += 16) {
    weigh_tile<R, 1, false>(n, p, ldp, rows, offset + i, 16, out + i, ldo, resume);
  }
  if (i < d) weigh_tile<R, 1, true>(n, p, ldp, rows, offset + i, d - i, out + i, ldo, resume);
}

void pack_rows(const float* x, int64_t ldx, int64_t rows, int64_t k, float* to) {
  int64_t i = 0;
  if (rows >= 8) {
    const float* pointers[2 * kTileRows];
    for (int64_t r = 0; r < rows; ++r) pointers[r] = x + r * ldx;
    for (; i + 8 <= k; i += 8) {
      for (int64_t r = 0; r + 8 <= rows; r += 8)
        transpose8(pointers + r, i, to + i * rows + r, rows);
      // The last eight rows, some of them a second time.
      if (rows % 8 != 0) transpose8(pointers + rows - 8, i, to + i * rows + rows - 8, rows);
    }
  }
  for (; i < k; ++i) {
    for (int64_t r = 0; r < rows; ++r) to[i * rows + r] = x[r * ldx + i];
  }
}

void transpose(const float* const* rows, int64_t offset, int64_t n, int64_t k, float* panel) {
  for (int64_t j = 0; j < kPanel; j += 8) {
    int64_t i = 0;
    if (j + 8 <= n) {
      for (; i + 8 <= k; i += 8) transpose8(rows + j, offset + i, panel + i * kPanel + j, kPanel);
    }
    for (; i < k; ++i) {
      for (int64_t jj = j; jj < j + 8; ++jj) {
        panel[i * kPanel + jj] = jj < n ? rows[jj][offset + i] : 0.0f;
      }
    }
  }
}

}  // namespace
}  // namespace praetor::ops::kernels
