#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/model/packed.h"

namespace praetor {

/// Packs `sequences` in their order, what neighbours begin with once, into batches of at most
/// `batch_tokens` tokens (a longer sequence alone) and calls `forward(batch, places)` for each;
/// places[i] is the index of the batch's i-th sequence. Empty sequences are left out.
/// `switch_length`: of the model, see pack_shared.
inline void for_each_packed_batch(
    const std::vector<std::vector<int64_t>>& sequences,
    int64_t batch_tokens,
    int64_t switch_length,
    const std::function<void(const SharedPack&, const std::vector<size_t>&)>& forward) {
  std::vector<std::span<const int64_t>> batch;
  std::vector<size_t> places;
  int64_t total = 0;
  const auto flush = [&] {
    if (!batch.empty()) forward(pack_shared(batch, switch_length), places);
    batch.clear();
    places.clear();
    total = 0;
  };
  for (size_t i = 0; i < sequences.size(); ++i) {
    const auto length = static_cast<int64_t>(sequences[i].size());
    if (length == 0) continue;
    if (total + length > batch_tokens) flush();
    batch.emplace_back(sequences[i]);
    places.push_back(i);
    total += length;
  }
  flush();
}

}  // namespace praetor
