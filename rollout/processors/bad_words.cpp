#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "core/base/text.h"
#include "rollout/draw.h"
#include "rollout/processors/registry.h"

namespace praetor {
namespace {

using Sequences = std::vector<std::vector<int64_t>>;

/// Bars the last token of a sequence where the response ends in those before it.
class BadWords final : public LogitProcessor {
 public:
  explicit BadWords(std::shared_ptr<const Sequences> sequences) : sequences_(std::move(sequences)) {
    for (const auto& sequence : *sequences_) longest_ = std::max(longest_, sequence.size());
  }
  void push(int64_t token) override {
    tail_.push_back(token);
    if (tail_.size() >= longest_) tail_.erase(tail_.begin());
  }
  void apply(std::span<float> z) override {
    for (const auto& sequence : *sequences_) {
      const size_t before = sequence.size() - 1;
      if (before > tail_.size()) continue;
      const auto begin = tail_.end() - static_cast<std::ptrdiff_t>(before);
      if (std::equal(begin, tail_.end(), sequence.begin()))
        z[static_cast<size_t>(sequence.back())] = kBarred;
    }
  }

 private:
  std::shared_ptr<const Sequences> sequences_;
  size_t longest_ = 1;
  std::vector<int64_t> tail_;  ///< the last tokens, one less than the longest sequence
};

void add_word(const Tokenizer& tokenizer, const std::string& word, Sequences& out) {
  for (const std::string& spelled : {word, " " + word}) {
    std::vector<int64_t> ids = tokenizer.encode(spelled, false);
    if (!ids.empty() && std::find(out.begin(), out.end(), ids) == out.end())
      out.push_back(std::move(ids));
  }
}

}  // namespace

/// {"words": ["text", [token ids], ...]}: as transformers' NoBadWordsLogitsProcessor over the
/// response's tokens. A text stands for two sequences: its tokens, and those of a space and it.
BindProcessor read_bad_words(ProcessorOptions& in) {
  const auto& words = in.value("words");
  if (!words.is_array() || words.empty())
    throw InvalidArgument("words: a list of texts and of lists of token ids is wanted, not empty");
  std::vector<std::string> texts;
  Sequences sequences;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string key = str("words[", i, "]");
    if (!words[i].is_string()) {
      sequences.push_back(token_ids_of(words[i], key));
      continue;
    }
    texts.push_back(words[i].get<std::string>());
    if (texts.back().empty()) throw InvalidArgument(key, ": an empty text would bar everything");
    if (!is_utf8(texts.back()))
      throw InvalidArgument(key, ": not UTF-8: ", printable(texts.back()));
  }
  return [texts, sequences](ProcessorVocabulary& vocabulary) -> StartProcessor {
    auto all = std::make_shared<Sequences>(sequences);
    for (const std::string& text : texts) add_word(vocabulary.tokenizer(), text, *all);
    for (const auto& sequence : *all)
      for (const int64_t id : sequence) vocabulary.check_token("words", id);
    return [all](const ProcessedResponse&) { return std::make_unique<BadWords>(all); };
  };
}

}  // namespace praetor
