#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/base/bounded_regex.h"
#include "core/base/text.h"
#include "reward/judges/registry.h"

namespace praetor {

namespace {

/// Words or phrases that the response must hold, and ones that it must not.
///   score = 1 when every one is as wanted, else 0; with `each`, the fraction of them that is
struct KeywordsConfig {
  std::vector<std::string> required;
  std::vector<std::string> forbidden;
  bool whole_words =
      true;  ///< no letter, digit, mark or underscore (of any script) directly before or after
  bool ignore_case =
      true;  ///< Unicode simple case folding; composed and decomposed accents stay different
  bool each = false;
};

struct Keyword {
  std::string text;
  BoundedRegex regex;
};

std::vector<Keyword> compile(const std::vector<std::string>& words, const KeywordsConfig& config) {
  std::vector<Keyword> out;
  for (const std::string& word : words) {
    std::string pattern = BoundedRegex::quote(word);
    if (config.whole_words)
      pattern = "(?<![\\p{L}\\p{N}\\p{M}_])" + pattern + "(?![\\p{L}\\p{N}\\p{M}_])";
    out.push_back({word, BoundedRegex(pattern, {.ignore_case = config.ignore_case})});
  }
  return out;
}

class KeywordsJudge final : public Judge {
 public:
  explicit KeywordsJudge(const KeywordsConfig& config)
      : each_(config.each),
        required_(compile(config.required, config)),
        forbidden_(compile(config.forbidden, config)) {}

  Verdict judge(const Sample& sample, const Deadline& deadline) const override {
    std::vector<std::string> missing, unwanted;
    for (const Keyword& word : required_) {
      if (!word.regex.search(sample.response, deadline)) missing.push_back(word.text);
    }
    for (const Keyword& word : forbidden_) {
      if (word.regex.search(sample.response, deadline)) unwanted.push_back(word.text);
    }
    const size_t total = required_.size() + forbidden_.size();
    const size_t wrong = missing.size() + unwanted.size();
    std::string reason;
    if (!missing.empty()) reason = "missing: " + join(missing, ", ");
    if (!unwanted.empty())
      reason += (reason.empty() ? "unwanted: " : "; unwanted: ") + join(unwanted, ", ");
    if (wrong == 0) reason = "all as wanted";
    return {.score = each_ ? static_cast<double>(total - wrong) / static_cast<double>(total)
                           : (wrong == 0 ? 1.0 : 0.0),
            .passed = wrong == 0,
            .reason = std::move(reason)};
  }

 private:
  bool each_;
  std::vector<Keyword> required_, forbidden_;
};

}  // namespace

std::shared_ptr<const Judge> make_keywords(YamlReader& in) {
  KeywordsConfig config;
  config.required = in.get("required", config.required);
  config.forbidden = in.get("forbidden", config.forbidden);
  config.whole_words = in.get("whole_words", config.whole_words);
  config.ignore_case = in.get("ignore_case", config.ignore_case);
  config.each = in.get("each", config.each);
  if (!in.has("required") && !in.has("forbidden")) {
    in.error_at("", "keywords need required, forbidden or both");
    return nullptr;
  }
  if (config.required.empty() && config.forbidden.empty()) {
    in.error_at(in.has("required") ? "required" : "forbidden", "there is no keyword to look for");
    return nullptr;
  }
  bool usable = true;
  const auto complain = [&](const std::string& key, const std::string& message) {
    in.error_at(key, message);
    usable = false;
  };
  for (const auto& [key, words] :
       {std::pair{"required", &config.required}, {"forbidden", &config.forbidden}}) {
    for (const std::string& word : *words) {
      if (word.empty()) complain(key, "a keyword is empty");
      if (!is_utf8(word)) complain(key, str("\"", printable(word), "\" is not valid UTF-8"));
    }
  }
  for (const std::string& word : config.required) {
    if (std::ranges::find(config.forbidden, word) != config.forbidden.end()) {
      complain("forbidden", str("\"", word, "\" is required as well"));
    }
  }
  return usable ? std::make_shared<KeywordsJudge>(config) : nullptr;
}

}  // namespace praetor
