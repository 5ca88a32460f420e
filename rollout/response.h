#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "core/model/generator.h"
#include "core/tokenizer/tokenizer.h"
#include "rollout/processors/chain.h"
#include "rollout/sampler.h"
#include "rollout/stop_strings.h"

namespace praetor {

/// The growing response of one sample: what is recorded of it, and when it ends. Request and
/// tokenizer are borrowed. Memory for the whole response is taken at the start.
class Response {
 public:
  /// @param max_tokens  the request's limit, or what the model's positions leave
  /// @param processors  of this response; null: none
  Response(const GenerationRequest& request,
           int64_t index,
           int32_t sample,
           const Tokenizer& tokenizer,
           int64_t max_tokens,
           int64_t vocab_size,
           std::unique_ptr<ProcessorChain> processors = nullptr);

  /// How the next token is drawn.
  SampleRow next_row(int64_t logits_row);
  /// Records a token. True when it was the last.
  bool push(const SampledToken& sampled);
  /// The ended response; the object is not used again.
  Generation take();

 private:
  bool is_stop(int64_t token) const;

  const GenerationRequest& request_;
  const Tokenizer& tokenizer_;
  int64_t max_tokens_;
  bool reshaped_;
  std::optional<SeenTokens> seen_;        ///< when the repetition penalty is on
  std::optional<StreamDecoder> decoder_;  ///< when there are stop strings
  std::unique_ptr<ProcessorChain> processors_;
  StopStrings stops_;
  Generation made_;
};

}  // namespace praetor
