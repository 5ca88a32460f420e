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
  /// Consecutive ranks that keep one copy together, whatever the stage: a node. The others keep
  /// copies of their own, and gradients are summed over the copies at the step. Divides the ranks,
  /// where there are several; 0: all ranks keep one copy. Where `tensor` splits layers, it counts
  /// those that hold the same part.
  int64_t group = 0;
  static ShardingConfig from_yaml(YamlReader in);

  /// Ranks of `ranks` that keep one copy together.
  int64_t ranks_of_copy(int64_t ranks) const { return group == 0 || ranks == 1 ? ranks : group; }
};

}  // namespace praetor
