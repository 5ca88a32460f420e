#include "core/model/kernels/packed_weight.h"

#include <c10/core/StorageImpl.h>
#include <c10/util/intrusive_ptr.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <tuple>

#include "core/model/kernels/isa.h"
#include "core/model/kernels/parallel.h"

namespace praetor::ops::kernels {
namespace {

using Key = std::tuple<const c10::StorageImpl*, int64_t, int64_t, int64_t>;  // offset, N, K

struct Entry {
  c10::weak_intrusive_ptr<c10::StorageImpl> storage;
  const void* data;
  uint32_t version;
  std::shared_ptr<PackedWeight> packed;
};

struct Cache {
  std::mutex mutex;
  std::map<Key, Entry> entries;
  int64_t packings = 0;

  void forget_dead() {
    std::erase_if(entries, [](const auto& entry) { return entry.second.storage.expired(); });
  }
};

Cache& cache() {
  // Lives as long as the process: tensors may die after static destructors.
  static Cache* const kCache = new Cache;
  return *kCache;
}

void pack(const at::Tensor& weight, PackedWeight& out) {
  const at::Tensor rows = weight.to(at::kFloat).contiguous();
  const int64_t n = rows.size(0), k = rows.size(1), panels = (n + kPanel - 1) / kPanel;
  out.n = n;
  out.k = k;
  float* to = out.panels.reserve(panels * k * kPanel);
  const float* from = rows.const_data_ptr<float>();
  const Table& loops = table();
  over_rows(panels, k * kPanel, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const float* pointers[kPanel];
      const int64_t columns = std::min(kPanel, n - p * kPanel);
      for (int64_t j = 0; j < columns; ++j) pointers[j] = from + (p * kPanel + j) * k;
      loops.transpose(pointers, 0, columns, k, to + p * k * kPanel);
    }
  });
}

}  // namespace

std::shared_ptr<const PackedWeight> packed_weight(const at::Tensor& weight) {
  Cache& all = cache();
  if (!weight.is_contiguous() || weight.is_inference()) {
    // Nothing to find it by: a copy, or a tensor without a version counter.
    auto packed = std::make_shared<PackedWeight>();
    pack(weight, *packed);
    const std::lock_guard lock(all.mutex);
    ++all.packings;
    return packed;
  }
  const c10::Storage& storage = weight.storage();
  const Key key{
      storage.unsafeGetStorageImpl(), weight.storage_offset(), weight.size(0), weight.size(1)};
  const auto version = static_cast<uint32_t>(weight._version());
  const void* data = weight.const_data_ptr();

  const std::lock_guard lock(all.mutex);
  auto found = all.entries.find(key);
  if (found == all.entries.end()) {
    all.forget_dead();
    Entry entry{storage.getWeakStorageImpl(), nullptr, 0, nullptr};
    found = all.entries.emplace(key, std::move(entry)).first;
  }
  Entry& entry = found->second;
  if (!entry.packed || entry.version != version || entry.data != data) {
    // A product of another thread may still read the old panels.
    if (!entry.packed || entry.packed.use_count() > 1) {
      entry.packed = std::make_shared<PackedWeight>();
    }
    pack(weight, *entry.packed);
    entry.version = version;
    entry.data = data;
    ++all.packings;
  }
  return entry.packed;
}

void forget_packed_weights(const at::Tensor& weight) {
  const c10::StorageImpl* const storage = weight.storage().unsafeGetStorageImpl();
  Cache& all = cache();
  const std::lock_guard lock(all.mutex);
  auto entry = all.entries.lower_bound(Key{storage, 0, 0, 0});
  while (entry != all.entries.end() && std::get<0>(entry->first) == storage)
    entry = all.entries.erase(entry);
}

PackedWeightStats packed_weight_stats() {
  Cache& all = cache();
  const std::lock_guard lock(all.mutex);
  all.forget_dead();
  PackedWeightStats stats{static_cast<int64_t>(all.entries.size()), 0, all.packings};
  for (const auto& [key, entry] : all.entries) {
    if (entry.packed)
      stats.bytes += entry.packed->panels.size() * static_cast<int64_t>(sizeof(float));
  }
  return stats;
}

}  // namespace praetor::ops::kernels
