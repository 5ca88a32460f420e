#include "core/tokenizer/bpe.h"

#include <queue>
#include <utility>

#include "core/base/text.h"
#include "core/tokenizer/unicode.h"

namespace praetor {

Bpe::Bpe(const JsonView& model, Vocabulary& vocabulary) : vocabulary_(vocabulary) {
  if (model.has("dropout")) {
    const JsonView dropout = model.at("dropout");
    if (!dropout.json().is_number() || dropout.json().get<double>() != 0.0) {
      dropout.fail("dropout is not supported; null is wanted");
    }
  }
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.string_or(affix, "").empty())
      model.at(affix).fail("is not supported; null is wanted");
  }
  byte_fallback_ = model.boolean_or("byte_fallback", false);
  fuse_unknown_ = model.boolean_or("fuse_unk", false);
  ignore_merges_ = model.boolean_or("ignore_merges", false);
  read_vocabulary(model.at("vocab"));
  read_merges(model.at("merges"));
  if (model.has("unk_token")) {
    unknown_token_ = model.at("unk_token").string();
    const auto id = vocabulary.id(*unknown_token_);
    if (!id)
      model.at("unk_token").fail("\"", printable(*unknown_token_), "\" is not in the vocabulary");
    unknown_ = static_cast<int32_t>(*id);
  }
  byte_tokens_ = byte_token_ids(vocabulary);
}

void Bpe::read_vocabulary(const JsonView& vocab) {
  for (const auto& [token, id] : vocab.object().json().items()) {
    const JsonView entry = vocab.child(token, id);
    vocabulary_.add(token, entry.integer(0, kMaxTokenId), vocab.place());
  }
  if (vocabulary_.size() == 0) vocab.fail("is empty");
}

void Bpe::read_merges(const JsonView& merges) {
  const nlohmann::json& list = merges.array().json();
  merges_.reserve(list.size());
  for (size_t rank = 0; rank < list.size(); ++rank) {
    std::string left, right;
    const nlohmann::json& entry = list[rank];
    if (entry.is_array() && entry.size() == 2) {
      const JsonView both = merges.element(rank);
      left = both.element(0).string();
      right = both.element(1).string();
    } else if (entry.is_string()) {
      const auto& text = entry.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
        merges.element(rank).fail(
            "\"", printable(text), "\" is not two tokens with a space between");
      }
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else {
      merges.element(rank).fail("a pair of tokens is wanted");
    }
    std::array<int32_t, 3> ids{};
    size_t i = 0;
    for (const std::string& token : {left, right, left + right}) {
      const auto id = vocabulary_.id(token);
      if (!id) {
        merges.element(rank).fail("the merge of \"",
                                  printable(left),
                                  "\" and \"",
                                  printable(right),
                                  "\" needs the token \"",
                                  printable(token),
                                  "\", which is not in the vocabulary");
      }
      ids[i++] = static_cast<int32_t>(*id);
    }
    merges_.insert_or_assign(pair_key(ids[0], ids[1]), Merge{static_cast<int32_t>(rank), ids[2]});
  }
}

void Bpe::initial_symbols(std::string_view word, std::vector<int32_t>& symbols) const {
  bool unknown_waits = false;  // an unknown token that the next may still be fused with
  const auto flush = [&] {
    if (unknown_waits) symbols.push_back(unknown_);
    unknown_waits = false;
  };
  size_t at = 0;
  while (at < word.size()) {
    const size_t begin = at;
    unicode::next(word, at);
    const std::string_view character = word.substr(begin, at - begin);
    if (const auto id = vocabulary_.id(character)) {
      flush();
      symbols.push_back(static_cast<int32_t>(*id));
      continue;
    }
    if (byte_fallback_) {
      bool all = true;
      for (const char c : character) all = all && byte_tokens_[static_cast<uint8_t>(c)] >= 0;
      if (all) {
        // A waiting unknown token stays behind these bytes: Hugging Face's order.
        for (const char c : character) symbols.push_back(byte_tokens_[static_cast<uint8_t>(c)]);
        continue;
      }
    }
    if (unknown_ < 0) continue;
    if (!fuse_unknown_) flush();
    unknown_waits = true;
  }
  flush();
}

void Bpe::merge_all(std::vector<int32_t>& symbols) const {
  struct Node {
    int32_t id;
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    int32_t rank;
    int32_t left;  // node
    int32_t made;
    bool operator<(const Candidate& other) const {  // the queue's top is its greatest
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  const auto count = static_cast<int32_t>(symbols.size());
  std::vector<Node> nodes(symbols.size());
  for (int32_t i = 0; i < count; ++i) {
    nodes[static_cast<size_t>(i)] = {
        symbols[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1};
  }
  const auto node = [&](int32_t i) -> Node& { return nodes[static_cast<size_t>(i)]; };
  std::priority_queue<Candidate> queue;
  const auto consider = [&](int32_t left) {
    const int32_t right = node(left).next;
    if (right < 0) return;
    const auto found = merges_.find(pair_key(node(left).id, node(right).id));
    if (found != merges_.end()) queue.push({found->second.rank, left, found->second.made});
  };
  for (int32_t i = 0; i < count; ++i) consider(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Node& left = node(best.left);
    if (left.id < 0 || left.next < 0) continue;
    Node& right = node(left.next);
    // Stale when either side has been merged since: the pair there now makes another token, or
    // none.
    const auto found = merges_.find(pair_key(left.id, right.id));
    if (found == merges_.end() || found->second.made != best.made) continue;
    left.id = best.made;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) node(left.next).previous = best.left;
    if (left.previous >= 0) consider(left.previous);
    consider(best.left);
  }
  symbols.clear();
  for (const Node& each : nodes) {
    if (each.id >= 0) symbols.push_back(each.id);
  }
}

void Bpe::encode_word(std::string_view word, std::vector<int64_t>& out) const {
  if (word.empty()) return;
  if (ignore_merges_) {
    if (const auto id = vocabulary_.id(word)) {
      out.push_back(*id);
      return;
    }
  }
  std::vector<int32_t> symbols;
  symbols.reserve(word.size());
  initial_symbols(word, symbols);
  if (symbols.size() > 1) merge_all(symbols);
  out.insert(out.end(), symbols.begin(), symbols.end());
}

}  // namespace praetor
