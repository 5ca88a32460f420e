#include "rollout/grammar/token_table.h"

#include <algorithm>
#include <utility>

namespace praetor::grammar {
namespace {

std::vector<std::string> bytes_of_all(const Tokenizer& tokenizer, int64_t size, bool first) {
  std::vector<std::string> out(static_cast<size_t>(size));
  const int64_t known = std::min(size, tokenizer.vocab_size());
  for (int64_t id = 0; id < known; ++id)
    out[static_cast<size_t>(id)] = tokenizer.token_bytes(id, first);
  return out;
}

size_t common_prefix(const std::string& a, const std::string& b) {
  const size_t most = std::min(a.size(), b.size());
  size_t n = 0;
  while (n < most && a[n] == b[n]) ++n;
  return n;
}

}  // namespace

TokenTrie::TokenTrie(const std::vector<std::string>& bytes) {
  for (size_t id = 0; id < bytes.size(); ++id)
    if (!bytes[id].empty()) ids.push_back(static_cast<int32_t>(id));
  const auto spelled = [&](int32_t id) -> const std::string& {
    return bytes[static_cast<size_t>(id)];
  };
  std::stable_sort(
      ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return spelled(a) < spelled(b); });
  std::vector<size_t> path;  // nodes from the root to the last token
  const auto close = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back())
      nodes[path.back()].end = static_cast<int32_t>(nodes.size());
  };
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string& text = spelled(ids[i]);
    close(i == 0 ? 0 : common_prefix(text, spelled(ids[i - 1])));
    const auto at = static_cast<int32_t>(i);
    while (path.size() < text.size()) {
      path.push_back(nodes.size());
      const auto depth = static_cast<int32_t>(path.size());
      nodes.push_back({static_cast<uint8_t>(text[path.size() - 1]), depth, 0, at, at});
      deepest = std::max(deepest, depth);
    }
    nodes[path.back()].last = at + 1;
  }
  close(0);
}

TokenTable::TokenTable(const Tokenizer& tokenizer, int64_t size)
    : first_(bytes_of_all(tokenizer, size, true)),
      later_(bytes_of_all(tokenizer, size, false)),
      first_trie_(first_),
      later_trie_(later_) {
  for (const std::string& bytes : later_)
    if (bytes.size() == 1) single_bytes_.set(static_cast<uint8_t>(bytes[0]));
}

}  // namespace praetor::grammar
