#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <limits>

#include "core/base/error.h"
#include "core/model/kernels/isa.h"
#include "core/model/ops.h"
#include "core/model/ops_reference.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

struct Inputs {
  at::Tensor q, k, v;
  Inputs cut(int64_t begin, int64_t n) const {
    return {q.narrow(0, begin, n), k.narrow(0, begin, n), v.narrow(0, begin, n)};
  }
};

Inputs random(int64_t tokens, int64_t heads, int64_t kv_heads, int64_t d) {
  return {at::randn({tokens, heads, d}) * 2,
          at::randn({tokens, kv_heads, d}),
          at::randn({tokens, kv_heads, d})};
}

/// A cache whose blocks are handed out from the back, filled with NaN: what was never written must
/// not be read.
struct Cache {
  Cache(const Inputs& in, int64_t blocks, int64_t size)
      : block_size(size), free(static_cast<int32_t>(blocks)) {
    const auto nan = std::numeric_limits<float>::quiet_NaN();
    layer.keys = at::full({blocks, in.k.size(1), in.k.size(2), size}, nan);
    layer.values = at::full({blocks, size, in.k.size(1), in.k.size(2)}, nan);
  }
  void grow(std::vector<int32_t>& table, int64_t tokens) {
    while (static_cast<int64_t>(table.size()) * block_size < tokens) table.push_back(--free);
  }
  at::Tensor run(const Inputs& in, const CachedRows& rows, const ops::AttentionOptions& how = {}) {
    return ops::cached_attention(in.q, in.k, in.v, layer, block_size, rows, how);
  }
  KvLayer layer;
  int64_t block_size;
  int32_t free;
};

/// Feeds one sequence in steps of the given sizes (repeated) and joins the results.
at::Tensor in_steps(const Inputs& in,
                    int64_t block_size,
                    const std::vector<int64_t>& sizes,
                    const ops::AttentionOptions& how = {}) {
  const int64_t tokens = in.q.size(0);
  Cache cache(in, tokens / block_size + 1, block_size);
  std::vector<int32_t> table;
  std::vector<at::Tensor> parts;
  for (int64_t begin = 0, i = 0; begin < tokens; ++i) {
    const int64_t n = std::min(sizes[i % sizes.size()], tokens - begin);
    cache.grow(table, begin + n);
    CachedRows rows;
    rows.tables = {&table};
    for (int64_t j = 0; j < n; ++j) {
      rows.tokens.push_back(0);
      rows.positions.push_back(static_cast<int32_t>(begin + j));
      rows.sequence.push_back(0);
    }
    parts.push_back(cache.run(in.cut(begin, n), rows, how));
    begin += n;
  }
  return at::cat(parts, 0);
}

}  // namespace

TEST_CASE("attention agrees with LibTorch for every shape of heads", "[core][cpu][ops]") {
  at::manual_seed(1);
  for (const int64_t d : {2, 8, 16, 20, 64, 128}) {
    for (const auto& [heads, kv_heads] :
         std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {8, 4}, {14, 2}, {3, 3}}) {
      INFO("head_dim " << d << " heads " << heads << " kv_heads " << kv_heads);
      const Inputs in = random(150, heads, kv_heads, d);
      const std::vector<int64_t> offsets{0, 1, 1, 18, 150};
      CHECK(at::allclose(ops::causal_attention(in.q, in.k, in.v, offsets),
                         ops::reference::causal_attention(in.q, in.k, in.v, offsets, {}),
                         1e-5,
                         1e-5));
    }
  }
}

TEST_CASE("decode equals prefill equals training, whatever the block size", "[core][cpu][ops]") {
  at::manual_seed(2);
  for (const int64_t d : {8, 64}) {
    const Inputs in = random(140, 6, 2, d);
    const at::Tensor want = ops::causal_attention(in.q, in.k, in.v, {0, 140});
    for (const int64_t block_size : {1, 16, 64}) {
      INFO("head_dim " << d << " block " << block_size);
      CHECK(at::equal(in_steps(in, block_size, {1}), want));
      CHECK(at::equal(in_steps(in, block_size, {37, 1, 64}), want));
      CHECK(at::equal(in_steps(in, block_size, {140}), want));
    }
  }
}

