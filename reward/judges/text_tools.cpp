#include "reward/judges/text_tools.h"

#include <cstddef>

#include "core/tokenizer/unicode.h"

namespace praetor {

namespace {

bool is_space(char32_t code) {
  return unicode::is_white_space(code) || (code >= 0x1C && code <= 0x1F);
}

/// True when every character that has a case is of the kind `wanted`, and there is one.
bool all_of_case(std::string_view text, bool (*wanted)(char32_t), bool (*other)(char32_t)) {
  bool any = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t code = unicode::next(text, at);
    if (other(code) || unicode::is_title(code)) return false;
    any = any || wanted(code);
  }
  return any;
}

}  // namespace

std::string_view strip(std::string_view text) {
  size_t begin = 0;
  for (size_t at = 0; at < text.size() && is_space(unicode::next(text, at));) begin = at;
  size_t end = text.size();
  while (end > begin) {
    const size_t start = unicode::previous(text, end);
    size_t at = start;
    if (!is_space(unicode::next(text, at))) break;
    end = start;
  }
  return text.substr(begin, end - begin);
}

std::string_view strip(std::string_view text, std::string_view characters) {
  const size_t begin = text.find_first_not_of(characters);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(characters) - begin + 1);
}

std::string lower_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();)
    unicode::append(out, unicode::lower(unicode::next(text, at)));
  return out;
}

bool is_upper_case(std::string_view text) {
  return all_of_case(text, unicode::is_upper, unicode::is_lower);
}

bool is_lower_case(std::string_view text) {
  return all_of_case(text, unicode::is_lower, unicode::is_upper);
}

std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> out;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    if (!is_space(unicode::next(text, at))) continue;
    if (start > begin) out.push_back(text.substr(begin, start - begin));
    begin = at;
  }
  if (begin < text.size()) out.push_back(text.substr(begin));
  return out;
}

std::vector<std::string_view> split(std::string_view text, std::string_view mark) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  for (size_t at = text.find(mark); at != std::string_view::npos; at = text.find(mark, begin)) {
    parts.push_back(text.substr(begin, at - begin));
    begin = at + mark.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::vector<std::string_view> split(std::string_view text,
                                    const BoundedRegex& mark,
                                    const Deadline& deadline) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  for (const std::string_view match : find_all(text, mark, deadline)) {
    const auto at = static_cast<size_t>(match.data() - text.data());
    parts.push_back(text.substr(begin, at - begin));
    begin = at + match.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::vector<std::string_view> find_all(std::string_view text,
                                       const BoundedRegex& pattern,
                                       const Deadline& deadline) {
  std::vector<std::string_view> out;
  for (size_t from = 0; from <= text.size();) {
    const auto match = pattern.search(text, from, deadline);
    if (!match) break;
    // With \K in a lookahead a match may end before it begins; it counts as empty.
    const bool empty = match->end <= match->begin;
    out.push_back(text.substr(match->begin, empty ? 0 : match->end - match->begin));
    from = empty ? match->begin : match->end;
    if (!empty) continue;
    if (from >= text.size()) break;
    unicode::next(text, from);
  }
  return out;
}

}  // namespace praetor
