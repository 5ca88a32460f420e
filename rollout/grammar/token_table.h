#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <vector>

#include "core/tokenizer/tokenizer.h"

namespace praetor::grammar {

/// Tokens by their bytes, as a tree in preorder: a walk that turns back at a node goes on at `end`.
struct TokenTrie {
  struct Node {
    uint8_t byte;
    int32_t depth;  ///< of its last byte, from 1
    int32_t end;    ///< first node behind those below this one
    int32_t first;  ///< tokens ids[first .. last) are spelled by the bytes down to here
    int32_t last;
  };
  std::vector<Node> nodes;
  std::vector<int32_t> ids;
  int32_t deepest = 0;

  /// @param bytes  by id; tokens without bytes stay out
  explicit TokenTrie(const std::vector<std::string>& bytes);
};

/// What every token of a vocabulary adds to a text. Immutable; any thread.
class TokenTable {
 public:
  /// @param size  of a row of logits; ids that the tokenizer lacks add nothing
  TokenTable(const Tokenizer& tokenizer, int64_t size);

  /// Bytes of a token, as the first of a text or behind others. Empty: it adds nothing.
  const std::string& bytes(int64_t id, bool first) const {
    return (first ? first_ : later_)[static_cast<size_t>(id)];
  }
  const TokenTrie& trie(bool first) const { return first ? first_trie_ : later_trie_; }
  int64_t size() const { return static_cast<int64_t>(later_.size()); }
  /// The bytes that a token spells by itself.
  const std::bitset<256>& single_bytes() const { return single_bytes_; }

 private:
  std::vector<std::string> first_;
  std::vector<std::string> later_;
  TokenTrie first_trie_;
  TokenTrie later_trie_;
  std::bitset<256> single_bytes_;
};

}  // namespace praetor::grammar
