#include "core/model/kernels/attention.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "core/model/kernels/attention_shape.h"
#include "core/model/kernels/buffer.h"
#include "core/model/kernels/isa.h"
#include "core/model/kernels/parallel.h"

namespace praetor::ops::kernels {
namespace {

constexpr int64_t kWeighRows = 6;  // most rows Table::weigh takes
constexpr int64_t kKeyBlock =
    128;  // keys whose values stay in the first-level cache while rows pass by
constexpr int64_t kScores = 1 << 18;  // floats of scores a task may hold

using Shape = AttentionShape;

// Keys of a cached sequence: blocks of `size` tokens, each [kv_heads, d, size].
struct KeyBlocks {
  std::vector<const float*> blocks;
  int64_t size = 0;
};

// Queries of one sequence, positions rising; its key rows (or blocks of keys) and value rows of
// positions 0, 1, ...
struct Queries {
  std::vector<int64_t> row, position;
  const float* const* keys;
  const float* const* values;
  const KeyBlocks* cached = nullptr;
};

// Some neighbouring queries of a sequence.
struct Tile {
  const Queries* queries;
  int64_t begin, end;
  int64_t base;  // a multiple of kPanel: no row sees a key before it
  int64_t length() const { return queries->position[end - 1] + 1; }  // keys up to its last row's
  int64_t span() const { return length() - base; }
};

struct Scratch {
  Buffer query, panel, scores, sums;
  std::vector<const float*> groups;
};

Scratch& scratch() {
  thread_local Scratch scratch;
  return scratch;
}

// Replaces a row's scores, of keys begin .. end counted from the tile's base, by their exponentials
// and returns the sum.
float weights_of(
    const Table& loops, const Shape& shape, float* scores, int64_t begin, int64_t end) {
  if (shape.softcap > 0) loops.softcap(scores + begin, shape.softcap, end - begin, scores + begin);
  return exponentials(loops, scores, begin, end);
}

// Scores of `n` rows that stand together in `query` with cached keys begin .. end: groups of 16
// keys that lie side by side in a block.
void cached_scores(const Table& loops,
                   const Shape& shape,
                   const KeyBlocks& keys,
                   int64_t kv,
                   int64_t n,
                   const float* query,
                   int64_t begin,
                   int64_t end,
                   float* scores,
                   int64_t lds) {
  constexpr int64_t kGroup = 16;
  const int64_t head = kv * shape.d * keys.size;
  std::vector<const float*>& groups = scratch().groups;
  groups.clear();
  int64_t from = begin;  // the first key of `groups`
  for (int64_t key = begin; key < end;) {
    const int64_t place = key % keys.size;
    const int64_t lanes = std::min({kGroup, keys.size - place, end - key});
    groups.push_back(keys.blocks[key / keys.size] + head + place);
    key += lanes;
    if (lanes == kGroup && key < end) continue;
    const auto count = static_cast<int64_t>(groups.size());
    loops.scores(
        n, shape.d, query, groups.data(), keys.size, count, lanes, scores + from - begin, lds);
    groups.clear();
    from = key;
  }
}

// Attention of the tile's queries for the heads that share KV head `kv`. Row r is head r % group of
// query r / group.
void attend(const Table& loops,
            const Shape& shape,
            const float* q,
            const Tile& tile,
            int64_t kv,
            float* out) {
  const Queries& queries = *tile.queries;
  const int64_t group = shape.group(), d = shape.d, offset = kv * d, base = tile.base;
  const int64_t rows = (tile.end - tile.begin) * group, longest = tile.length();
  const int64_t lds = (tile.span() + kPanel - 1) / kPanel * kPanel;
  const auto position = [&](int64_t r) { return queries.position[tile.begin + r / group]; };
  const auto length = [&](int64_t r) { return position(r) + 1; };
  const auto first = [&](int64_t r) { return shape.first(position(r)); };
  const auto place = [&](int64_t r) {
    return (queries.row[tile.begin + r / group] * shape.heads + kv * group + r % group) * d;
  };
  const int64_t step = std::min(loops.tile_rows, 2 * kWeighRows);
  Scratch& memory = scratch();
  float* query = memory.query.reserve(rows * d);
  float* panel = memory.panel.reserve(d * kPanel);
  float* scores = memory.scores.reserve(rows * lds);
  float* sums = memory.sums.reserve(rows * d);

  for (int64_t r = 0; r < rows; r += step) {
    const int64_t n = std::min(step, rows - r);
    for (int64_t i = 0; i < n; ++i) {
      const float* from = q + place(r + i);
      for (int64_t j = 0; j < d; ++j) query[r * d + j * n + i] = from[j] * shape.scale;
    }
  }
  for (int64_t r = 0; queries.cached && r < rows; r += step) {
    const int64_t n = std::min(step, rows - r);
    const int64_t from = first(r) / kPanel * kPanel;
    cached_scores(loops,
                  shape,
                  *queries.cached,
                  kv,
                  n,
                  query + r * d,
                  from,
                  length(r + n - 1),
                  scores + r * lds + from - base,
                  lds);
  }
  for (int64_t key = base; !queries.cached && key < longest; key += kPanel) {
    loops.transpose(queries.keys + key, offset, std::min(kPanel, longest - key), d, panel);
    for (int64_t r = 0; r < rows; r += step) {
      const int64_t n = std::min(step, rows - r);
      // All of these end before this panel, or begin behind it.
      if (length(r + n - 1) <= key || first(r) >= key + kPanel) continue;
      loops.product(n, d, query + r * d, n, panel, 0, 1, scores + r * lds + key - base, lds, false);
    }
  }
  std::vector<float> inverse(static_cast<size_t>(rows));
  for (int64_t r = 0; r < rows; ++r) {
    inverse[r] =
        1.0f / weights_of(loops, shape, scores + r * lds, first(r) - base, length(r) - base);
  }

  // A row's chain runs over its own keys alone. Neighbours go together over the keys that all of
  // them see, [shared_from, shared_to); what a row has before and behind those, it does by itself.
  const auto last_of = [&](int64_t r) { return std::min(r + kWeighRows, rows) - 1; };
  const auto shared_from = [&](int64_t r) { return first(last_of(r / kWeighRows * kWeighRows)); };
  const auto shared_to = [&](int64_t r) { return length(r / kWeighRows * kWeighRows); };
  const auto weigh = [&](int64_t r, int64_t n, int64_t begin, int64_t end, bool resume) {
    loops.weigh(n,
                end - begin,
                scores + r * lds + begin - base,
                lds,
                queries.values + begin,
                offset,
                d,
                sums + r * d,
                d,
                resume);
  };
  const auto begun_alone = [&](int64_t r) {  // some row of the group has keys before the shared
    return first(r / kWeighRows * kWeighRows) < shared_from(r);
  };
  for (int64_t r = 0; r < rows; ++r) {
    if (!begun_alone(r)) continue;
    std::fill(sums + r * d, sums + (r + 1) * d, 0.0f);
    const int64_t end = std::min(shared_from(r), length(r));
    if (first(r) < end) weigh(r, 1, first(r), end, true);
  }
  for (int64_t key = base; key < longest; key += kKeyBlock) {
    for (int64_t r = 0; r < rows; r += kWeighRows) {
      const int64_t begin = std::max(key, shared_from(r));
      const int64_t end = std::min(shared_to(r), key + kKeyBlock);
      if (begin >= end) continue;
      weigh(r, last_of(r) + 1 - r, begin, end, begin > shared_from(r) || begun_alone(r));
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t from = std::max(shared_from(r), shared_to(r));
    if (from < length(r)) weigh(r, 1, from, length(r), true);
    const float* sum = sums + r * d;
    float* to = out + place(r);
    for (int64_t j = 0; j < d; ++j) to[j] = sum[j] * inverse[r];
  }
}

// All queries: cut into tiles, tiles and KV heads handed out to threads, longest first.
void attend_all(const Shape& shape, const float* q, const std::vector<Queries>& all, float* out) {
  std::vector<Tile> tiles;
  int64_t work = 0;
  for (const Queries& queries : all) {
    const auto count = static_cast<int64_t>(queries.row.size());
    for (int64_t begin = 0; begin < count;) {
      const int64_t base = shape.first(queries.position[begin]) / kPanel * kPanel;
      const int64_t keys = queries.position[std::min(begin + 64, count) - 1] + 1 - base;
      const int64_t rows = std::min<int64_t>(60, kScores / (keys + kPanel));
      const int64_t end = std::min(count, begin + std::max<int64_t>(1, rows / shape.group()));
      tiles.push_back({&queries, begin, end, base});
      work += (end - begin) * tiles.back().span() * 3 * shape.heads * shape.d;
      begin = end;
    }
  }
  std::stable_sort(tiles.begin(), tiles.end(), [](const Tile& a, const Tile& b) {
    return (a.end - a.begin) * a.span() > (b.end - b.begin) * b.span();
  });
  const Table& loops = table();
  const auto tasks = static_cast<int64_t>(tiles.size()) * shape.kv_heads;
  run_tasks(threads_for(work), tasks, [&](int64_t i) {
    attend(loops, shape, q, tiles[i / shape.kv_heads], i % shape.kv_heads, out);
  });
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            const std::vector<int64_t>& offsets,
                            const AttentionOptions& options,
                            const std::vector<int64_t>& prefix) {
  const Shape shape(q.size(1), k.size(1), q.size(2), options);
  const at::Tensor qc = q.contiguous(), kc = k.contiguous(), vc = v.contiguous();
  at::Tensor out = at::empty(q.sizes(), q.options().requires_grad(false));
  const int64_t total = q.size(0), row = shape.kv_heads * shape.d;
  std::vector<const float*> keys(total), values(total);
  for (int64_t i = 0; i < total; ++i) {
    keys[i] = kc.const_data_ptr<float>() + i * row;
    values[i] = vc.const_data_ptr<float>() + i * row;
  }
  std::vector<Queries> all;
  std::vector<std::vector<const float*>> pointers;  // of sequences with a prefix
  pointers.reserve(2 * prefix.size());
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    const int64_t begin = offsets[i], length = offsets[i + 1] - begin;
    if (length == 0) continue;
    Queries queries{std::vector<int64_t>(length),
                    std::vector<int64_t>(length),
                    keys.data() + begin,
                    values.data() + begin};
    int64_t before = 0;
    if (!prefix.empty() && prefix[i] >= 0) {
      const int64_t first = offsets[prefix[i]];
      before = offsets[prefix[i] + 1] - first;
      const auto joined = [&](const std::vector<const float*>& of) {
        std::vector<const float*> list(of.begin() + first, of.begin() + first + before);
        list.insert(list.end(), of.begin() + begin, of.begin() + begin + length);
        return pointers.emplace_back(std::move(list)).data();
      };
      queries.keys = joined(keys);
      queries.values = joined(values);
    }
    std::iota(queries.row.begin(), queries.row.end(), begin);
    std::iota(queries.position.begin(), queries.position.end(), before);
    all.push_back(std::move(queries));
  }
  attend_all(shape, qc.const_data_ptr<float>(), all, out.mutable_data_ptr<float>());
  return out;
}

at::Tensor cached_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            KvLayer& layer,
                            int64_t,
                            const CachedRows& rows,
                            const AttentionOptions& options) {
  const at::Tensor qc = q.contiguous(), kc = k.contiguous(), vc = v.contiguous();
  at::Tensor out = at::empty(q.sizes(), q.options().requires_grad(false));
  cached_attention(qc.const_data_ptr<float>(),
                   kc.const_data_ptr<float>(),
                   vc.const_data_ptr<float>(),
                   q.size(1),
                   layer,
                   rows,
                   options,
                   out.mutable_data_ptr<float>());
  return out;
}

void cached_attention(const float* q,
                      const float* k,
                      const float* v,
                      int64_t heads,
                      KvLayer& layer,
                      const CachedRows& rows,
                      const AttentionOptions& options,
                      float* out) {
  const Shape shape(heads, layer.keys.size(1), layer.keys.size(2), options);
  const int64_t block_size = layer.keys.size(3), row = shape.kv_heads * shape.d;
  const int64_t block = row * block_size;
  const auto total = static_cast<int64_t>(rows.positions.size());
  float* keys = layer.keys.mutable_data_ptr<float>();
  float* values = layer.values.mutable_data_ptr<float>();

  std::vector<std::vector<int64_t>> of_sequence(rows.tables.size());
  for (int64_t i = 0; i < total; ++i) {
    const int64_t position = rows.positions[i];
    const int64_t id = (*rows.tables[rows.sequence[i]])[position / block_size];
    const int64_t place = position % block_size;
    const float* key = k + i * row;
    for (int64_t j = 0; j < row; ++j) keys[id * block + j * block_size + place] = key[j];
    std::memcpy(values + id * block + place * row, v + i * row, row * sizeof(float));
    of_sequence[rows.sequence[i]].push_back(i);
  }

  std::vector<Queries> all;
  std::vector<KeyBlocks> key_blocks;
  std::vector<std::vector<const float*>> pointers;
  all.reserve(of_sequence.size());
  key_blocks.reserve(of_sequence.size());
  pointers.reserve(of_sequence.size());
  for (size_t s = 0; s < of_sequence.size(); ++s) {
    auto& mine = of_sequence[s];
    if (mine.empty()) continue;
    std::stable_sort(mine.begin(), mine.end(), [&](int64_t a, int64_t b) {
      return rows.positions[a] < rows.positions[b];
    });
    const int64_t length = rows.positions[mine.back()] + 1;
    KeyBlocks& key = key_blocks.emplace_back(KeyBlocks{{}, block_size});
    std::vector<const float*>& value = pointers.emplace_back(length);
    for (int64_t p = 0; p < length; p += block_size) {
      const int64_t first = int64_t{(*rows.tables[s])[p / block_size]} * block;
      key.blocks.push_back(keys + first);
      for (int64_t i = p; i < std::min(p + block_size, length); ++i)
        value[i] = values + first + (i - p) * row;
    }
    Queries queries{mine, {}, nullptr, value.data(), &key};
    for (const int64_t i : mine) queries.position.push_back(rows.positions[i]);
    all.push_back(std::move(queries));
  }
  attend_all(shape, q, all, out);
}

}  // namespace praetor::ops::kernels
