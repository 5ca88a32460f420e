#include "rollout/kv_blocks.h"

#include <algorithm>

#include "core/base/error.h"

namespace praetor {

KvBlocks::KvBlocks(int64_t count)
    : users_(static_cast<size_t>(count), 0), kept_(static_cast<size_t>(count)) {
  free_.reserve(users_.size());
  for (int64_t block = count - 1; block >= 0; --block) {
    free_.push_back(static_cast<int32_t>(block));
  }
}

std::optional<int32_t> KvBlocks::allocate() {
  if (free_.empty()) {
    if (idle_.empty()) return std::nullopt;
    const int32_t oldest = idle_.front();
    forget(oldest);
    if (on_evict_) on_evict_(oldest);
  }
  const int32_t block = free_.back();
  free_.pop_back();
  users_[static_cast<size_t>(block)] = 1;
  peak_ = std::max(peak_, used());
  return block;
}

void KvBlocks::share(int32_t block) {
  const bool idle = users(block) == 0 && kept(block).kept;
  PRAETOR_CHECK(users(block) > 0 || idle, "block ", block, " is free and cannot be shared");
  if (idle) idle_.erase(kept(block).idle);
  ++users_[static_cast<size_t>(block)];
  peak_ = std::max(peak_, used());
}

void KvBlocks::release(int32_t block) {
  PRAETOR_CHECK(users(block) > 0, "block ", block, " is free already");
  if (--users_[static_cast<size_t>(block)] > 0) return;
  if (kept(block).kept) {
    kept(block).idle = idle_.insert(idle_.end(), block);
  } else {
    free_.push_back(block);
  }
}

void KvBlocks::keep(int32_t block) {
  PRAETOR_CHECK(users(block) > 0, "block ", block, " is free and holds nothing to keep");
  kept(block).kept = true;
}

void KvBlocks::forget(int32_t block) {
  Kept& k = kept(block);
  if (!k.kept) return;
  k.kept = false;
  if (users(block) > 0) return;
  idle_.erase(k.idle);
  free_.push_back(block);
}

}  // namespace praetor
