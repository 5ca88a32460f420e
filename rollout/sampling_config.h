#pragma once

#include <string>

#include "core/config/yaml_reader.h"
#include "core/model/generator.h"

namespace praetor {

/// Section `sampling`: max_new_tokens, temperature, top_k, top_p, min_p, repetition_penalty, stop
/// (strings), stop_token_ids, ignore_eos. The model's own end tokens are not part of it: the caller
/// appends them to `stop_tokens`.
SamplingParams sampling_from_yaml(YamlReader in);

/// @throws InvalidArgument "`what`: temperature: -1 is outside ..." at the first value out of range
void check_sampling(const SamplingParams& params, const std::string& what);

}  // namespace praetor
