#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "core/model/kernels/buffer.h"
#include "core/model/weight_kind.h"

namespace praetor::ops::kernels {

/// A weight [N,K] as panels of 32 columns of its transpose: panel p is [K][32], zero past column N.
struct PackedWeight {
  int64_t n = 0, k = 0;
  WeightKind kind = WeightKind::kFloat32;
  Buffer panels;  ///< of elements of the kind
  Buffer scales;  ///< [N], of kInt8

  const float* floats() const { return panels.data(); }
  /// The upper halves of floats.
  const uint16_t* bfloats() const { return reinterpret_cast<const uint16_t*>(panels.data()); }
  const int8_t* bytes() const { return reinterpret_cast<const int8_t*>(panels.data()); }
};

/// The packed form of `weight` [N,K], float32 or bfloat16 on CPU, in `kind`. A row of kInt8 with a
/// value that is not finite has the scale NaN. Contiguous weights are packed once and kept, for
/// each kind, found again by storage, offset and sizes, until the tensor's version counter moves or
/// its storage dies (the address of a dead storage is not given out again while an entry remembers
/// it). Safe from any thread.
///
/// Who writes to a weight's memory behind LibTorch's back (data_ptr, memcpy, a collective) moves
/// the counter with Tensor::unsafeGetTensorImpl()->bump_version(), or computes with the old values.
std::shared_ptr<const PackedWeight> packed_weight(const at::Tensor& weight,
                                                  WeightKind kind = WeightKind::kFloat32);

/// Forgets every packed form, of every kind, of what lies in the storage of `weight`: its memory is
/// about to go away, while the tensor stays.
void forget_packed_weights(const at::Tensor& weight);

/// A tensor of the sizes of `values` [N,K], float32 on CPU, that has no memory of its own: its
/// packed form in `kind` is all there is of it. Products in that kind take it like any other; who
/// reads its elements reads at a null pointer, and packed_weight in another kind throws
/// InternalError.
at::Tensor packed_alone(const at::Tensor& values, WeightKind kind);
/// Other values of a tensor that packed_alone made, of the same sizes.
void renew_packed_alone(const at::Tensor& weight, const at::Tensor& values);
/// Its kind; nothing for a tensor that has its values.
std::optional<WeightKind> kind_packed_alone(const at::Tensor& weight);

struct PackedWeightStats {
  int64_t entries = 0;   ///< weights remembered
  int64_t bytes = 0;     ///< of their panels and scales
  int64_t packings = 0;  ///< since the process began
};
/// Forgets what has died, then counts.
PackedWeightStats packed_weight_stats();

}  // namespace praetor::ops::kernels
