#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "actors/serve/api.h"
#include "core/model/transformer.h"
#include "rollout/engine.h"
#include "tests/rollout/engine_fixture.h"

namespace praetor::testing {

/// Any text goes in; letters come out. Id 0 is special.
class AnyTextTokenizer final : public Tokenizer {
 public:
  std::vector<int64_t> encode(std::string_view text, bool) const override {
    std::vector<int64_t> ids;
    for (const char c : text) ids.push_back(1 + static_cast<unsigned char>(c) % 96);
    return ids;
  }
  std::string decode(std::span<const int64_t> tokens, bool) const override {
    std::string text;
    for (const int64_t id : tokens) text += letter(id);
    return text;
  }
  int64_t vocab_size() const override { return 97; }
  std::optional<int64_t> token_to_id(std::string_view) const override { return std::nullopt; }
  std::optional<std::string> id_to_token(int64_t id) const override {
    return id == 0 ? "<end>" : letter(id);
  }
  bool is_special(int64_t id) const override { return id == 0; }
  std::unique_ptr<Decoding> start_decode(bool) const override {
    return std::make_unique<Letters>();
  }

 private:
  static std::string letter(int64_t id) {
    return id == 0 ? "" : std::string(1, static_cast<char>('a' + id % 26));
  }
  struct Letters final : Decoding {
    std::string push(int64_t token) override { return letter(token); }
    std::string finish() override { return ""; }
  };
};

/// A tiny model, its engine, and what the server knows of it.
struct ServedTiny {
  Transformer model = tiny_model();
  AnyTextTokenizer tokenizer;
  Engine engine{model, tokenizer, {.max_sequences = 8, .max_step_tokens = 64, .block_size = 4}};
  ModelConfig config = config_with_end();
  serve::ServedModel served{config, tokenizer, "tiny", "plain"};

  static ModelConfig config_with_end() {
    ModelConfig config = tiny_config();
    config.eos_tokens = {0};
    return config;
  }
};

}  // namespace praetor::testing
