#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/config/yaml_reader.h"
#include "core/data/direction.h"
#include "learners/algorithm.h"

namespace praetor {

/// Section `dpa` of a stage.
struct DpaConfig {
  int64_t prompts_per_step = 64;
  int64_t samples_per_prompt = 8;  ///< K, >= 1
  int64_t epochs = 1;              ///< passes over what is kept, >= 1
  int64_t minibatches = 1;         ///< optimizer steps of a pass, >= 1
  double missing_eos_penalty = 0;  ///< taken from the score of a response that did not end itself
  DirectionPlan direction;
  int64_t buckets = 3;  ///< equal parts of the angles, by which metrics are told, >= 1
  std::array<double, 2> reference_point = {0, 0};  ///< of the area under the front
  static DpaConfig from_yaml(YamlReader in);
};

/// Area that is dominated by at least one of `points`, above and to the right of `reference`: more
/// is better in both coordinates.
double pareto_area(std::vector<std::array<double, 2>> points, std::array<double, 2> reference);

std::unique_ptr<Algorithm> make_dpa(DpaConfig config);

}  // namespace praetor
