#include "core/model/kernels/packed_weight.h"

#include <ATen/ops/empty.h>
#include <c10/core/StorageImpl.h>
#include <c10/util/intrusive_ptr.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <mutex>
#include <tuple>

#include "core/base/error.h"
#include "core/model/kernels/isa.h"
#include "core/model/kernels/parallel.h"

namespace praetor::ops::kernels {
namespace {

// Storage, offset, N, K, kind.
using Key = std::tuple<const c10::StorageImpl*, int64_t, int64_t, int64_t, WeightKind>;

struct Entry {
  c10::weak_intrusive_ptr<c10::StorageImpl> storage;
  const void* data;
  uint32_t version;
  std::shared_ptr<PackedWeight> packed;
  bool alone = false;  ///< there are no other values to make it of
};

struct Cache {
  std::mutex mutex;
  std::map<Key, Entry> entries;
  int64_t packings = 0;

  Entry& at(const at::Tensor& weight, WeightKind kind) {
    const c10::Storage& storage = weight.storage();
    const Key key{storage.unsafeGetStorageImpl(),
                  weight.storage_offset(),
                  weight.size(0),
                  weight.size(1),
                  kind};
    const auto found = entries.find(key);
    if (found != entries.end()) return found->second;
    forget_dead();
    return entries.emplace(key, Entry{storage.getWeakStorageImpl(), nullptr, 0, nullptr})
        .first->second;
  }
  void forget_dead() {
    std::erase_if(entries, [](const auto& entry) { return entry.second.storage.expired(); });
  }
};

Cache& cache() {
  // Lives as long as the process: tensors may die after static destructors.
  static Cache* const kCache = new Cache;
  return *kCache;
}

constexpr int64_t kStripe = 128;  // of K, whose transpose stays in the first-level cache

/// Some rows of a weight, which are the columns of a panel.
struct Columns {
  const float* at[kPanel];
  int64_t count, k;
};

// Calls narrow(first, length, floats) for stripes [length][32] of the panel.
template <typename Narrow>
void by_stripes(const Columns& columns, const Narrow& narrow) {
  thread_local Buffer floats;
  float* stripe = floats.reserve(kStripe * kPanel);
  for (int64_t i = 0; i < columns.k; i += kStripe) {
    const int64_t length = std::min(kStripe, columns.k - i);
    table().transpose(columns.at, i, columns.count, length, stripe);
    narrow(i, length, stripe);
  }
}

void pack_bfloat16(const Columns& columns, uint16_t* panel) {
  by_stripes(columns, [&](int64_t first, int64_t length, const float* floats) {
    uint16_t* to = panel + first * kPanel;
    for (int64_t i = 0; i < length * kPanel; ++i) {
      const auto bits = std::bit_cast<uint32_t>(floats[i]);
      const uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
      // To round a NaN could carry into the sign.
      const bool nan = (bits & 0x7FFFFFFF) > 0x7F800000;
      to[i] = static_cast<uint16_t>(nan ? 0x7FC0U : rounded);
    }
  });
}

// max |x|, or NaN when an element is not finite.
float greatest(const float* x, int64_t n) {
  constexpr int64_t kLanes = 16;
  float most[kLanes] = {}, broken[kLanes] = {};  // broken: sums of 0 x
  const auto see = [&](int64_t i, int64_t lane) {
    const float size = std::fabs(x[i]);
    most[lane] = size > most[lane] ? size : most[lane];
    broken[lane] += 0.0f * x[i];
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) see(i + lane, lane);
  }
  for (; i < n; ++i) see(i, 0);
  float out = 0, sum = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    out = std::max(out, most[lane]);
    sum += broken[lane];
  }
  return out + sum;
}

void pack_int8(const Columns& columns, int8_t* panel, float* scales) {
  float steps[kPanel] = {};  // 1 / scale
  for (int64_t j = 0; j < columns.count; ++j) {
    const float most = greatest(columns.at[j], columns.k);
    const bool fits = most >= 1e-30f;  // smaller ones count as zeros
    steps[j] = fits ? 127.0f / most : 0.0f;
    scales[j] = fits ? most / 127.0f : 0.0f * most;
  }
  by_stripes(columns, [&](int64_t first, int64_t length, const float* floats) {
    int8_t* to = panel + first * kPanel;
    for (int64_t i = 0; i < length; ++i) {
      for (int64_t j = 0; j < kPanel; ++j) {
        // 1.5 * 2^23 + q has q in its lowest bits, rounded to the nearest, ties to even.
        const float shifted = floats[i * kPanel + j] * steps[j] + 12582912.0f;
        to[i * kPanel + j] = static_cast<int8_t>(std::bit_cast<uint32_t>(shifted) & 0xFF);
      }
    }
  });
}

int64_t element_bytes(WeightKind kind) {
  return kind == WeightKind::kFloat32 ? 4 : kind == WeightKind::kBfloat16 ? 2 : 1;
}

