#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"
#include "core/model/generator.h"

namespace praetor {

/// Section `sampling`: max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty, stop
/// (strings), stop_token_ids, ignore_eos; min_new_tokens, bad_words, allowed_tokens, logit_bias,
/// presence_penalty, frequency_penalty, regex and json_schema, each a processor of that kind, in
/// this order; processors, a list of further ones ({kind: ..., its options}). The model's own end
/// tokens are not part of it: the caller appends them to `stop_tokens`.
SamplingParams sampling_from_yaml(YamlReader in);

/// Processors' options are not looked at: check_processors does, and the engine once for each.
/// @throws InvalidArgument "`what`: temperature: -1 is outside ..." at the first value out of range
void check_sampling(const SamplingParams& params, const std::string& what);

/// Reads the options of every processor, as far as that needs no vocabulary.
/// @throws InvalidArgument "`what`: processors[1]: regex: pattern: offset 3: ..."
void check_processors(const SamplingParams& params, const std::string& what);

/// The processors that keys of their own stand for: options in the form of each kind.
ProcessorSpec min_new_tokens(int64_t tokens);
ProcessorSpec bad_words(const std::string& json_list);
ProcessorSpec allowed_tokens(const std::vector<int64_t>& ids);
ProcessorSpec logit_bias(const std::string& json_mapping);
ProcessorSpec presence_penalty(double penalty);
ProcessorSpec frequency_penalty(double penalty);
ProcessorSpec regex_constraint(const std::string& pattern);
ProcessorSpec json_schema_constraint(const std::string& schema);

}  // namespace praetor
