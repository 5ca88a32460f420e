#pragma once

#include <cstdint>
#include <memory>

#include "core/config/yaml_reader.h"
#include "learners/algorithm.h"

namespace praetor {

/// Section `sft` of a stage.
struct SftConfig {
  int64_t batch_size = 32;  ///< examples of one optimizer step, >= 1
  static SftConfig from_yaml(YamlReader in);
};

std::unique_ptr<Algorithm> make_sft(SftConfig config);

}  // namespace praetor
