#include "reward/judges/ngrams.h"

#include <bit>
#include <cstddef>
#include <functional>
#include <limits>
#include <utility>

#include "core/base/error.h"
#include "core/tokenizer/unicode.h"
#include "reward/judges/text_tools.h"

namespace praetor {

namespace {

/// Byte at which each code point begins, and the end.
std::vector<size_t> character_starts(std::string_view text) {
  std::vector<size_t> starts;
  for (size_t at = 0; at < text.size(); unicode::next(text, at)) starts.push_back(at);
  starts.push_back(text.size());
  return starts;
}

constexpr int64_t kStepsPerQuestion = 4096;

}  // namespace

std::vector<std::string_view> word_ngrams(std::string_view text, int64_t n) {
  const auto words = words_of(text);
  const auto width = static_cast<size_t>(n);
  std::vector<std::string_view> out;
  for (size_t i = 0; i + width <= words.size(); ++i) {
    const std::string_view last = words[i + width - 1];
    const auto begin = static_cast<size_t>(words[i].data() - text.data());
    const auto end = static_cast<size_t>(last.data() - text.data()) + last.size();
    out.push_back(text.substr(begin, end - begin));
  }
  return out;
}

std::vector<std::string_view> character_ngrams(std::string_view text, int64_t n) {
  const auto starts = character_starts(text);
  const auto width = static_cast<size_t>(n);
  std::vector<std::string_view> out;
  for (size_t i = 0; i + width < starts.size(); ++i)
    out.push_back(text.substr(starts[i], starts[i + width] - starts[i]));
  return out;
}

std::string single_spaced(std::string_view text) {
  std::string out;
  for (const std::string_view word : words_of(text)) {
    if (!out.empty()) out += ' ';
    out += word;
  }
  return out;
}

NgramIndex::NgramIndex(std::string text, int64_t n, const Deadline& deadline)
    : text_(std::move(text)) {
  if (text_.size() >= std::numeric_limits<uint32_t>::max())
    throw DataError("a text of ", text_.size(), " bytes is too large to be indexed");
  // At most half of the slots are taken, so that a search is short.
  slots_.resize(std::bit_ceil(2 * text_.size() + 2));
  // A window of n characters moves over the text.
  size_t begin = 0;
  size_t end = 0;
  int64_t width = 0;
  while (end < text_.size()) {
    unicode::next(text_, end);
    if (++width < n) continue;
    if (width > n) unicode::next(text_, begin);
    uint32_t& slot = slots_[slot_of(std::string_view(text_).substr(begin, end - begin))];
    if (slot == 0) slot = static_cast<uint32_t>(begin) + 1;
    if (width % kStepsPerQuestion == 0) deadline.check();
  }
}

bool NgramIndex::contains(std::string_view ngram) const {
  return slots_[slot_of(ngram)] != 0;
}

size_t NgramIndex::slot_of(std::string_view ngram) const {
  const size_t mask = slots_.size() - 1;
  size_t at = std::hash<std::string_view>()(ngram) & mask;
  while (slots_[at] != 0 && std::string_view(text_).substr(slots_[at] - 1, ngram.size()) != ngram)
    at = (at + 1) & mask;
  return at;
}

}  // namespace praetor
