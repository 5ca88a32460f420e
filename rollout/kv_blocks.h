#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace praetor {

/// Hands out the blocks of a paged KV cache and counts who uses each. A block shared by several
/// sequences (the prompt of n samples) is free again when the last one lets go. Book-keeping only:
/// the tensors are the cache's. One thread.
class KvBlocks {
 public:
  /// @param count  blocks of the cache, >= 1
  explicit KvBlocks(int64_t count);

  /// A block with one user, or nothing when none is free. The block freed last is handed out first,
  /// so that the memory in use stays small and warm.
  std::optional<int32_t> allocate();
  /// One user more.
  void share(int32_t block);
  /// One user less.
  void release(int32_t block);
  int32_t users(int32_t block) const { return users_[static_cast<size_t>(block)]; }

  int64_t total() const { return static_cast<int64_t>(users_.size()); }
  int64_t free() const { return static_cast<int64_t>(free_.size()); }
  int64_t used() const { return total() - free(); }
  int64_t peak() const { return peak_; }  ///< most blocks in use at any time

 private:
  std::vector<int32_t> users_;
  std::vector<int32_t> free_;  ///< a stack
  int64_t peak_ = 0;
};

/// Blocks that hold `tokens` tokens.
constexpr int64_t blocks_for(int64_t tokens, int64_t block_size) {
  return (tokens + block_size - 1) / block_size;
}

}  // namespace praetor
