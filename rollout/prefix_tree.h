#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "rollout/kv_blocks.h"

namespace praetor {

/// Finds cache blocks by the tokens they were computed from, so that sequences that begin alike
/// compute the beginning once. A node is one full block behind its parent's, from the first token
/// on; it is found while the block holds the keys and values, also when nobody uses it any more.
/// Exact: tokens are compared, not digests. One thread.
class PrefixTree {
 public:
  using Node = int64_t;
  /// Which models' keys and values a block holds, one bit each.
  using Models = uint32_t;
  struct Found {
    Node node;
    int32_t block;
  };

  /// `blocks` is borrowed; the tree takes its on_evict.
  explicit PrefixTree(KvBlocks& blocks);

  /// Where a sequence starts. Nothing is shared between kinds.
  static constexpr Node root(uint32_t kind) { return -1 - static_cast<Node>(kind); }
  /// The block that holds `tokens` behind `parent` for all of `models`.
  std::optional<Found> find(Node parent, std::span<const int64_t> tokens, Models models) const;
  /// Makes `block` found from now on, unless one that serves as well is there already. Returns the
  /// node either way.
  Node insert(Node parent, std::span<const int64_t> tokens, int32_t block, Models models);
  /// Forgets everything: the weights have changed.
  void clear();
  int64_t size() const { return static_cast<int64_t>(nodes_.size()); }

 private:
  struct Key {
    Node parent;
    std::vector<int64_t> tokens;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    size_t operator()(const Key& key) const;
  };
  struct Entry {
    Node node;
    int32_t block;
    Models models;
  };
  void forget(int32_t block);

  KvBlocks& blocks_;
  std::unordered_map<Key, Entry, Hash> nodes_;
  std::vector<const Key*> key_of_;  ///< by block; null: in no node
  Node next_ = 1;
};

}  // namespace praetor
