#pragma once

#include <cstdint>

#include "core/config/yaml_reader.h"

namespace praetor {

/// What the ranks of a learner keep in parts (ZeRO, arXiv:1910.02054), and what they compute in
/// parts. A learner of one rank keeps everything, whatever the stage.
struct ShardingConfig {
  /// 1: the optimizer's moments. 2: the gradients too, summed as the backward leaves a unit. 3: the
  /// weights too, also those of frozen networks, gathered unit by unit while they are used.
  int64_t stage = 1;  ///< 1, 2 or 3
  /// Stages 2 and 3: exchanges run beside the computation. Units whose weights are asked for before
  /// the pass comes to them (stage 3), >= 0; 0: everything is waited for.
  int64_t prefetch = 1;
  /// Neighbouring ranks over which every layer is split (core/model/tensor_split.h); they work on
  /// the same micro-batches, and the stage is about those that hold the same part. >= 1, and
  /// divides the ranks.
  int64_t tensor = 1;
  static ShardingConfig from_yaml(YamlReader in);
};

}  // namespace praetor
