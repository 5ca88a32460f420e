#pragma once

#include <filesystem>
#include <string>

#include "core/model/transformer.h"
#include "tests/support/shared_data.h"

namespace praetor::testing {

/// A folder with a tiny random language model and the tokenizer of golden/reward/llama, in which
/// "B", "M", "I" and "He" are single tokens and "A" is two.
class LanguageModelFolder {
 public:
  explicit LanguageModelFolder(uint64_t seed = 1) {
    ModelConfig config = ModelConfig::load(golden("reward/llama"));
    config.num_labels = 0;
    config.initializer_range = 0.4;
    const Transformer model(
        config, RandomStream(SampleKey{.job_seed = seed, .purpose = Purpose::kInitialise}));
    save_hf(model, path());
    for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"})
      std::filesystem::copy_file(golden("reward/llama") / name, path() / name);
  }
  std::filesystem::path path() const { return dir_ / "model"; }

 private:
  TempDir dir_;
};

}  // namespace praetor::testing
