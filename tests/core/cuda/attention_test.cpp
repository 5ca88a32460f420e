#include "core/cuda/kernels/attention.h"

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

#include "core/model/ops.h"
#include "tests/support/catch.h"
#include "tests/support/processor_device.h"

namespace praetor {

using cuda::AttendTile;
using cuda::Bfloat16;
using testing::run_kernel;

namespace {

/// Sequences in a cache of blocks in disorder, and the last rows of each as queries.
struct Case {
  int64_t heads, kv_heads, d, size;
  std::vector<int64_t> lengths;
  std::vector<int64_t> queries;  ///< of each sequence, its last tokens
  int64_t window = 0;
  double softcap = 0;
};

struct Outcome {
  at::Tensor got, wanted;  ///< [rows, heads, d]
};

Outcome attend(const Case& in, int64_t splits, int threads, bool poisoned = false) {
  const int64_t stride = 40;
  int64_t blocks = 1, rows = 0;
  for (const int64_t length : in.lengths) blocks += cuda::blocks_of(length, in.size);
  for (const int64_t count : in.queries) rows += count;
  at::Tensor keys =
      at::full({blocks, in.kv_heads, in.size, in.d}, poisoned ? NAN : 0.0, at::kBFloat16);
  at::Tensor values = keys.clone();
  at::Tensor q = at::empty({rows, in.heads + 1, in.d});  // a stride of one head more
  q.fill_(NAN);
  std::vector<int32_t> tables(in.lengths.size() * static_cast<size_t>(stride)), positions;
  std::vector<AttendTile> tiles;
  std::vector<at::Tensor> wanted;
  int64_t next = blocks - 1, row = 0;  // block 0 is nobody's
  const int64_t most = cuda::AttendKernel::tile_rows(in.heads, in.kv_heads);
  for (size_t s = 0; s < in.lengths.size(); ++s) {
    const int64_t length = in.lengths[s], count = in.queries[s];
    // bfloat16 from the start, so that storing rounds nothing.
    const at::Tensor k = at::randn({length, in.kv_heads, in.d}).to(at::kBFloat16);
    const at::Tensor v = at::randn({length, in.kv_heads, in.d}).to(at::kBFloat16);
    const at::Tensor all_q = at::randn({length, in.heads, in.d});
    for (int64_t p = 0; p < length; ++p) {
      if (p % in.size == 0)
        tables[s * static_cast<size_t>(stride) + static_cast<size_t>(p / in.size)] =
            static_cast<int32_t>(next--);
      const int64_t id = tables[s * static_cast<size_t>(stride) + static_cast<size_t>(p / in.size)];
      keys[id].select(1, p % in.size).copy_(k[p]);
      values[id].select(1, p % in.size).copy_(v[p]);
    }
    const at::Tensor out = ops::causal_attention(all_q,
                                                 k.to(at::kFloat),
                                                 v.to(at::kFloat),
                                                 {0, length},
                                                 {.softcap = in.softcap, .window = in.window});
    wanted.push_back(out.narrow(0, length - count, count));
    for (int64_t i = 0; i < count; ++i) {
      q[row + i].narrow(0, 0, in.heads).copy_(all_q[length - count + i]);
      positions.push_back(static_cast<int32_t>(length - count + i));
      if (i % most == 0) {
        tiles.push_back({static_cast<int32_t>(row + i),
                         static_cast<int32_t>(std::min(most, count - i)),
                         static_cast<int32_t>(s)});
      }
    }
    row += count;
  }
  std::vector<float> part(static_cast<size_t>(splits * rows * in.heads * in.d), NAN);
  std::vector<float> state(static_cast<size_t>(splits * rows * in.heads * 2), NAN);
  run_kernel(cuda::AttendKernel{q.const_data_ptr<float>(),
                                (in.heads + 1) * in.d,
                                static_cast<const Bfloat16*>(keys.const_data_ptr()),
                                static_cast<const Bfloat16*>(values.const_data_ptr()),
                                {in.kv_heads, in.size, in.d},
                                tables.data(),
                                stride,
                                positions.data(),
                                tiles.data(),
                                static_cast<int64_t>(tiles.size()),
                                in.heads,
                                splits,
                                static_cast<float>(1 / std::sqrt(static_cast<double>(in.d))),
                                part.data(),
                                state.data(),
                                rows,
                                in.window,
                                static_cast<float>(in.softcap)},
             threads);
  at::Tensor out = at::empty({rows, in.heads, in.d}, at::kBFloat16);
  run_kernel(cuda::JoinKernel{part.data(),
                              state.data(),
                              static_cast<Bfloat16*>(out.mutable_data_ptr()),
                              rows,
                              in.heads,
                              in.d,
                              splits},
             threads);
  return {out.to(at::kFloat), at::cat(wanted, 0)};
}

bool close(const Outcome& outcome) {
  return at::allclose(outcome.got, outcome.wanted, 1.0 / 128, 1e-5);
}

}  // namespace

TEST_CASE("the GPU's attention over blocks is the processor's", "[core][cpu][cuda]") {
  at::manual_seed(1);
  // One query of each sequence, whole prompts, the end of a prompt; keys within one tile of 64 and
  // beyond, more splits than tiles.
  for (const Case& in : {Case{4, 2, 16, 4, {1, 7, 130}, {1, 1, 1}},
                         Case{4, 1, 8, 16, {5, 40}, {5, 40}},
                         Case{2, 2, 16, 8, {70, 3}, {37, 2}},
                         Case{6, 2, 136, 16, {50}, {9}},
                         Case{20, 1, 8, 16, {66}, {3}}}) {
    for (const int64_t splits : {1, 2, 5}) {
      INFO(in.heads << " heads, " << in.d << " wide, " << splits << " splits");
      CHECK(close(attend(in, splits, 1)));
    }
  }
}

TEST_CASE("the GPU's attention sees a window of the keys, and caps scores", "[core][cpu][cuda]") {
  at::manual_seed(5);
  // Windows within a tile of 64 keys, of several, wider than the sequence, of the own key alone.
  for (const Case& in : {Case{4, 2, 16, 8, {1, 7, 230}, {1, 7, 50}, 20},
                         Case{4, 2, 16, 16, {300}, {9}, 100, 1.5},
                         Case{2, 2, 16, 8, {70, 3}, {37, 2}, 500},
                         Case{4, 1, 8, 16, {150}, {150}, 1},
                         Case{4, 1, 8, 16, {66}, {5}, 0, 0.8}}) {
    for (const int64_t splits : {1, 2, 5}) {
      INFO("window " << in.window << ", cap " << in.softcap << ", " << splits << " splits");
      CHECK(close(attend(in, splits, 2)));
    }
  }
}

TEST_CASE("a window's attention reads nothing before it", "[core][cpu][cuda]") {
  at::manual_seed(6);
  CHECK(close(attend({4, 2, 16, 16, {200, 17}, {3, 17}, 30}, 3, 2, true)));
}

TEST_CASE("the threads of a block of attention do not race", "[core][cpu][cuda]") {
  at::manual_seed(2);
  const Case in{4, 2, 16, 4, {1, 150}, {1, 11}};
  for (const int threads : {2, 7}) CHECK(close(attend(in, 2, threads)));
  at::manual_seed(3);
  const at::Tensor alone = attend(in, 2, 1).got;
  at::manual_seed(3);
  CHECK(at::equal(attend(in, 2, 5).got, alone));  // each sum has one thread
}

TEST_CASE("attention reads no place behind a sequence's end", "[core][cpu][cuda]") {
  at::manual_seed(4);
  CHECK(close(attend({4, 2, 16, 16, {3, 70, 17}, {2, 1, 17}}, 3, 2, true)));
}

}  // namespace praetor
