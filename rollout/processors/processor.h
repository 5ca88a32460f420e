#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "core/tokenizer/tokenizer.h"
#include "rollout/grammar/token_table.h"

namespace praetor {

/// Edits the logits of one response, token by token. Rows of several responses are processed at
/// once, each on one thread; what processors of one kind share must bear that. What it does may
/// depend on its options and the response's own tokens alone, or samples would depend on their
/// neighbours.
class LogitProcessor {
 public:
  virtual ~LogitProcessor() = default;
  /// A token of the response, in order; a stop token too.
  virtual void push(int64_t token) = 0;
  /// Edits the logits of the next token; -inf bars one.
  /// @param z  [V] float32, tempered and penalised
  virtual void apply(std::span<float> z) = 0;
  /// True when no token may follow: the response ends here (kStop). Asked after each push.
  virtual bool complete() { return false; }
};

/// The tokens of an engine. One thread.
class ProcessorVocabulary {
 public:
  /// The tokenizer is borrowed. @param size  of a row of logits
  ProcessorVocabulary(const Tokenizer& tokenizer, int64_t size)
      : tokenizer_(tokenizer), size_(size) {}
  const Tokenizer& tokenizer() const { return tokenizer_; }
  int64_t size() const { return size_; }
  /// @throws InvalidArgument "`key`: token 7 is outside ..."
  void check_token(const char* key, int64_t id) const;
  /// All tokens as bytes; made when first asked for.
  std::shared_ptr<const grammar::TokenTable> table();

 private:
  const Tokenizer& tokenizer_;
  int64_t size_;
  std::shared_ptr<const grammar::TokenTable> table_;
};

/// The response that a processor is for.
struct ProcessedResponse {
  std::span<const int64_t> stop_tokens;  ///< that do stop; borrowed for the response's life
  double temperature = 1.0;              ///< by which the logits are divided already; greedy: 1
};

/// Makes the processor of a response.
using StartProcessor = std::function<std::unique_ptr<LogitProcessor>(const ProcessedResponse&)>;
/// Prepares options that have been read for a vocabulary, once for an engine.
/// @throws InvalidArgument "key: ..." when they do not fit it
using BindProcessor = std::function<StartProcessor(ProcessorVocabulary&)>;

}  // namespace praetor
