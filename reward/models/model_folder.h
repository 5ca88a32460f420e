#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "core/config/yaml_reader.h"

namespace praetor {

/// Gives the folder that an earlier stage of the job left; throws for a name it does not know.
using StageResults = std::function<std::filesystem::path(const std::string& stage)>;

/// Where the model of a part comes from.
struct ModelFolder {
  std::filesystem::path path;  ///< empty when `stage` names it
  std::string stage;           ///< an earlier stage of the job, whose result is loaded
  bool scalar = true;          ///< a reward model; else a causal language model
  bool attributes = false;     ///< a reward model of several numbers
  int64_t max_length = 0;      ///< tokens that the part lets it read; 0: the model's positions

  /// Reads `path` and `stage`, of which one is wanted; a path without config.json is an error.
  static ModelFolder from_yaml(YamlReader& in);
  std::filesystem::path in(const StageResults& results) const {
    return stage.empty() ? path : results(stage);
  }
};

}  // namespace praetor
