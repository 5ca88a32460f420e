#include <algorithm>
#include <utility>

#include "rollout/draw.h"
#include "rollout/processors/registry.h"

// Processors that look at ids alone: allowed_tokens, logit_bias, min_new_tokens.

namespace praetor {
namespace {

class AllowedTokens final : public LogitProcessor {
 public:
  explicit AllowedTokens(std::shared_ptr<const std::vector<bool>> allowed)
      : allowed_(std::move(allowed)) {}
  void push(int64_t) override {}
  void apply(std::span<float> z) override {
    for (size_t id = 0; id < z.size(); ++id)
      if (!(*allowed_)[id]) z[id] = kBarred;
  }

 private:
  std::shared_ptr<const std::vector<bool>> allowed_;
};

class LogitBias final : public LogitProcessor {
 public:
  using Biases = std::vector<std::pair<int64_t, double>>;
  LogitBias(std::shared_ptr<const Biases> biases, double temperature)
      : biases_(std::move(biases)), temperature_(temperature) {}
  void push(int64_t) override {}
  void apply(std::span<float> z) override {
    for (const auto& [id, bias] : *biases_)
      z[static_cast<size_t>(id)] += static_cast<float>(bias / temperature_);
  }

 private:
  std::shared_ptr<const Biases> biases_;
  double temperature_;
};

class MinNewTokens final : public LogitProcessor {
 public:
  MinNewTokens(int64_t least, std::span<const int64_t> stop_tokens)
      : missing_(least), stop_tokens_(stop_tokens) {}
  void push(int64_t) override { --missing_; }
  void apply(std::span<float> z) override {
    if (missing_ <= 0) return;
    for (const int64_t stop : stop_tokens_)
      if (stop < static_cast<int64_t>(z.size())) z[static_cast<size_t>(stop)] = kBarred;
  }

 private:
  int64_t missing_;
  std::span<const int64_t> stop_tokens_;
};

}  // namespace

/// {"ids": [...]}: no other token is drawn; a stop token must be listed to be drawn.
BindProcessor read_allowed_tokens(ProcessorOptions& in) {
  const std::vector<int64_t> ids = in.token_ids("ids");
  return [ids](ProcessorVocabulary& vocabulary) -> StartProcessor {
    auto allowed =
        std::make_shared<std::vector<bool>>(static_cast<size_t>(vocabulary.size()), false);
    for (const int64_t id : ids) {
      vocabulary.check_token("ids", id);
      (*allowed)[static_cast<size_t>(id)] = true;
    }
    return [allowed](const ProcessedResponse&) { return std::make_unique<AllowedTokens>(allowed); };
  };
}

/// {"bias": {"ID": b}}: b is added to the token's logit before the temperature divides it.
BindProcessor read_logit_bias(ProcessorOptions& in) {
  const auto biases =
      std::make_shared<const LogitBias::Biases>(in.numbers_by_token("bias", closed(-100, 100)));
  return [biases](ProcessorVocabulary& vocabulary) -> StartProcessor {
    for (const auto& [id, bias] : *biases) vocabulary.check_token("bias", id);
    return [biases](const ProcessedResponse& response) {
      return std::make_unique<LogitBias>(biases, response.temperature);
    };
  };
}

/// {"tokens": n}: no stop token is among the first n.
BindProcessor read_min_new_tokens(ProcessorOptions& in) {
  const int64_t least = in.integer("tokens", at_least(1));
  return [least](ProcessorVocabulary&) -> StartProcessor {
    return [least](const ProcessedResponse& response) {
      return std::make_unique<MinNewTokens>(least, response.stop_tokens);
    };
  };
}

}  // namespace praetor