void pack(const at::Tensor& weight, PackedWeight& out) {
  const at::Tensor rows = weight.to(at::kFloat).contiguous();
  const int64_t n = rows.size(0), k = rows.size(1), panels = (n + kPanel - 1) / kPanel;
  out.n = n;
  out.k = k;
  float* to = out.panels.reserve(panels * k * kPanel * element_bytes(out.kind) / 4);
  float* scales = out.kind == WeightKind::kInt8 ? out.scales.reserve(n) : nullptr;
  const float* from = rows.const_data_ptr<float>();
  over_rows(panels, k * kPanel, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      Columns columns{{}, std::min(kPanel, n - p * kPanel), k};
      for (int64_t j = 0; j < columns.count; ++j) columns.at[j] = from + (p * kPanel + j) * k;
      const int64_t at = p * k * kPanel;
      switch (out.kind) {
        case WeightKind::kFloat32:
          table().transpose(columns.at, 0, columns.count, k, to + at);
          break;
        case WeightKind::kBfloat16:
          pack_bfloat16(columns, reinterpret_cast<uint16_t*>(to) + at);
          break;
        case WeightKind::kInt8:
          pack_int8(columns, reinterpret_cast<int8_t*>(to) + at, scales + p * kPanel);
          break;
      }
    }
  });
}

std::shared_ptr<PackedWeight> empty_of(WeightKind kind) {
  auto out = std::make_shared<PackedWeight>();
  out->kind = kind;
  return out;
}

/// Puts the packed form of `weight` in `into`, in the memory that is there when nobody reads it.
void pack_anew(const at::Tensor& weight, WeightKind kind, std::shared_ptr<PackedWeight>& into) {
  // A product of another thread may still read the old panels.
  if (!into || into.use_count() > 1) into = empty_of(kind);
  pack(weight, *into);
}

}  // namespace

std::shared_ptr<const PackedWeight> packed_weight(const at::Tensor& weight, WeightKind kind) {
  Cache& all = cache();
  if (!weight.is_contiguous() || weight.is_inference()) {
    // Nothing to find it by: a copy, or a tensor without a version counter.
    const auto packed = empty_of(kind);
    pack(weight, *packed);
    const std::lock_guard lock(all.mutex);
    ++all.packings;
    return packed;
  }
  const auto version = static_cast<uint32_t>(weight._version());
  const void* data = weight.const_data_ptr();

  const std::lock_guard lock(all.mutex);
  Entry& entry = all.at(weight, kind);
  if (entry.alone) return entry.packed;
  if (!entry.packed || entry.version != version || entry.data != data) {
    PRAETOR_CHECK(data || weight.numel() == 0,
                  "a weight that is packed in another kind alone is multiplied as ",
                  to_string(kind));
    pack_anew(weight, kind, entry.packed);
    entry.version = version;
    entry.data = data;
    ++all.packings;
  }
  return entry.packed;
}

namespace {

/// The entry of a tensor of packed_alone; null for another.
Entry* alone(Cache& all, const at::Tensor& weight) {
  const c10::StorageImpl* const storage = weight.storage().unsafeGetStorageImpl();
  auto entry = all.entries.lower_bound(Key{storage, 0, 0, 0, WeightKind::kFloat32});
  for (; entry != all.entries.end() && std::get<0>(entry->first) == storage; ++entry) {
    if (entry->second.alone) return &entry->second;
  }
  return nullptr;
}

}  // namespace

at::Tensor packed_alone(const at::Tensor& values, WeightKind kind) {
  at::Tensor out = at::empty({0}, values.options().requires_grad(false));
  out.unsafeGetTensorImpl()->set_sizes_contiguous(values.sizes());
  Cache& all = cache();
  const std::lock_guard lock(all.mutex);
  Entry& entry = all.at(out, kind);
  entry.alone = true;
  pack_anew(values, kind, entry.packed);
  ++all.packings;
  return out;
}

void renew_packed_alone(const at::Tensor& weight, const at::Tensor& values) {
  Cache& all = cache();
  const std::lock_guard lock(all.mutex);
  Entry* const entry = alone(all, weight);
  PRAETOR_CHECK(entry && weight.sizes() == values.sizes(),
                "new values of a weight that is packed alone");
  pack_anew(values, entry->packed->kind, entry->packed);
  ++all.packings;
}

std::optional<WeightKind> kind_packed_alone(const at::Tensor& weight) {
  Cache& all = cache();
  const std::lock_guard lock(all.mutex);
  const Entry* const entry = alone(all, weight);
  return entry ? std::optional(entry->packed->kind) : std::nullopt;
}

void forget_packed_weights(const at::Tensor& weight) {
  const c10::StorageImpl* const storage = weight.storage().unsafeGetStorageImpl();
  Cache& all = cache();
  const std::lock_guard lock(all.mutex);
  auto entry = all.entries.lower_bound(Key{storage, 0, 0, 0, WeightKind::kFloat32});
  while (entry != all.entries.end() && std::get<0>(entry->first) == storage)
    entry = all.entries.erase(entry);
}

PackedWeightStats packed_weight_stats() {
  Cache& all = cache();
  const std::lock_guard lock(all.mutex);
  all.forget_dead();
  PackedWeightStats stats{static_cast<int64_t>(all.entries.size()), 0, all.packings};
  for (const auto& [key, entry] : all.entries) {
    if (entry.packed) {
      const int64_t floats = entry.packed->panels.size() + entry.packed->scales.size();
      stats.bytes += floats * static_cast<int64_t>(sizeof(float));
    }
  }
  return stats;
}

}  // namespace praetor::ops::kernels
