#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "core/model/transformer.h"
#include "rollout/engine.h"

namespace praetor::testing {

/// A tokenizer whose token i is the letter 'a' + i % 26; id 0 is special.
class LetterTokenizer final : public Tokenizer {
 public:
  explicit LetterTokenizer(int64_t vocab_size) : vocab_size_(vocab_size) {}
  std::vector<int64_t> encode(std::string_view text, bool) const override {
    std::vector<int64_t> ids;
    for (const char c : text) ids.push_back(c - 'a');
    return ids;
  }
  std::string decode(std::span<const int64_t> tokens, bool skip_special) const override {
    std::string text;
    for (const int64_t id : tokens) text += letter(id, skip_special);
    return text;
  }
  int64_t vocab_size() const override { return vocab_size_; }
  std::optional<int64_t> token_to_id(std::string_view) const override { return std::nullopt; }
  std::optional<std::string> id_to_token(int64_t) const override { return std::nullopt; }
  bool is_special(int64_t id) const override { return id == 0; }
  std::unique_ptr<Decoding> start_decode(bool skip_special) const override {
    return std::make_unique<Letters>(skip_special);
  }

 private:
  static std::string letter(int64_t id, bool skip_special) {
    return id == 0 && skip_special ? "" : std::string(1, static_cast<char>('a' + id % 26));
  }
  struct Letters final : Decoding {
    explicit Letters(bool skip_special) : skip(skip_special) {}
    std::string push(int64_t token) override { return letter(token, skip); }
    std::string finish() override { return ""; }
    bool skip;
  };
  int64_t vocab_size_;
};

inline ModelConfig tiny_config() {
  ModelConfig c;
  c.vocab_size = 97;
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.num_layers = 2;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 8;
  c.max_positions = 80;
  c.initializer_range = 0.3;
  return c;
}

inline Transformer tiny_model() {
  return Transformer(tiny_config(), RandomStream({.job_seed = 4, .purpose = Purpose::kInitialise}));
}

/// A request for a model of `vocabulary` tokens whose prompt begins as many others do.
inline GenerationRequest random_request(RandomStream& random, uint32_t number, int64_t vocabulary) {
  GenerationRequest r;
  const auto common = static_cast<int64_t>(random.below(3));
  for (uint64_t i = 0, n = 1 + random.below(30); i < n; ++i) {
    r.prompt.push_back(i < 20
                           ? 3 + common
                           : static_cast<int64_t>(random.below(static_cast<uint64_t>(vocabulary))));
  }
  r.params.max_new_tokens = 1 + static_cast<int64_t>(random.below(20));
  r.params.temperature = random.below(4) == 0 ? 0.0 : 0.9;
  r.params.top_p = random.below(2) == 0 ? 1.0 : 0.9;
  if (random.below(3) == 0) r.params.stop_tokens = {7, 11};
  if (random.below(3) == 0) r.params.stop_strings = {"ab", "qqq", "c"};
  r.samples = 1 + static_cast<int32_t>(random.below(3));
  r.key = {.job_seed = 1, .stage = 2, .prompt_ordinal = number};
  return r;
}

/// All responses, in order of request and sample.
inline std::vector<Generation> generate_all(Engine& engine,
                                            const std::vector<GenerationRequest>& requests) {
  std::vector<Generation> out;
  engine.generate(requests, [&](Generation&& g) {
    out.push_back(std::move(g));
    return true;
  });
  std::sort(out.begin(), out.end(), [](const Generation& a, const Generation& b) {
    return std::tie(a.request, a.sample) < std::tie(b.request, b.sample);
  });
  return out;
}

/// Everything of a response but its place in the call, floats by value (which for numbers that are
/// neither NaN nor zero is bit by bit).
inline bool same_response(const Generation& a, const Generation& b) {
  return a.tokens == b.tokens && a.behavior_logprobs == b.behavior_logprobs &&
         a.model_logprobs == b.model_logprobs && a.sampled_logprobs == b.sampled_logprobs &&
         a.kept_masses == b.kept_masses && a.top_logprobs == b.top_logprobs && a.text == b.text &&
         a.finish == b.finish;
}

}  // namespace praetor::testing
