#pragma once

#include <cstdint>
#include <memory>

#include "core/config/yaml_reader.h"
#include "learners/algorithm.h"
#include "learners/algorithms/bradley_terry.h"

namespace praetor {

/// Section `reward_model` of a stage.
struct BradleyTerryConfig {
  int64_t batch_size = 32;  ///< pairs of one optimizer step, >= 1
  bool margin = false;      ///< use the rows' "margin"
  double label_noise = 0;   ///< [0, 0.5)
  double centring = 0.01;   ///< >= 0, arXiv:2312.09244
  static BradleyTerryConfig from_yaml(YamlReader in);
};

std::unique_ptr<Algorithm> make_reward_model(BradleyTerryConfig config);

}  // namespace praetor
