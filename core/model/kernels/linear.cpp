#include "core/model/kernels/linear.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <memory>
#include <tuple>
#include <vector>

#include "core/model/kernels/buffer.h"
#include "core/model/kernels/isa.h"
#include "core/model/kernels/packed_weight.h"
#include "core/model/kernels/parallel.h"

namespace praetor::ops::kernels {
namespace {

constexpr int64_t kFewTiles = 5;     // up to which a product waits for its weights
constexpr int64_t kBlockTiles = 24;  // row tiles whose packed rows stay in the second-level cache

struct Problem {
  const Table& loops;
  const PackedWeight* weight;
  const float* x;
  int64_t ldx;  // floats from row to row of x
  const float* bias;
  float* y;  // [M,N]
};

struct Block {
  int64_t row_begin, row_end, panel_begin, panel_end;
};

struct Scratch {
  Buffer rows, tile;
};

Scratch& scratch() {
  thread_local Scratch scratch;
  return scratch;
}

int64_t tiles_of(int64_t rows, const Table& loops) {
  return (rows + loops.tile_rows - 1) / loops.tile_rows;
}

// Row at which tile `t` of `tiles` starts. They are nearly equal, but for two: while the first, as
// high as can be, computes, the weights come from memory, and the second, low enough to take
// several panels at once, finds them in the second-level cache.
int64_t start_of(int64_t t, int64_t tiles, int64_t rows, const Table& loops) {
  constexpr int64_t kLow = 4;
  return tiles == 2 && t == 1 ? std::min(loops.tile_rows, rows - kLow) : t * rows / tiles;
}

// Table::product of the weight's kind, for panels from `panel` on and the inner dimension from
// `k_begin` on.
void multiply(const Problem& problem,
              int64_t rows,
              int64_t k_begin,
              int64_t k,
              const float* a,
              int64_t lda,
              int64_t panel,
              int64_t count,
              float* c,
              int64_t ldc,
              bool resume) {
  const PackedWeight& weight = *problem.weight;
  const Table& loops = problem.loops;
  const int64_t at = (panel * weight.k + k_begin) * kPanel, stride = weight.k * kPanel;
  switch (weight.kind) {
    case WeightKind::kFloat32:
      return loops.product(rows, k, a, lda, weight.floats() + at, stride, count, c, ldc, resume);
    case WeightKind::kBfloat16:
      return loops.product_bfloat16(
          rows, k, a, lda, weight.bfloats() + at, stride, count, c, ldc, resume);
    case WeightKind::kInt8:
      return loops.product_int8(
          rows, k, a, lda, weight.bytes() + at, stride, count, c, ldc, resume);
  }
}

// The last panel may hold fewer columns than a tile writes: it goes through a tile of its own.
void narrow_product(const Problem& problem,
                    int64_t rows,
                    int64_t k_begin,
                    int64_t k,
                    const float* a,
                    int64_t lda,
                    int64_t panel,
                    float* y,
                    bool resume) {
  const int64_t n = problem.weight->n, columns = n - panel * kPanel;
  float* tile = scratch().tile.reserve(problem.loops.tile_rows * kPanel);
  if (resume) {
    for (int64_t r = 0; r < rows; ++r) {
      std::copy(y + r * n, y + r * n + columns, tile + r * kPanel);
      std::fill(tile + r * kPanel + columns, tile + (r + 1) * kPanel, 0.0f);
    }
  }
  multiply(problem, rows, k_begin, k, a, lda, panel, 1, tile, kPanel, resume);
  for (int64_t r = 0; r < rows; ++r) {
    std::copy(tile + r * kPanel, tile + r * kPanel + columns, y + r * n);
  }
}

// One step of the inner dimension, [k_begin, k_end), for some tiles of rows packed one after the
// other.
void step(const Problem& problem,
          const Block& block,
          int64_t rows_begin,
          int64_t rows,
          int64_t k_begin,
          int64_t k_end) {
  const int64_t n = problem.weight->n, k = k_end - k_begin;
  const int64_t tiles = tiles_of(rows, problem.loops);
  const auto start = [&](int64_t tile) { return start_of(tile, tiles, rows, problem.loops); };
  const float* from = problem.x + rows_begin * problem.ldx + k_begin;
  float* packed = scratch().rows.reserve(rows * k);
  // Two tiles stand side by side, more one after the other.
  const bool pair = tiles == 2;
  if (pair) problem.loops.pack_rows(from, problem.ldx, rows, k, packed);
  for (int64_t t = 0; t < tiles && !pair; ++t) {
    const int64_t r = start(t);
    problem.loops.pack_rows(
        from + r * problem.ldx, problem.ldx, start(t + 1) - r, k, packed + r * k);
  }
  const bool resume = k_begin > 0;
  const int64_t whole = std::min(block.panel_end, n / kPanel);  // panels of 32 columns of y
  // One tile, or a low one: neighbouring panels together, so that few rows still fill the
  // registers. More: a panel stays in the cache while the tiles pass by.
  const int64_t together = tiles == 1 ? std::max<int64_t>(whole - block.panel_begin, 1)
                           : pair     ? 2
                                      : 1;
  for (int64_t p = block.panel_begin; p < whole; p += together) {
    const int64_t panels = std::min(together, whole - p);
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t r = start(t);
      multiply(problem,
               start(t + 1) - r,
               k_begin,
               k,
               packed + (pair ? r : r * k),
               pair ? rows : start(t + 1) - r,
               p,
               panels,
               problem.y + (rows_begin + r) * n + p * kPanel,
               n,
               resume);
    }
  }
  for (int64_t p = std::max(whole, block.panel_begin); p < block.panel_end; ++p) {
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t r = start(t);
      narrow_product(problem,
                     start(t + 1) - r,
                     k_begin,
                     k,
                     packed + (pair ? r : r * k),
                     pair ? rows : start(t + 1) - r,
                     p,
                     problem.y + (rows_begin + r) * n + p * kPanel,
                     resume);
    }
  }
}