TEST_CASE("attention has the same bits on every instruction set and thread count",
          "[core][cpu][ops]") {
  at::manual_seed(3);
  const int threads_before = at::get_num_threads();
  const auto isa_before = ops::kernels::isa_in_use();
  const Inputs in = random(200, 8, 4, 40);
  const std::vector<int64_t> offsets{0, 60, 61, 200};
  at::set_num_threads(1);
  const at::Tensor want = ops::causal_attention(in.q, in.k, in.v, offsets);
  for (const auto isa : ops::kernels::available_isas()) {
    ops::kernels::use_isa(isa);
    for (const int threads : {1, 2}) {
      at::set_num_threads(threads);
      INFO(ops::kernels::table().name << " with " << threads << " threads");
      CHECK(at::equal(ops::causal_attention(in.q, in.k, in.v, offsets), want));
    }
  }
  at::set_num_threads(threads_before);
  ops::kernels::use_isa(isa_before);
}

TEST_CASE("a shared prefix gives the rows after it the bits of whole sequences",
          "[core][cpu][ops]") {
  at::manual_seed(8);
  // A prefix of 70 rows, then 33, 0 and 1 rows that go on after it, and one by itself.
  const Inputs in = random(114, 4, 2, 16);
  const std::vector<int64_t> offsets{0, 70, 103, 103, 104, 114}, prefix{-1, 0, 0, 0, -1};
  const at::Tensor packed = ops::causal_attention(in.q, in.k, in.v, offsets, {}, prefix);
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    const auto whole = [&](const at::Tensor& x) {
      const at::Tensor own = x.slice(0, offsets[i], offsets[i + 1]);
      return prefix[i] < 0 ? own : at::cat({x.slice(0, 0, 70), own});
    };
    const at::Tensor v = whole(in.v);
    const at::Tensor alone = ops::causal_attention(whole(in.q), whole(in.k), v, {0, v.size(0)});
    const int64_t length = offsets[i + 1] - offsets[i];
    CHECK(at::equal(packed.slice(0, offsets[i], offsets[i + 1]),
                    alone.slice(0, v.size(0) - length, v.size(0))));
  }
  CHECK(at::allclose(
      packed, ops::reference::causal_attention(in.q, in.k, in.v, offsets, {}, prefix), 1e-5, 1e-5));
  for (const std::vector<int64_t>& wrong : std::vector<std::vector<int64_t>>{
           {-1, 0, 0, 0}, {-1, 1, 0, 0, -1}, {-1, 0, 1, 0, -1}, {-1, 0, 4, 0, -1}}) {
    CHECK_THROWS_AS(ops::causal_attention(in.q, in.k, in.v, offsets, {}, wrong), ShapeError);
  }
}

TEST_CASE("attention with a window, a cap and a scale agrees with LibTorch", "[core][cpu][ops]") {
  at::manual_seed(8);
  const std::vector<int64_t> offsets{0, 1, 1, 18, 250};
  for (const auto& [heads, kv_heads] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {8, 4}, {14, 2}}) {
    const Inputs in = random(250, heads, kv_heads, 20);
    for (const int64_t window : {0, 1, 2, 15, 16, 17, 31, 32, 33, 64, 100, 231, 232, 1000}) {
      INFO("heads " << heads << " kv_heads " << kv_heads << " window " << window);
      const ops::AttentionOptions how{.scale = 0.4, .softcap = 5, .window = window};
      CHECK(at::allclose(ops::causal_attention(in.q, in.k, in.v, offsets, how),
                         ops::reference::causal_attention(in.q, in.k, in.v, offsets, how),
                         1e-5,
                         1e-5));
    }
    // A window that holds everything moves no bit.
    CHECK(at::equal(ops::causal_attention(in.q, in.k, in.v, offsets, {.window = 232}),
                    ops::causal_attention(in.q, in.k, in.v, offsets)));
  }
  const Inputs in = random(6, 4, 2, 8);
  CHECK_THROWS_AS(ops::causal_attention(in.q, in.k, in.v, {0, 6}, {.window = -1}), InvalidArgument);
  CHECK_THROWS_AS(ops::causal_attention(in.q, in.k, in.v, {0, 6}, {.softcap = -1}),
                  InvalidArgument);
}

