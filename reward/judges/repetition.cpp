#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/text.h"
#include "reward/judges/ngrams.h"
#include "reward/judges/registry.h"
#include "reward/judges/text_tools.h"

namespace praetor {

namespace {

/// How much of the response says again what it has said (seq-rep-n of arXiv:1908.04319):
///   repeated = 1 - distinct n-grams / n-grams, 0 for a text shorter than n
///   score = 1 - repeated; passed when repeated <= threshold
struct RepetitionConfig {
  std::string unit = "words";  ///< words (runs between white space), characters (code points)
  int64_t n = 3;               ///< units of an n-gram, >= 1
  double threshold = 0.2;      ///< in [0, 1]
  bool ignore_case = true;
};

class RepetitionJudge final : public Judge {
 public:
  explicit RepetitionJudge(RepetitionConfig config) : config_(std::move(config)) {}

  Verdict judge(const Sample& sample, const Deadline& deadline) const override {
    const std::string text = prepared(sample.response);
    const auto grams =
        config_.unit == "words" ? word_ngrams(text, config_.n) : character_ngrams(text, config_.n);
    std::unordered_set<std::string_view> distinct;
    std::vector<std::string_view> again;
    for (size_t i = 0; i < grams.size(); ++i) {
      if (i % 1024 == 0) deadline.check();
      if (!distinct.insert(grams[i]).second && again.empty()) again.push_back(grams[i]);
    }
    const size_t repeats = grams.size() - distinct.size();
    const double repeated =
        grams.empty() ? 0.0 : static_cast<double>(repeats) / static_cast<double>(grams.size());
    std::string reason =
        str(repeats, " of ", grams.size(), " ", config_.n, "-grams of ", config_.unit, " repeated");
    if (!again.empty()) reason += ", first \"" + printable(again[0]) + "\"";
    return {.score = 1.0 - repeated,
            .passed = repeated <= config_.threshold,
            .reason = std::move(reason)};
  }

 private:
  std::string prepared(const std::string& response) const {
    const std::string text = config_.unit == "words" ? single_spaced(response) : response;
    return config_.ignore_case ? lower_case(text) : text;
  }

  RepetitionConfig config_;
};

}  // namespace

std::shared_ptr<const Judge> make_repetition(YamlReader& in) {
  RepetitionConfig config;
  config.unit = in.get("unit", config.unit, {"words", "characters"});
  config.n = in.get("n", config.n, closed(1, 1000));
  config.threshold = in.get("threshold", config.threshold, closed(0, 1));
  config.ignore_case = in.get("ignore_case", config.ignore_case);
  return std::make_shared<RepetitionJudge>(std::move(config));
}

}  // namespace praetor
