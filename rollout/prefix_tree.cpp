#include "rollout/prefix_tree.h"

#include <utility>

namespace praetor {

PrefixTree::PrefixTree(KvBlocks& blocks)
    : blocks_(blocks), key_of_(static_cast<size_t>(blocks.total()), nullptr) {
  blocks_.set_on_evict([this](int32_t block) { forget(block); });
}

size_t PrefixTree::Hash::operator()(const Key& key) const {
  uint64_t h = static_cast<uint64_t>(key.parent) * 0x9E3779B97F4A7C15U;
  for (const int64_t token : key.tokens) {
    h = (h ^ static_cast<uint64_t>(token)) * 0x100000001B3U;
    h ^= h >> 29U;
  }
  return static_cast<size_t>(h);
}

std::optional<PrefixTree::Found> PrefixTree::find(Node parent,
                                                  std::span<const int64_t> tokens,
                                                  Models models) const {
  const auto found = nodes_.find(Key{parent, {tokens.begin(), tokens.end()}});
  if (found == nodes_.end() || (found->second.models & models) != models) return std::nullopt;
  return Found{found->second.node, found->second.block};
}

PrefixTree::Node PrefixTree::insert(Node parent,
                                    std::span<const int64_t> tokens,
                                    int32_t block,
                                    Models models) {
  const auto [place, fresh] =
      nodes_.try_emplace(Key{parent, {tokens.begin(), tokens.end()}}, Entry{next_, block, models});
  Entry& entry = place->second;
  if (fresh) {
    ++next_;
  } else {
    // The same tokens computed by more models serve everybody; the node stays, and its children.
    const bool serves_more = entry.models != models && (entry.models & models) == entry.models;
    if (!serves_more) return entry.node;
    key_of_[static_cast<size_t>(entry.block)] = nullptr;
    blocks_.forget(entry.block);
    entry.block = block;
    entry.models = models;
  }
  key_of_[static_cast<size_t>(block)] = &place->first;
  blocks_.keep(block);
  return entry.node;
}

void PrefixTree::forget(int32_t block) {
  const Key* key = std::exchange(key_of_[static_cast<size_t>(block)], nullptr);
  if (key) nodes_.erase(nodes_.find(*key));
}

void PrefixTree::clear() {
  for (const auto& [key, entry] : nodes_) blocks_.forget(entry.block);
  nodes_.clear();
  key_of_.assign(key_of_.size(), nullptr);
}

}  // namespace praetor
