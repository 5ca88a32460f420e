#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/data/dataset.h"
#include "core/tokenizer/tokenizer.h"

namespace praetor {

/// One sequence of supervised or preference training.
struct Example {
  std::vector<int64_t> tokens;
  std::vector<uint8_t>
      target;  ///< same length; 1 where this token is predicted and its loss counts (never at 0)
  int64_t row = 0;      ///< index of its row in the data set
  double margin = 0.0;  ///< Bradley-Terry margin of its pair
  /// Log-probability of each target under the reference, nats, in order; empty: not known.
  std::vector<float> reference_logprob;
  std::vector<double> labels;  ///< numbers that its row gives it; NaN: a missing one
};

/// How text becomes tokens; one place for training, rollout and scoring.
struct TextFormat {
  std::string chat_template =
      "plain";                ///< for rows with messages, and for "prompt" rows when `wrap_prompt`
  bool wrap_prompt = false;   ///< render a plain prompt as one user turn of the template
  int64_t max_length = 1024;  ///< tokens; longer examples are an error of the row, or dropped and
                              ///< counted by the caller
  bool append_eos = true;     ///< the stop token that ends a completion
};

/// Text of a row's prompt as the model sees it (template applied, generation prompt added for
/// messages).
std::string prompt_text(const Row& row, const Tokenizer& tokenizer, const TextFormat& format);
/// Its tokens. A plain prompt is encoded with special tokens added (BOS where the tokenizer adds
/// one).
std::vector<int64_t> prompt_tokens(const Row& row,
                                   const Tokenizer& tokenizer,
                                   const TextFormat& format);
/// The examples below are whole: nothing is cut at max_length, which the caller compares with
/// tokens.size(), and `row` is left to the caller. A turn ends with the template's own marker where
/// it has one, and the sequence with `eos` unless that marker is it.
///
/// Prompt and completion are encoded apart and joined, so that the boundary is the one generation
/// has. Messages: every assistant turn is a target. `eos`: id that ends a completion when
/// append_eos.
Example completion_example(const Row& row,
                           const Tokenizer& tokenizer,
                           const TextFormat& format,
                           int64_t eos);
/// Chosen, then rejected. The targets are the responses' tokens.
std::vector<Example> preference_examples(const Row& row,
                                         const Tokenizer& tokenizer,
                                         const TextFormat& format,
                                         int64_t eos);

}  // namespace praetor
