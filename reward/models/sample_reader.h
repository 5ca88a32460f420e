#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"
#include "core/data/example.h"
#include "core/data/sample.h"
#include "core/model/transformer.h"
#include "core/tokenizer/tokenizer.h"

namespace praetor {

/// How a model reads samples.
struct ReaderConfig {
  std::string chat_template =
      "plain";  ///< the model's own: a prompt becomes one user turn of it; plain: as it is
  int64_t max_length =
      0;  ///< tokens; 0: the model's positions. A longer sample is an error, never cut
  bool append_eos = true;  ///< the folder's first end token, behind every response, finished or not
  int64_t batch_tokens = 4096;  ///< tokens of one forward; changes memory and speed, never a score
  /// Keys template, max_length, append_eos and batch_tokens of a part.
  void read(YamlReader& in);
};

/// A network with numbers at the last token that reads samples as text, tokenised by its own
/// tokenizer in the way its training did (core/data/example.h): prompt and response encoded apart
/// and joined, then its end token. One thread at a time.
class SampleReader {
 public:
  /// @param labels  numbers that the folder's head gives
  /// @throws MissingInput; DataError when the tokenizer does not fit the model, or there is no end
  /// token
  SampleReader(const std::filesystem::path& folder, const ReaderConfig& config, int64_t labels);

  /// Hidden states of n samples.
  struct Hidden {
    at::Tensor response;  ///< [n,H] at the last token
    at::Tensor prompt;    ///< [n,H] at the last token of the prompt
  };
  struct Result {
    std::vector<double> values;  ///< empty exactly when `error` is set
    std::string error;           ///< "512 tokens, more than max_length 256"
  };
  /// What `numbers` ([n,C] of n samples) says of each sample, in their order, packed without
  /// padding into forwards of at most `batch_tokens` (a longer sample alone). In float32 on CPU a
  /// sample's numbers have the same bits in any batch.
  std::vector<Result> read(std::span<const Sample> samples,
                           const std::function<at::Tensor(const Hidden&)>& numbers) const;

  /// The tokens of a sample.
  std::vector<int64_t> tokens(const Sample& sample) const { return example(sample).tokens; }
  const ScalarHead& head() const { return model_.head; }
  int64_t hidden_size() const { return model_.backbone.config().hidden_size; }

 private:
  Example example(const Sample& sample) const;

  std::unique_ptr<Tokenizer> tokenizer_;
  ScalarModel model_;
  TextFormat format_;
  int64_t batch_tokens_;
  std::optional<int64_t> eos_;
};

}  // namespace praetor
