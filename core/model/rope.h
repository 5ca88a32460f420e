#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/model/model_config.h"

namespace praetor {

/// Dimensions of a head that are rotated: the first `rope.partial` of them.
int64_t rotated_dims(const ModelConfig& config, const RopeConfig& rope);

/// Inverse frequencies of the rotated pairs, computed in float32 in the order of transformers'
/// modeling_rope_utils (llama3: Llama 3.1; yarn: arXiv:2309.00071; dynamic: NTK-aware; longrope:
/// arXiv:2402.13753, by the short factors or the long ones). `dynamic` changes nothing up to
/// max_positions, which is the longest sequence a model takes here.
/// @throws InvalidArgument for an unknown scaling.
std::vector<float> inverse_frequencies(const ModelConfig& config,
                                       const RopeConfig& rope,
                                       bool long_factors = false);

/// Cosines and sines of every position. Under longrope a sequence of up to `short_rows` tokens uses
/// the first `short_rows` rows, a longer one the rows behind them; otherwise short_rows is 0.
struct RopeTables {
  at::Tensor cos;  ///< [short_rows + max_positions, rotated_dims/2]
  at::Tensor sin;  ///< the same
  int64_t short_rows = 0;
  /// The row of a position of a sequence of `length` tokens.
  int64_t row(int64_t position, int64_t length) const {
    return length > short_rows ? short_rows + position : position;
  }
};
/// Each entry is computed on its own, so that a position's bits do not depend on the table's
/// length.
RopeTables rope_tables(const ModelConfig& config, const RopeConfig& rope, at::ScalarType dtype);

}  // namespace praetor
