#include "core/tokenizer/unigram.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/tokenizer/unicode.h"

namespace praetor {

namespace {

constexpr double kUnknownPenalty = 10;

}  // namespace

Unigram::Unigram(const JsonView& model, Vocabulary& vocabulary) : vocabulary_(vocabulary) {
  byte_fallback_ = model.boolean_or("byte_fallback", false);
  read_vocabulary(model.at("vocab"));
  unknown_ =
      static_cast<int32_t>(model.at("unk_id").integer(0, static_cast<int64_t>(scores_.size()) - 1));
  byte_tokens_ = byte_token_ids(vocabulary_);
}

void Unigram::read_vocabulary(const JsonView& vocab) {
  double lowest = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < vocab.array().size(); ++i) {
    const JsonView entry = vocab.element(i);
    if (entry.array().size() != 2 || !entry.json()[1].is_number())
      entry.fail("a token and its score are wanted");
    const auto id = static_cast<int64_t>(i);
    if (id > kMaxTokenId) entry.fail("more than ", kMaxTokenId, " tokens");
    vocabulary_.add(entry.element(0).string(), id, entry.place());
    scores_.push_back(entry.json()[1].get<double>());
    lowest = std::min(lowest, scores_.back());
    sorted_.push_back({*vocabulary_.token(id), static_cast<int32_t>(id)});
  }
  if (scores_.empty()) vocab.fail("is empty");
  unknown_score_ = lowest - kUnknownPenalty;
  std::sort(sorted_.begin(), sorted_.end(), [](const Entry& a, const Entry& b) {
    return a.token < b.token;
  });
}

void Unigram::encode_word(std::string_view word, std::vector<int64_t>& out) const {
  std::vector<Node> best(word.size() + 1);  // best[i] spells the bytes before i
  for (size_t begin = 0, next = 0; begin < word.size(); begin = next) {
    next = begin;
    unicode::next(word, next);
    const double so_far = best[begin].score;
    const auto offer = [&](size_t end, double score, int32_t id) {
      Node& node = best[end];
      const double sum = score + so_far;
      if (node.begin < 0 || sum > node.score) node = {sum, static_cast<int64_t>(begin), id};
    };
    bool alone = false;  // a token is this one character
    auto low = sorted_.begin();
    auto high = sorted_.end();
    for (size_t depth = 0; begin + depth < word.size(); ++depth) {
      const auto byte = static_cast<uint8_t>(word[begin + depth]);
      // Tokens that begin as the word does up to here; the shortest stands first.
      low = std::partition_point(low, high, [&](const Entry& each) {
        return each.token.size() <= depth || static_cast<uint8_t>(each.token[depth]) < byte;
      });
      high = std::partition_point(low, high, [&](const Entry& each) {
        return static_cast<uint8_t>(each.token[depth]) == byte;
      });
      if (low == high) break;
      if (low->token.size() != depth + 1) continue;
      const size_t end = begin + depth + 1;
      offer(end, scores_[static_cast<size_t>(low->id)], low->id);
      alone = alone || end == next;
    }
    if (!alone) offer(next, unknown_score_, unknown_);
  }
  std::vector<std::pair<size_t, size_t>>
      spans;  // from the last to the first; unknown neighbours joined
  bool joins = false;
  for (size_t end = word.size(); end > 0;) {
    const auto begin = static_cast<size_t>(best[end].begin);
    const bool unknown = best[end].id == unknown_;
    if (unknown && joins) {
      spans.back().first = begin;
    } else {
      spans.emplace_back(begin, end);
    }
    joins = unknown;
    end = begin;
  }
  for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
    const std::string_view text = word.substr(span->first, span->second - span->first);
    if (const auto id = vocabulary_.id(text); id && *id < static_cast<int64_t>(scores_.size())) {
      out.push_back(*id);
    } else {
      spell_unknown(text, out);
    }
  }
}

void Unigram::spell_unknown(std::string_view text, std::vector<int64_t>& out) const {
  const auto token_of = [&](char c) { return byte_tokens_[static_cast<uint8_t>(c)]; };
  if (byte_fallback_ &&
      std::all_of(text.begin(), text.end(), [&](char c) { return token_of(c) >= 0; })) {
    for (const char c : text) out.push_back(token_of(c));
  } else {
    out.push_back(unknown_);
  }
}

}  // namespace praetor
