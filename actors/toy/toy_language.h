#pragma once

#include <cstdint>
#include <filesystem>

namespace praetor {

/// How much of the toy language to write.
struct ToyLanguageSize {
  int64_t sft_rows = 2000;
  int64_t pair_rows = 2000;
  int64_t prompt_rows = 256;
  int64_t eval_rows = 64;
  int64_t attribute_rows = 2000;
};

/// A tiny language with something to like and to dislike, so that a whole job runs with nothing
/// from outside: animals go somewhere and two or three kind or unkind things follow. Supervised
/// rows show both halves equally often; in a preference pair the response with more kind sentences
/// is chosen (5% of the pairs are flipped, as human data are noisy).
///
/// Writes into `folder`, for one `seed` always the same bytes: tokenizer.json and
/// tokenizer_config.json (byte-level BPE with the words as merges; end of text "<|end|>"),
/// sft.jsonl {"prompt","completion"}, pairs.jsonl
/// {"prompt","chosen","rejected"}, pairs_eval.jsonl (the same, `eval_rows` others, none flipped),
/// prompts_train.jsonl and prompts_eval.jsonl {"prompt"}, attributes.jsonl and (twice `eval_rows`
/// others) attributes_eval.jsonl {"prompt","completion","kindness","verbosity"}: two responses to
/// each prompt, labelled with their kind sentences less the unkind ones and with their sentences;
/// every fourth row of the former lacks one label. @throws IoError
void write_toy_language(const std::filesystem::path& folder,
                        uint64_t seed,
                        const ToyLanguageSize& size);

/// Tokens of that tokenizer; the same for every seed and size.
int64_t toy_language_vocabulary();

}  // namespace praetor
