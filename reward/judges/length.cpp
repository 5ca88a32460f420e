#include <algorithm>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "reward/judges/registry.h"
#include "reward/judges/utf8.h"

namespace praetor {

namespace {

/// 1 inside the window [min, max] of lengths, falling to 0 over `soft` units outside it:
///   score = max(0, 1 - distance / soft), and 0 outside when soft = 0
struct LengthConfig {
  std::string unit = "words";  ///< words, characters (code points), tokens (the policy's own count)
  std::optional<int64_t> min;  ///< no lower edge when absent
  std::optional<int64_t> max;  ///< no upper edge when absent; one of the two is needed
  double soft = 0.0;           ///< units, >= 0
};

class LengthJudge final : public Judge {
 public:
  explicit LengthJudge(LengthConfig config) : config_(std::move(config)) {}

  Verdict judge(const Sample& sample, const Deadline&) const override {
    const int64_t length = measure(sample);
    int64_t distance = 0;
    if (config_.min && length < *config_.min) distance = *config_.min - length;
    if (config_.max && length > *config_.max) distance = length - *config_.max;
    const bool inside = distance == 0;
    double score = inside ? 1.0 : 0.0;
    if (!inside && config_.soft > 0) {
      score = std::max(0.0, 1.0 - static_cast<double>(distance) / config_.soft);
    }
    std::string reason = str(length, " ", config_.unit);
    if (!inside) {
      const bool short_of = config_.min && length < *config_.min;
      reason +=
          str(short_of ? ", fewer than " : ", more than ", short_of ? *config_.min : *config_.max);
    }
    return {.score = score, .passed = inside, .reason = std::move(reason)};
  }

 private:
  int64_t measure(const Sample& sample) const {
    if (config_.unit == "words") return count_words(sample.response);
    if (config_.unit == "characters") return count_characters(sample.response);
    if (sample.response_tokens <= 0 && !sample.response.empty()) {
      throw DataError("the sample carries no response_tokens, which unit: tokens needs");
    }
    return sample.response_tokens;
  }

  LengthConfig config_;
};

}  // namespace

std::shared_ptr<const Judge> make_length(YamlReader& in) {
  LengthConfig config;
  config.unit = in.get("unit", config.unit, {"words", "characters", "tokens"});
  config.min = in.get_optional_integer("min", at_least(0));
  config.max = in.get_optional_integer("max", at_least(0));
  config.soft = in.get("soft", config.soft, closed(0, 1e9));
  if (!in.has("min") && !in.has("max")) {
    in.error_at("", "a length needs min, max or both");
    return nullptr;
  }
  if (config.min && config.max && *config.min > *config.max) {
    in.error_at("min", str(*config.min, " is above max, which is ", *config.max));
    return nullptr;
  }
  return std::make_shared<LengthJudge>(std::move(config));
}

}  // namespace praetor
