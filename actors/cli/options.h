#pragma once

#include <c10/core/ScalarType.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/model/transformer.h"
#include "rollout/engine_config.h"

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

/// --weights float32|bfloat16|int8, --device cpu|cuda and --cache-bytes N, of the engine.
void add_engine(CLI::App& command, EngineConfig& engine);
/// Defaults that follow from --device, once the command line is parsed: on a GPU bfloat16, and a
/// cache of what the GPU has free. @throws MissingInput when there is no GPU
void settle_engine(const CLI::App& command, EngineConfig& engine);
/// The model of `folder` for the engine alone: with weights of another kind than float32 these are
/// all that is kept.
Transformer load_for_engine(const std::filesystem::path& folder,
                            const std::string& dtype,
                            const EngineConfig& engine);

/// --draft-tokens N: how far the engine guesses ahead.
void add_draft_tokens(CLI::App& command, int64_t& draft_tokens);

}  // namespace praetor::cli
