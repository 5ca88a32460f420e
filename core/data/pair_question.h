#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"
#include "core/data/example.h"
#include "core/data/text_template.h"
#include "core/tokenizer/tokenizer.h"

namespace praetor {

/// The default question.
inline constexpr const char* kPairQuestionText =
    "[CONTEXT] {prompt} [RESPONSE A] {a} [RESPONSE B] {b} [ANSWER]";

/// Which of two responses is better, asked of a language model that answers with one word (Dong et
/// al. 2024, arXiv:2405.07863). Training and scoring read it from the same keys, so that a model is
/// asked what it was taught.
struct PairQuestion {
  PairQuestion();

  TextTemplate text;                             ///< of {prompt}, {a}, {b}; see kPairQuestionText
  std::array<std::string, 2> answers{"A", "B"};  ///< name {a}, {b}; each one token

  /// Reads `text` and `answers`. Unknown keys are the caller's to reject.
  static PairQuestion from_yaml(YamlReader& in);
  std::string fill(const std::string& prompt, const std::string& a, const std::string& b) const;
};

/// The tokens that a model sees of a question, up to where it is to answer.
std::vector<int64_t> question_tokens(const std::string& question,
                                     const Tokenizer& tokenizer,
                                     const TextFormat& format);
/// The tokens of two words where an answer begins: as a response is encoded, behind a prompt and by
/// itself.
/// @throws DataError when a word is not a single token, or both are the same one
std::array<int64_t, 2> answer_tokens(const std::array<std::string, 2>& words,
                                     const Tokenizer& tokenizer);

/// Both orders of a preference pair: the question with the chosen response as {a} and the answer
/// that names it, then with it as {b}. The answer's token is the only target; nothing ends it. What
/// `data` says of a row's messages holds for {prompt}.
/// @param answers  from answer_tokens
std::vector<Example> pair_question_examples(const Row& row,
                                            const PairQuestion& question,
                                            const std::array<int64_t, 2>& answers,
                                            const Tokenizer& tokenizer,
                                            const TextFormat& format);

}  // namespace praetor
