#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/tokenizer/tokenizer.h"

namespace praetor {

/// One row of a JSON-lines data set. Which fields are filled depends on its form:
///   {"prompt"}                        prompts to respond to
///   {"prompt","completion"}           supervised fine-tuning
///   {"prompt","chosen","rejected"}    preference pairs; optional "margin"
///   {"text","label"}                  a good (1) or bad (0) response without a prompt; read as
///   preference pairs,
///                                     the i-th good one against the i-th bad one
///   {"messages":[{role,content}...]}  a conversation: trained on the assistant's turns, or a
///   prompt when it ends with a user's
/// Every other field is kept in `metadata` (a JSON object as text), which judges see.
struct Row {
  std::string prompt;
  std::vector<Message> messages;
  std::string completion;
  std::string chosen;
  std::string rejected;
  double margin = 0.0;
  std::string metadata = "{}";
  int64_t line = 0;  ///< 1-based line in its file
};

enum class RowForm { kPrompt, kCompletion, kPreference };

/// Reads `file` (plain, or gzip when it ends in .gz) and checks every row against the wanted form.
/// "chosen"/"rejected" may be strings, or lists of messages of which the last is taken and the rest
/// is the prompt.
/// @throws MissingInput; DataError "file:line: what is wrong and what would be right", the first 20
/// of them.
std::vector<Row> read_rows(const std::filesystem::path& file, RowForm form);

/// Order of `rows` items in epoch `epoch`: a seeded permutation when `shuffle`, else ascending.
std::vector<int64_t> epoch_order(
    int64_t rows, int64_t epoch, uint64_t seed, uint32_t stage, bool shuffle);

}  // namespace praetor
