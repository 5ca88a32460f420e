#include <unordered_map>

#include "rollout/processors/registry.h"

// The penalties of OpenAI's interface, over the tokens of the response: on the logit, before the
// temperature divides it,
//
//   mu_v - frequency_penalty * count_v - presence_penalty * [count_v > 0]

namespace praetor {
namespace {

class CountPenalty final : public LogitProcessor {
 public:
  CountPenalty(double once, double each) : once_(once), each_(each) {}
  void push(int64_t token) override { ++counts_[token]; }
  void apply(std::span<float> z) override {
    for (const auto& [id, count] : counts_)
      z[static_cast<size_t>(id)] -= static_cast<float>(once_ + each_ * static_cast<double>(count));
  }

 private:
  double once_;
  double each_;
  std::unordered_map<int64_t, int64_t> counts_;
};

BindProcessor bind_penalty(double once, double each) {
  return [=](ProcessorVocabulary&) -> StartProcessor {
    return [=](const ProcessedResponse& response) {
      return std::make_unique<CountPenalty>(once / response.temperature,
                                            each / response.temperature);
    };
  };
}

}  // namespace

/// {"penalty": p} in [-2, 2].
BindProcessor read_frequency_penalty(ProcessorOptions& in) {
  return bind_penalty(0, in.number("penalty", closed(-2, 2)));
}

BindProcessor read_presence_penalty(ProcessorOptions& in) {
  return bind_penalty(in.number("penalty", closed(-2, 2)), 0);
}

}  // namespace praetor
