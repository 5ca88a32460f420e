#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

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
  /// @param streamed    text is wanted token by token
  Response(const GenerationRequest& request,
           int64_t index,
           int32_t sample,
           const Tokenizer& tokenizer,
           int64_t max_tokens,
           int64_t vocab_size,
           std::unique_ptr<ProcessorChain> processors = nullptr,
           bool streamed = false);

  /// How the next token is drawn.
  SampleRow next_row(int64_t logits_row);
  /// Records a token, drawn from weights of `version`. True when it was the last.
  bool push(const SampledToken& sampled, int64_t version = 0);
  int64_t tokens_left() const { return max_tokens_ - static_cast<int64_t>(made_.tokens.size()); }
  const Generation& so_far() const { return made_; }  ///< its text comes at the end
  /// Text that became certain since the last call, of a streamed response. Valid until the next
  /// push.
  std::string_view new_text();
  /// The ended response; the object is not used again.
  Generation take();
  /// The response as it stands, ended for `reason`; the object is not used again.
  Generation abandon(FinishReason reason);

 private:
  bool is_stop(int64_t token) const;
  void end(FinishReason reason);

  const GenerationRequest& request_;
  const Tokenizer& tokenizer_;
  int64_t max_tokens_;
  bool reshaped_;
  std::optional<SeenTokens> seen_;        ///< when the repetition penalty is on
  std::optional<StreamDecoder> decoder_;  ///< when there are stop strings, or it is streamed
  std::unique_ptr<ProcessorChain> processors_;
  StopStrings stops_;
  size_t told_ = 0;  ///< bytes of text that new_text has returned
  Generation made_;
};

}  // namespace praetor
