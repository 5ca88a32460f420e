#include "rollout/kv_blocks.h"

#include <algorithm>

#include "core/base/error.h"

namespace praetor {

KvBlocks::KvBlocks(int64_t count) : users_(static_cast<size_t>(count), 0) {
  free_.reserve(users_.size());
  for (int64_t block = count - 1; block >= 0; --block) {
    free_.push_back(static_cast<int32_t>(block));
  }
}

std::optional<int32_t> KvBlocks::allocate() {
  if (free_.empty()) return std::nullopt;
  const int32_t block = free_.back();
  free_.pop_back();
  users_[static_cast<size_t>(block)] = 1;
  peak_ = std::max(peak_, used());
  return block;
}

void KvBlocks::share(int32_t block) {
  PRAETOR_CHECK(users(block) > 0, "block ", block, " is free and cannot be shared");
  ++users_[static_cast<size_t>(block)];
}

void KvBlocks::release(int32_t block) {
  PRAETOR_CHECK(users(block) > 0, "block ", block, " is free already");
  if (--users_[static_cast<size_t>(block)] == 0) free_.push_back(block);
}

}  // namespace praetor
