#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/model_config.h"
#include "core/tokenizer/tokenizer.h"

namespace praetor::cli {

/// Reads the prompts of `praetor generate`: one JSON object a line, blank lines skipped, with
/// exactly one of {"prompt": text}, {"tokens": [ids]} and {"messages": [{"role","content"}...]}
/// (rendered by `chat_template`, the assistant's turn opened). Other fields are left alone.
/// @param text  the whole file
/// @param name  of the file, for messages
/// @returns token ids, one prompt a row
/// @throws DataError "name:line: what is wrong and what would be right", the first 20 of them
std::vector<std::vector<int64_t>> read_generate_prompts(const std::string& text,
                                                        const std::string& name,
                                                        const Tokenizer& tokenizer,
                                                        const ModelConfig& model,
                                                        const std::string& chat_template);

}  // namespace praetor::cli
