#include <algorithm>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "core/tokenizer/unicode.h"
#include "reward/judges/fields.h"
#include "reward/judges/ngrams.h"
#include "reward/judges/registry.h"
#include "reward/judges/utf8.h"

namespace praetor {

namespace {

constexpr size_t kLargestCorpus = size_t{1} << 26;

/// How much of the response stands word for word in a corpus (QUIP, arXiv:2404.03862):
///   score = n-grams of the response found in the corpus / n-grams of the response
/// over character n-grams, with runs of white space as one blank and characters composed (NFC). The
/// prompt's own n-grams count on neither side. 0 for a response shorter than n.
struct QuoteConfig {
  std::filesystem::path corpus;  ///< a UTF-8 text, at most 64 MiB
  std::optional<Field> field;    ///< or a text of the row
  Missing missing = Missing::kError;
  int64_t n = 25;          ///< characters of an n-gram, >= 1
  double threshold = 0.5;  ///< lowest score that passes, in [0, 1]
  bool exclude_prompt = true;
};

std::string prepared(std::string_view text) {
  return single_spaced(unicode::normalize(text, unicode::Form::kNfc));
}

/// What was found of a response.
struct Quotes {
  size_t total = 0;  ///< n-grams, those of the prompt left out
  size_t found = 0;
  std::string_view longest;  ///< the first of the longest runs
};

class QuoteJudge final : public Judge {
 public:
  explicit QuoteJudge(QuoteConfig config) : config_(std::move(config)) {}

  Verdict judge(const Sample& sample, const Deadline& deadline) const override {
    std::optional<NgramIndex> own;
    if (config_.field) {
      const auto text = config_.field->text(sample);
      if (!text) return missing_field(*config_.field, config_.missing);
      own.emplace(prepared(*text), config_.n, deadline);
    }
    const NgramIndex& index = own ? *own : corpus();
    const std::string response = prepared(sample.response);
    const std::string prompt = config_.exclude_prompt ? prepared(sample.prompt) : "";
    const Quotes quotes = find_quotes(index, response, prompt, deadline);
    const double score =
        quotes.total == 0 ? 0.0
                          : static_cast<double>(quotes.found) / static_cast<double>(quotes.total);
    std::string reason =
        str(quotes.found, " of ", quotes.total, " ", config_.n, "-grams are quoted");
    if (!quotes.longest.empty()) {
      reason += str("; longest quote ",
                    count_characters(quotes.longest),
                    " characters: \"",
                    printable(quotes.longest),
                    "\"");
    }
    return {.score = score,
            .passed = quotes.total > 0 && score >= config_.threshold,
            .reason = std::move(reason)};
  }

 private:
  /// Read at the first sample, so that a job can be checked without it in memory.
  const NgramIndex& corpus() const {
    std::call_once(read_, [this] {
      const std::string text = read_file(config_.corpus, kLargestCorpus);
      if (!is_utf8(text)) throw DataError(config_.corpus.string(), ": is not valid UTF-8");
      corpus_.emplace(prepared(text), config_.n, Deadline::never());
    });
    return *corpus_;
  }

  Quotes find_quotes(const NgramIndex& index,
                     std::string_view response,
                     std::string_view prompt,
                     const Deadline& deadline) const {
    const auto of_prompt = character_ngrams(prompt, config_.n);
    const std::unordered_set<std::string_view> excluded(of_prompt.begin(), of_prompt.end());
    Quotes out;
    size_t run = 0;  // n-grams found without a gap, up to this one
    size_t longest = 0;
    const auto grams = character_ngrams(response, config_.n);
    for (size_t i = 0; i < grams.size(); ++i) {
      if (i % 1024 == 0) deadline.check();
      const bool counts = !excluded.contains(grams[i]);
      const bool found = counts && index.contains(grams[i]);
      out.total += counts;
      out.found += found;
      run = found ? run + 1 : 0;
      if (run <= longest) continue;
      longest = run;
      const char* begin = grams[i + 1 - run].data();
      const char* end = grams[i].data() + grams[i].size();
      out.longest = {begin, static_cast<size_t>(end - begin)};
    }
    return out;
  }

  QuoteConfig config_;
  mutable std::once_flag read_;
  mutable std::optional<NgramIndex> corpus_;
};

}  // namespace

std::shared_ptr<const Judge> make_quote(YamlReader& in) {
  QuoteConfig config;
  config.corpus = in.get_path("corpus");
  if (in.has("field")) config.field = Field::from_yaml(in, "field", "prompt");
  config.missing = missing_from_yaml(in);
  config.n = in.get("n", config.n, closed(1, 1000));
  config.threshold = in.get("threshold", config.threshold, closed(0, 1));
  config.exclude_prompt = in.get("exclude_prompt", config.exclude_prompt);
  if (in.has("corpus") == in.has("field")) {
    in.error_at(in.has("corpus") ? "field" : "",
                "a quote is of a corpus (a text file) or of a field; give one of the two");
    return nullptr;
  }
  if (config.field && config.field->name() == "response")
    in.error_at("field", "the response cannot be its own source");
  if (config.field && config.field->name() == "prompt" && config.exclude_prompt)
    in.error_at("field", "the prompt's n-grams do not count; exclude_prompt: false makes them");
  if (in.has("corpus") && !std::filesystem::is_regular_file(config.corpus)) {
    in.error_at("corpus", str(config.corpus.string(), " is not a file"));
    return nullptr;
  }
  return std::make_shared<QuoteJudge>(std::move(config));
}

}  // namespace praetor
