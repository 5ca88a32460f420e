#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

/// For core's sources.
namespace praetor {

/// What a forward under an adapter leaves out of the inputs of its layers; of all its terms.
struct LoraDropout {
  double rate = 0;
  uint64_t key = 0;
  /// [M] int64 on the CPU, of each row of the forward at hand a hash of its tokens and those before
  /// them; undefined: nothing is left out. Never written to again, as graphs keep it.
  at::Tensor rows;
  at::Tensor wanted;  ///< those of them that WantedRows stands for
  bool wanted_alone = false;
  const at::Tensor& at_hand() const { return wanted_alone ? wanted : rows; }
};

}  // namespace praetor
