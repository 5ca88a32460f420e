#include <optional>
#include <string>
#include <utility>

#include "core/base/bounded_regex.h"
#include "core/base/error.h"
#include "core/base/text.h"
#include "reward/judges/fields.h"
#include "reward/judges/math_latex.h"
#include "reward/judges/math_numbers.h"
#include "reward/judges/registry.h"
#include "reward/judges/utf8.h"

namespace praetor {

namespace {

/// Compares the response's final answer with the one in the data row (the rules of GSM8K and MATH
/// graders).
///   score = 1 when they are the same, `format_score` when there is an answer but another one, 0
///   when there is none
struct MathAnswerConfig {
  Field gold;  ///< holds the answer, or a solution with the answer behind `marker`
  Missing missing = Missing::kError;
  /// strict: the number behind the last "MARKER " within the last 300 characters;
  /// flexible: the last number; boxed: LaTeX in the last \boxed{}, compared as text
  std::string extract = "flexible";
  std::string marker = "####";
  double format_score = 0.0;
};

constexpr int64_t kStrictWindow = 300;

class MathAnswerJudge final : public Judge {
 public:
  explicit MathAnswerJudge(MathAnswerConfig config)
      : config_(std::move(config)),
        strict_(BoundedRegex::quote(config_.marker) + " (-?[0-9.,]+(?:/[0-9]+)?)"),
        // A fraction is taken whole: the answer of "it is 1/2" is neither 1 nor 2.
        number_("(-?[$0-9.,]{2,}(?:/[0-9]+)?)|(-?[0-9]+(?:/[0-9]+)?)") {}

  Verdict judge(const Sample& sample, const Deadline& deadline) const override {
    const std::optional<std::string> field = config_.gold.text(sample);
    if (!field) return missing_field(config_.gold, config_.missing);
    return config_.extract == "boxed" ? judge_boxed(sample, *field)
                                      : judge_number(sample, *field, deadline);
  }

 private:
  Verdict judge_number(const Sample& sample,
                       const std::string& field,
                       const Deadline& deadline) const {
    const std::string gold = normalise_number(field, config_.marker);
    if (!is_number(gold)) {
      throw DataError(config_.gold.name(), ": \"", printable(gold), "\" is not a number");
    }
    const auto answer = config_.extract == "strict" ? strict_answer(sample.response, deadline)
                                                    : flexible_answer(sample.response, deadline);
    return verdict(answer, gold, answer && same_number(*answer, gold));
  }

  Verdict judge_boxed(const Sample& sample, const std::string& field) const {
    const std::string gold = normalise_latex(last_boxed(field).value_or(field));
    if (gold.empty()) throw DataError(config_.gold.name(), " is empty");
    std::optional<std::string> answer;
    if (const auto boxed = last_boxed(sample.response)) answer = normalise_latex(*boxed);
    return verdict(answer, gold, answer == gold);
  }

  Verdict verdict(const std::optional<std::string>& answer,
                  const std::string& gold,
                  bool same) const {
    if (!answer)
      return {
          .score = 0.0, .passed = false, .reason = "no answer found; wanted " + printable(gold)};
    return {.score = same ? 1.0 : config_.format_score,
            .passed = same,
            .reason = str("answer ", printable(*answer), ", wanted ", printable(gold))};
  }

  std::optional<std::string> strict_answer(const std::string& response,
                                           const Deadline& deadline) const {
    const std::string_view tail = last_characters(response, kStrictWindow);
    std::optional<std::string> last;
    for (size_t from = 0;;) {
      const auto match = strict_.search(tail, from, deadline);
      if (!match) return last;
      last = normalise_number(*match->groups[0], config_.marker);
      from = match->end;
    }
  }

  std::optional<std::string> flexible_answer(const std::string& response,
                                             const Deadline& deadline) const {
    std::optional<std::string> last;
    for (size_t from = 0;;) {
      const auto match = number_.search(response, from, deadline);
      if (!match) return last;
      // Runs of points and commas ("...") look like numbers until they are normalised.
      std::string text = normalise_number(
          std::string_view(response).substr(match->begin, match->end - match->begin),
          config_.marker);
      if (!text.empty() && text.find_first_of("0123456789") != std::string::npos)
        last = std::move(text);
      from = match->end;
    }
  }

  MathAnswerConfig config_;
  BoundedRegex strict_;
  BoundedRegex number_;
};

}  // namespace

std::shared_ptr<const Judge> make_math_answer(YamlReader& in) {
  MathAnswerConfig config;
  config.gold = Field::from_yaml(in, "gold", "metadata.answer");
  config.missing = missing_from_yaml(in);
  config.extract = in.get("extract", config.extract, {"strict", "flexible", "boxed"});
  config.marker = in.get("marker", config.marker);
  config.format_score = in.get("format_score", config.format_score, closed(0, 1));
  if (config.gold.name() == "response")
    in.error_at("gold", "the response cannot be its own answer");
  if (config.marker.empty() || !is_utf8(config.marker)) {
    in.error_at("marker", "is empty or not UTF-8; a word such as \"####\" is wanted");
    return nullptr;
  }
  return std::make_shared<MathAnswerJudge>(std::move(config));
}

}  // namespace praetor
