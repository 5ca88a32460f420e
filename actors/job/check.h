#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "actors/job/job_config.h"
#include "core/data/dataset.h"

namespace praetor {

/// Everything that can be known to be wrong with a job before it costs anything: the errors of
/// reading it, and
///   - files and folders that are missing, models and tokenizers that do not load, rows of data
///   that are broken;
///   - a tokenizer with more tokens than the model has embeddings, lengths above the model's
///   positions;
///   - steps that the rows do not suffice for.
/// What earlier stages will make is checked as far as it is known already. Each is one line,
/// "file:line:column: key: what is wrong and what would be right"; empty: the job can start.
std::vector<std::string> check_job(const JobConfig& job);

/// What a job may ask for but hardly means, a line each: learner ranks that have nothing to do in
/// an optimizer step. The job has no errors.
std::vector<std::string> notes_on(const JobConfig& job);

/// Reads and checks a job, as `train` does before anything else.
/// @throws ConfigError with all errors, a line each; MissingInput when there is no such job file
JobConfig load_checked_job(const std::filesystem::path& file,
                           const std::vector<std::string>& overrides = {});

/// Number of rows that `source` gives a stage of `job`, or nothing when it cannot be read (or the
/// stage that makes it is not known). Files are counted without checking the form of their rows
/// beyond what read_rows does for `form`.
std::optional<int64_t> count_rows(const JobConfig& job, const Source& source, RowForm form);

}  // namespace praetor