void run_block(const Problem& problem, const Block& block) {
  const int64_t n = problem.weight->n, k = problem.weight->k;
  const int64_t tile_rows = problem.loops.tile_rows;
  // Few rows wait for their weights: longer runs of a panel come from memory faster, though their
  // tiles find them in the second-level cache and not the first.
  const int64_t k_step = block.row_end - block.row_begin <= kFewTiles * tile_rows ? 1024 : 256;
  for (int64_t r = block.row_begin; r < block.row_end; r += kBlockTiles * tile_rows) {
    const int64_t rows = std::min(kBlockTiles * tile_rows, block.row_end - r);
    for (int64_t i = 0; i < k; i += k_step)
      step(problem, block, r, rows, i, std::min(i + k_step, k));
  }
  const float* scale = problem.weight->scales.data();
  const int64_t begin = block.panel_begin * kPanel, end = std::min(block.panel_end * kPanel, n);
  for (int64_t r = block.row_begin; r < block.row_end; ++r) {
    float* y = problem.y + r * n;
    for (int64_t j = begin; scale && j < end; ++j) y[j] *= scale[j];
    for (int64_t j = begin; problem.bias && j < end; ++j) y[j] += problem.bias[j];
  }
}

// How many pieces of rows and of columns to hand out. The cut moves no bit.
std::pair<int64_t, int64_t> grid(int64_t rows,
                                 int64_t panels,
                                 int64_t threads,
                                 const Table& loops) {
  if (threads == 1) return {1, 1};
  if (rows <= 2 * loops.tile_rows) return {1, std::min(panels, 2 * threads)};
  const int64_t blocks = std::max<int64_t>(1, rows / (kBlockTiles * loops.tile_rows / 2));
  if (blocks >= 4 * threads || blocks % threads == 0) return {blocks, 1};
  return {blocks, std::min(panels, threads)};
}

}  // namespace

void products(const float* x, int64_t ldx, int64_t m, std::initializer_list<Product> all) {
  struct Part {
    std::shared_ptr<const PackedWeight> weight;
    at::Tensor bias;
    Problem problem;
    int64_t panels, by_rows, by_panels, tasks;
  };
  // A weight that few rows use costs what it takes to read it.
  constexpr int64_t kReading = 8;
  int64_t work = 0;
  for (const Product& each : all) work += each.weight.numel() * std::max(m, kReading);
  const int64_t threads = threads_for(work);
  std::vector<Part> parts;
  int64_t tasks = 0;
  for (const Product& each : all) {
    Part part{packed_weight(each.weight, each.kind),
              each.bias.defined() ? each.bias.contiguous() : at::Tensor(),
              {table(), nullptr, x, ldx, nullptr, each.y}};
    part.problem.weight = part.weight.get();
    if (part.bias.defined()) part.problem.bias = part.bias.const_data_ptr<float>();
    part.panels = (part.weight->n + kPanel - 1) / kPanel;
    std::tie(part.by_rows, part.by_panels) = grid(m, part.panels, threads, table());
    part.tasks = part.by_rows * part.by_panels;
    tasks += part.tasks;
    parts.push_back(std::move(part));
  }
  run_tasks(threads, tasks, [&](int64_t i) {
    const Part* part = parts.data();
    for (; i >= part->tasks; ++part) i -= part->tasks;
    const int64_t r = i / part->by_panels, p = i % part->by_panels;
    run_block(part->problem,
              {m * r / part->by_rows,
               m * (r + 1) / part->by_rows,
               part->panels * p / part->by_panels,
               part->panels * (p + 1) / part->by_panels});
  });
}

at::Tensor linear(const at::Tensor& x,
                  const at::Tensor& weight,
                  const at::Tensor& bias,
                  WeightKind kind) {
  const int64_t m = x.size(0), k = x.size(1), n = weight.size(0);
  const auto options = x.options().requires_grad(false);
  if (m == 0 || n == 0) return at::empty({m, n}, options);
  const at::Tensor rows = x.stride(1) == 1 || k == 0 ? x : x.contiguous();
  at::Tensor y = k == 0 ? at::zeros({m, n}, options) : at::empty({m, n}, options);
  products(rows.const_data_ptr<float>(),
           rows.stride(0),
           m,
           {{weight, bias, y.mutable_data_ptr<float>(), kind}});
  return y;
}

}  // namespace praetor::ops::kernels
