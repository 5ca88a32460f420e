#pragma once

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <string>

#include "core/model/generator.h"
#include "rollout/engine_config.h"

namespace praetor::cli {

struct GenerateOptions {
  std::filesystem::path model;
  std::string prompts;      ///< JSON lines; "-" reads standard input
  SamplingParams sampling;  ///< the model's end tokens are added
  int32_t samples = 1;      ///< of each prompt
  uint64_t seed = 1;
  std::string dtype = "float32";  ///< float32 or bfloat16
  EngineConfig engine;            ///< max_step_tokens at least max_sequences
  int threads = 0;                ///< 0: all cores
  std::string chat_template = "plain";
  std::filesystem::path stats;  ///< written at the end when given
};

/// "KIND={...}" as the processor that it names, its options unread. @throws InvalidArgument
ProcessorSpec processor_of_flag(const std::string& text);
/// "5:-2.5" as a bias of token 5. @throws InvalidArgument
ProcessorSpec bias_of_flag(const std::string& text);

/// `praetor generate`: for each prompt, in order, `samples` lines {"prompt_index","sample_index",
/// "tokens","text","logprobs","finish_reason"}, each written as soon as those before it are.
/// Logprobs are the untempered model's; "top_logprobs", when they are asked for, stand before the
/// last. `stats` gets {"prompts","tokens","seconds",
/// "tokens_per_second","peak_rss_bytes"}, the loading of the model not counted in the seconds.
/// All prompts are read and checked before the first is answered.
/// @throws MissingInput; DataError naming the line of a bad prompt; InvalidArgument; IoError
void run_generate(const GenerateOptions& options, std::istream& in, std::ostream& out);

}  // namespace praetor::cli
