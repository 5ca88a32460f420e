#include "core/tokenizer/jinja/text.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "core/tokenizer/jinja/value.h"
#include "core/tokenizer/unicode.h"

namespace praetor::jinja {
namespace {

template <typename Change>
std::string changed(std::string_view text, Change change) {
  std::string out;
  for (size_t at = 0; at < text.size();) unicode::append(out, change(unicode::next(text, at)));
  return out;
}

}  // namespace

std::string lower(std::string_view text) {
  return changed(text, unicode::lower);
}
std::string upper(std::string_view text) {
  return changed(text, unicode::upper);
}

std::string capitalize(std::string_view text) {
  bool first = true;
  return changed(text, [&](char32_t c) {
    return std::exchange(first, false) ? unicode::upper(c) : unicode::lower(c);
  });
}

std::string title(std::string_view text) {
  bool in_word = false;
  return changed(text, [&](char32_t c) {
    const bool letter = unicode::is_letter(c);
    const bool inside = std::exchange(in_word, letter);
    return !letter ? c : (inside ? unicode::lower(c) : unicode::upper(c));
  });
}

std::string strip(std::string_view text, const std::optional<std::string>& chars, Side side) {
  const std::vector<std::string> set = chars ? characters(*chars) : std::vector<std::string>{};
  const auto taken = [&](std::string_view c) {
    return chars ? std::ranges::find(set, c) != set.end() : is_space(c);
  };
  while (side != Side::kRight && !text.empty()) {
    size_t at = 0;
    unicode::next(text, at);
    if (!taken(text.substr(0, at))) break;
    text.remove_prefix(at);
  }
  while (side != Side::kLeft && !text.empty()) {
    const size_t last = unicode::previous(text, text.size());
    if (!taken(text.substr(last))) break;
    text = text.substr(0, last);
  }
  return std::string(text);
}

std::vector<std::string> split(std::string_view text, std::string_view separator, int64_t most) {
  if (separator.empty()) throw DataError("empty separator");
  std::vector<std::string> out;
  while (most < 0 || static_cast<int64_t>(out.size()) < most) {
    const size_t at = text.find(separator);
    if (at == std::string_view::npos) break;
    out.emplace_back(text.substr(0, at));
    text.remove_prefix(at + separator.size());
  }
  out.emplace_back(text);
  return out;
}

std::vector<std::string> split_words(std::string_view text, int64_t most) {
  std::vector<std::string> out;
  std::string rest = strip(text, std::nullopt, Side::kLeft);
  while (!rest.empty()) {
    if (most >= 0 && static_cast<int64_t>(out.size()) == most) {
      out.push_back(strip(rest, std::nullopt, Side::kRight));
      break;
    }
    size_t end = 0;
    while (end < rest.size()) {
      size_t next = end;
      unicode::next(rest, next);
      if (is_space(std::string_view(rest).substr(end, next - end))) break;
      end = next;
    }
    out.push_back(rest.substr(0, end));
    rest = strip(std::string_view(rest).substr(end), std::nullopt, Side::kLeft);
  }
  return out;
}

std::string replace(std::string_view text,
                    std::string_view from,
                    std::string_view to,
                    int64_t most) {
  std::string out;
  if (from.empty()) {  // between all characters
    int64_t done = 0;
    const auto put = [&] {
      if (most < 0 || done++ < most) out += to;
    };
    for (const std::string& c : characters(text)) {
      put();
      out += c;
    }
    put();
    return out;
  }
  const std::vector<std::string> parts = split(text, from, most);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += to;
    out += parts[i];
  }
  return out;
}

}  // namespace praetor::jinja