TEST_CASE("decode equals prefill equals training in a window too, on every instruction set",
          "[core][cpu][ops]") {
  at::manual_seed(9);
  const auto isa_before = ops::kernels::isa_in_use();
  const int threads_before = at::get_num_threads();
  const Inputs in = random(140, 6, 2, 24);
  for (const int64_t window : {1, 5, 16, 33, 100}) {
    const ops::AttentionOptions how{.softcap = window == 5 ? 0.0 : 3.0, .window = window};
    ops::kernels::use_isa(ops::kernels::available_isas().front());
    at::set_num_threads(1);
    const at::Tensor want = ops::causal_attention(in.q, in.k, in.v, {0, 140}, how);
    for (const auto isa : ops::kernels::available_isas()) {
      ops::kernels::use_isa(isa);
      for (const int threads : {1, 2}) {
        at::set_num_threads(threads);
        INFO("window " << window << " on " << ops::kernels::table().name << ", " << threads);
        CHECK(at::equal(ops::causal_attention(in.q, in.k, in.v, {0, 140}, how), want));
        for (const int64_t block_size : {1, 16}) {
          CHECK(at::equal(in_steps(in, block_size, {1}, how), want));
          CHECK(at::equal(in_steps(in, block_size, {37, 1, 64}, how), want));
        }
      }
    }
  }
  ops::kernels::use_isa(isa_before);
  at::set_num_threads(threads_before);
}

TEST_CASE("a token outside the window, NaN included, does not move a row", "[core][cpu][ops]") {
  at::manual_seed(10);
  const Inputs in = random(80, 4, 2, 16);
  const ops::AttentionOptions how{.window = 12};
  const at::Tensor before = ops::causal_attention(in.q, in.k, in.v, {0, 80}, how);
  for (const int64_t token : {0, 30, 41}) {
    Inputs other{in.q, in.k.clone(), in.v.clone()};
    other.k[token].fill_(std::numeric_limits<float>::quiet_NaN());
    other.v[token].fill_(std::numeric_limits<float>::quiet_NaN());
    const at::Tensor after = ops::causal_attention(other.q, other.k, other.v, {0, 80}, how);
    CHECK(at::equal(after.narrow(0, 0, token), before.narrow(0, 0, token)));
    CHECK(at::equal(after.narrow(0, token + 12, 68 - token),
                    before.narrow(0, token + 12, 68 - token)));
    CHECK(after[token].isnan().all().item<bool>());
    CHECK(after[token + 11].isnan().all().item<bool>());
  }
}

TEST_CASE("a sequence does not see its neighbours in the batch", "[core][cpu][ops]") {
  at::manual_seed(4);
  const Inputs in = random(90, 4, 2, 16);
  const at::Tensor packed = ops::causal_attention(in.q, in.k, in.v, {0, 33, 34, 90});
  for (const auto& [begin, end] :
       std::vector<std::pair<int64_t, int64_t>>{{0, 33}, {33, 34}, {34, 90}}) {
    const Inputs one = in.cut(begin, end - begin);
    CHECK(at::equal(ops::causal_attention(one.q, one.k, one.v, {0, end - begin}),
                    packed.narrow(0, begin, end - begin)));
  }
}

TEST_CASE("a later token, NaN included, does not move an earlier row", "[core][cpu][ops]") {
  at::manual_seed(5);
  const Inputs in = random(80, 4, 2, 16);
  const at::Tensor before = ops::causal_attention(in.q, in.k, in.v, {0, 80});
  for (const int64_t token : {1, 40, 79}) {
    Inputs other{in.q, in.k.clone(), in.v.clone()};
    other.k[token].fill_(std::numeric_limits<float>::quiet_NaN());
    other.v[token].fill_(std::numeric_limits<float>::quiet_NaN());
    const at::Tensor after = ops::causal_attention(other.q, other.k, other.v, {0, 80});
    CHECK(at::equal(after.narrow(0, 0, token), before.narrow(0, 0, token)));
    CHECK(after[token].isnan().all().item<bool>());
  }
}

