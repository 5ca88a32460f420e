#pragma once

#include <c10/core/ScalarType.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/model/weight_kind.h"

/// Options that several subcommands share.
namespace praetor::cli {

/// JOB.yaml, and --set KEY=VALUE any number of times. @param example  of --set, for its help
void add_job(CLI::App& command,
             std::filesystem::path& job,
             std::vector<std::string>& overrides,
             const std::string& example);

/// --dtype float32|bfloat16.
void add_dtype(CLI::App& command, std::string& dtype);
at::ScalarType dtype_of(const std::string& name);

/// --weights float32|bfloat16|int8, of the engine.
void add_weights(CLI::App& command, WeightKind& weights);

/// --draft-tokens N: how far the engine guesses ahead.
void add_draft_tokens(CLI::App& command, int64_t& draft_tokens);

}  // namespace praetor::cli
