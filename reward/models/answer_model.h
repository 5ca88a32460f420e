#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"
#include "core/data/example.h"
#include "core/model/transformer.h"
#include "core/tokenizer/tokenizer.h"
#include "reward/models/model_folder.h"

namespace praetor {

struct AnswerModelConfig {
  ModelFolder folder{.scalar = false};
  std::string chat_template = "plain";  ///< a question becomes one user turn of it; plain: as it is
  int64_t max_length = 0;       ///< tokens; 0: the model's positions. A longer question is an error
  int64_t batch_tokens = 4096;  ///< tokens of one forward; changes memory and speed, never a number
  std::string positive;         ///< the two answers, each one token where an answer begins
  std::string negative;

  /// Reads path, stage, template, max_length and batch_tokens; the answers are the caller's.
  static AnswerModelConfig from_yaml(YamlReader& in);
};

/// A causal language model that answers questions with one of two words. Nothing is sampled: the
/// answer is the probability of the one word's token against the other's at the position where the
/// answer would begin (Xu et al. 2024, arXiv:2409.20370; for pairs Dong et al. 2024,
/// arXiv:2405.07863). One thread at a time.
class AnswerModel {
 public:
  /// @throws MissingInput; DataError when the folder is not a language model, its tokenizer does
  /// not fit, or an answer is not a single token
  static std::unique_ptr<AnswerModel> load(const std::filesystem::path& folder,
                                           const AnswerModelConfig& config);

  struct Result {
    std::optional<double> probability;  ///< of the positive answer; absent exactly when `error` is
                                        ///< set
    std::string error;                  ///< "512 tokens, more than max_length 256"
  };
  /// One result a question, packed without padding into forwards of at most `batch_tokens` (a
  /// longer one alone). In float32 on CPU a result has the same bits in any batch.
  std::vector<Result> ask(std::span<const std::string> questions) const;

  /// What the model reads of a question.
  std::vector<int64_t> tokens(const std::string& question) const;

 private:
  AnswerModel(Transformer model,
              std::unique_ptr<Tokenizer> tokenizer,
              const AnswerModelConfig& config);

  Transformer model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  TextFormat format_;
  int64_t batch_tokens_;
  ops::LanguageHead answers_;  ///< its rows of the two answers
};

}  // namespace praetor