TEST_CASE("prefill and decode rows of many sequences share a step in any order",
          "[core][cpu][ops]") {
  at::manual_seed(6);
  const std::vector<int64_t> lengths{20, 33, 1, 50};
  std::vector<Inputs> sequences;
  std::vector<at::Tensor> want;
  for (const int64_t length : lengths) {
    sequences.push_back(random(length, 4, 2, 8));
    const Inputs& in = sequences.back();
    want.push_back(ops::causal_attention(in.q, in.k, in.v, {0, length}));
  }
  Cache cache(sequences[0], 40, 4);
  std::vector<std::vector<int32_t>> tables(4);
  for (size_t s = 0; s < 4; ++s) cache.grow(tables[s], lengths[s]);
  // The first step writes all but the last token of each; the second mixes what is left, last rows
  // first.
  const auto step = [&](const std::vector<std::pair<int32_t, int32_t>>& picks) {
    CachedRows rows;
    for (const auto& table : tables) rows.tables.push_back(&table);
    std::vector<at::Tensor> q, k, v;
    for (const auto& [s, p] : picks) {
      rows.tokens.push_back(0);
      rows.sequence.push_back(s);
      rows.positions.push_back(p);
      q.push_back(sequences[s].q[p]);
      k.push_back(sequences[s].k[p]);
      v.push_back(sequences[s].v[p]);
    }
    const at::Tensor out = cache.run({at::stack(q), at::stack(k), at::stack(v)}, rows);
    for (size_t i = 0; i < picks.size(); ++i) {
      INFO("sequence " << picks[i].first << " position " << picks[i].second);
      REQUIRE(at::equal(out[static_cast<int64_t>(i)], want[picks[i].first][picks[i].second]));
    }
  };
  std::vector<std::pair<int32_t, int32_t>> first, second;
  for (int32_t p = 0; p < 50; ++p) {
    for (int32_t s = 3; s >= 0; --s) {
      if (p < lengths[s]) (p < lengths[s] - 3 ? first : second).emplace_back(s, p);
    }
  }
  step(first);
  std::reverse(second.begin(), second.end());
  step(second);
}

TEST_CASE("the plain cached attention agrees with the kernel", "[core][cpu][ops]") {
  at::manual_seed(7);
  const Inputs in = random(30, 4, 2, 8);
  Cache a(in, 8, 4), b(in, 8, 4);
  std::vector<int32_t> table;
  a.grow(table, 30);
  CachedRows rows;
  rows.tables = {&table};
  for (int32_t p = 0; p < 30; ++p) {
    rows.positions.push_back(p);
    rows.sequence.push_back(0);
  }
  const at::Tensor plain = ops::reference::cached_attention(in.q, in.k, in.v, b.layer, 4, rows);
  CHECK(at::allclose(a.run(in, rows), plain, 1e-5, 1e-5));
  CHECK(at::equal(a.layer.keys.nan_to_num(), b.layer.keys.nan_to_num()));
}

TEST_CASE("attention of nothing is empty", "[core][cpu][ops]") {
  const Inputs in = random(0, 4, 2, 8);
  CHECK(ops::causal_attention(in.q, in.k, in.v, {0}).size(0) == 0);
  CHECK(ops::causal_attention(in.q, in.k, in.v, {0, 0, 0}).size(0) == 0);
  Cache cache(in, 1, 4);
  CHECK(cache.run(in, {}).size(0) == 0);
}

TEST_CASE("attention refuses what does not fit, by name", "[core][cpu][ops]") {
  const Inputs in = random(6, 4, 2, 8);
  CHECK_THROWS_AS(ops::causal_attention(in.q, in.k, in.v, {0, 5}), ShapeError);
  CHECK_THROWS_AS(ops::causal_attention(in.q, in.k, in.v, {0, 4, 3, 6}), ShapeError);
  CHECK_THROWS_AS(ops::causal_attention(in.q, in.k, in.v, {}), ShapeError);
  CHECK_THROWS_AS(ops::causal_attention(in.q, in.q.narrow(1, 0, 3), in.q.narrow(1, 0, 3), {0, 6}),
                  ShapeError);
  CHECK_THROWS_AS(ops::causal_attention(in.q, in.k, in.v.narrow(0, 0, 5), {0, 6}), ShapeError);

  Cache cache(in, 2, 4);
  const std::vector<int32_t> short_table{0}, wild_table{0, 2}, table{0, 1};
  const Inputs row = in.cut(0, 1);
  const auto at_position =
      [&](int32_t position, int32_t sequence, const std::vector<int32_t>& blocks) {
        return CachedRows{{0}, {position}, {sequence}, {&blocks}};
      };
  CHECK_THROWS_WITH(cache.run(row, at_position(4, 0, short_table)),
                    Catch::Contains("needs 2 blocks"));
  CHECK_THROWS_WITH(cache.run(row, at_position(4, 0, wild_table)),
                    Catch::Contains("the cache has 2"));
  CHECK_THROWS_AS(cache.run(row, at_position(-1, 0, table)), ShapeError);
  CHECK_THROWS_AS(cache.run(row, at_position(0, 1, table)), ShapeError);
  CHECK_THROWS_AS(cache.run(in, at_position(0, 0, table)), ShapeError);
}

}  // namespace praetor
