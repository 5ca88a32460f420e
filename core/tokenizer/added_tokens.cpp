#include "core/tokenizer/added_tokens.h"

#include <algorithm>

#include "core/tokenizer/unicode.h"

namespace praetor {

AddedToken AddedToken::from_json(const JsonView& entry, int64_t id) {
  AddedToken token;
  token.id = id;
  token.content = entry.at("content").string();
  if (token.content.empty()) entry.at("content").fail("is empty");
  if (token.content.size() > 4096) entry.at("content").fail("is longer than 4096 bytes");
  token.single_word = entry.boolean_or("single_word", false);
  token.lstrip = entry.boolean_or("lstrip", false);
  token.rstrip = entry.boolean_or("rstrip", false);
  token.special = entry.boolean_or("special", false);
  token.normalized = entry.boolean_or("normalized", !token.special);
  return token;
}

void AddedTokenFinder::add(const AddedToken& token, std::string_view content) {
  if (content.empty()) return;
  if (nodes_.empty()) nodes_.emplace_back();
  first_bytes_[static_cast<uint8_t>(content[0])] = true;
  size_t at = 0;
  for (const char c : content) {
    const auto [place, fresh] = nodes_[at].children.emplace(c, static_cast<int32_t>(nodes_.size()));
    const auto next = static_cast<size_t>(place->second);
    if (fresh) nodes_.emplace_back();
    at = next;
  }
  if (nodes_[at].token >= 0) return;  // the first of equals stays
  nodes_[at].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

int32_t AddedTokenFinder::match(std::string_view text, size_t at, size_t& end) const {
  int32_t found = -1;
  size_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto child = nodes_[node].children.find(text[i]);
    if (child == nodes_[node].children.end()) break;
    node = static_cast<size_t>(child->second);
    if (nodes_[node].token >= 0) {
      found = nodes_[node].token;
      end = i + 1;
    }
  }
  return found;
}

std::vector<Stretch> AddedTokenFinder::split(std::string_view text) const {
  std::vector<Stretch> out;
  size_t done = 0;  // all before it is in `out`
  size_t at = 0;
  while (!nodes_.empty() && at < text.size()) {
    size_t end = 0;
    const int32_t found = first_bytes_[static_cast<uint8_t>(text[at])] ? match(text, at, end) : -1;
    if (found < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(found)];
    size_t begin = at;
    at = end;
    if (token.single_word) {
      size_t before = begin == 0 ? 0 : unicode::previous(text, begin);
      size_t after = end;
      if ((begin > 0 && unicode::is_word(unicode::next(text, before))) ||
          (end < text.size() && unicode::is_word(unicode::next(text, after)))) {
        continue;
      }
    }
    if (token.lstrip) {
      while (begin > done) {
        const size_t before = unicode::previous(text, begin);
        size_t unused = before;
        if (!unicode::is_white_space(unicode::next(text, unused))) break;
        begin = before;
      }
      begin = std::max(begin, done);
    }
    if (token.rstrip) {
      while (end < text.size()) {
        size_t after = end;
        if (!unicode::is_white_space(unicode::next(text, after))) break;
        end = after;
      }
    }
    if (done < begin) out.push_back({-1, done, begin});
    out.push_back({token.id, begin, end});
    done = end;
  }
  if (done < text.size()) out.push_back({-1, done, text.size()});
  return out;
}

}  // namespace praetor
