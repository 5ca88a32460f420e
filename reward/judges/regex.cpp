#include <utility>

#include "core/base/bounded_regex.h"
#include "core/base/text.h"
#include "reward/judges/fields.h"
#include "reward/judges/registry.h"

namespace praetor {

namespace {

/// Passes when `pattern` is found anywhere in the field (or, inverted, when it is not).
struct RegexJudgeConfig {
  std::string pattern;  ///< PCRE2 with Unicode; (?i), (?m), (?s) at its start set flags
  Field field;          ///< text that is searched
  Missing missing = Missing::kError;
  bool invert = false;
  double score_pass = 1.0;
  double score_fail = 0.0;
};

class RegexJudge final : public Judge {
 public:
  RegexJudge(RegexJudgeConfig config, BoundedRegex regex)
      : config_(std::move(config)), regex_(std::move(regex)) {}

  Verdict judge(const Sample& sample, const Deadline& deadline) const override {
    const std::optional<std::string> text = config_.field.text(sample);
    if (!text) return missing_field(config_.field, config_.missing);
    const auto match = regex_.search(*text, deadline);
    const bool passed = match.has_value() != config_.invert;
    return {.score = passed ? config_.score_pass : config_.score_fail,
            .passed = passed,
            .reason = match ? str("found \"",
                                  printable(text->substr(match->begin, match->end - match->begin)),
                                  "\" at byte ",
                                  match->begin)
                            : "not found"};
  }

 private:
  RegexJudgeConfig config_;
  BoundedRegex regex_;
};

}  // namespace

std::shared_ptr<const Judge> make_regex(YamlReader& in) {
  RegexJudgeConfig config;
  const bool given = in.has("pattern");
  config.pattern = in.require_string("pattern");
  config.field = Field::from_yaml(in, "field", "response");
  config.missing = missing_from_yaml(in);
  config.invert = in.get("invert", config.invert);
  config.score_pass = in.get("score_pass", config.score_pass, closed(-1e9, 1e9));
  config.score_fail = in.get("score_fail", config.score_fail, closed(-1e9, 1e9));
  if (!given) return nullptr;
  try {
    BoundedRegex regex(config.pattern);
    return std::make_shared<RegexJudge>(std::move(config), std::move(regex));
  } catch (const InvalidArgument& failure) {
    in.error_at("pattern", failure.what());
    return nullptr;
  }
}

}  // namespace praetor
