#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <vector>

namespace praetor {

/// Hands out the blocks of a paged KV cache and counts who uses each. A block shared by several
/// sequences (the prompt of n samples) is free again when the last one lets go. A kept block is
/// then idle: what it holds may be shared again until room is needed and nothing else is free; the
/// block idle for longest goes first. Book-keeping only: the tensors are the cache's. One thread.
class KvBlocks {
 public:
  /// @param count  blocks of the cache, >= 1
  explicit KvBlocks(int64_t count);

  /// A block with one user, or nothing when none is free. The block freed last is handed out first,
  /// so that the memory in use stays small and warm; idle blocks come last.
  std::optional<int32_t> allocate();
  /// One user more; also the first one of an idle block.
  void share(int32_t block);
  /// One user less.
  void release(int32_t block);
  /// From now on the block is idle, not free, when it has no user.
  void keep(int32_t block);
  /// The block is an ordinary one again.
  void forget(int32_t block);
  /// Called when an idle block is handed out, which is forgotten then.
  void set_on_evict(std::function<void(int32_t)> on_evict) { on_evict_ = std::move(on_evict); }
  int32_t users(int32_t block) const { return users_[static_cast<size_t>(block)]; }

  int64_t total() const { return static_cast<int64_t>(users_.size()); }
  int64_t free() const {  ///< idle ones too
    return static_cast<int64_t>(free_.size() + idle_.size());
  }
  int64_t used() const { return total() - free(); }
  int64_t peak() const { return peak_; }  ///< most blocks in use at any time

 private:
  struct Kept {
    bool kept = false;
    std::list<int32_t>::iterator idle;  ///< valid while the block is kept and has no user
  };
  Kept& kept(int32_t block) { return kept_[static_cast<size_t>(block)]; }

  std::vector<int32_t> users_;
  std::vector<Kept> kept_;
  std::vector<int32_t> free_;  ///< a stack
  std::list<int32_t> idle_;    ///< longest idle first
  std::function<void(int32_t)> on_evict_;
  int64_t peak_ = 0;
};

/// Blocks that hold `tokens` tokens.
constexpr int64_t blocks_for(int64_t tokens, int64_t block_size) {
  return (tokens + block_size - 1) / block_size;
}

}  // namespace praetor
