#pragma once

#include <filesystem>
#include <iosfwd>
#include <istream>
#include <string>
#include <vector>

#include "core/data/sample.h"

namespace praetor::cli {

/// A sample and the line it stands on.
struct ScoreRow {
  Sample sample;
  std::vector<Rival> rivals;  ///< numbered from 0
  int64_t line = 0;           ///< 1-based
};

/// Reads {"prompt", "response", ...} a line; "response_tokens", "finished" and "rivals" (texts) are
/// taken where they are given, all other fields are the sample's metadata. Blank lines are passed
/// over. `name` stands in the messages.
/// @throws DataError "name:line: what is wrong and what would be right", the first 20 of them
std::vector<ScoreRow> read_score_rows(std::istream& in, const std::string& name);

/// Scores `input` ("-": standard input) by the rewards section in `reward` and writes a line a
/// sample:
///   {"score": number or null, "satisfied"?, "task"?, "preferences"? (as "rivals"),
///    "parts": {NAME: {"score", "weight", "verdict"?, "not_applicable"?, "reason"?, "error"?}}}
/// @throws ConfigError for the section, DataError for the rows or, with on_error: fail, for a part
/// that failed
void score_file(const std::filesystem::path& reward,
                const std::filesystem::path& input,
                std::ostream& out);

}  // namespace praetor::cli
