#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace praetor {

/// What an engine multiplies by. Activations, sums, embedding, norms and biases are float32
/// throughout; a tied head is of the kind, the embedding that it is tied to is not.
///
///   kFloat32   the weights as they are
///   kBfloat16  each rounded to the nearest bfloat16, ties to even: 2 bytes
///   kInt8      w ~ s q with q in [-127, 127] and one scale s = max |w| / 127 of each output row:
///              1 byte, and 4 a row; |w - s q| <= s / 2
///
/// Of one kind a row of a product is one fixed chain over K (kInt8: over x q, times s at the end),
/// so what ops.h promises of float32 holds of every kind by itself.
enum class WeightKind : uint8_t { kFloat32, kBfloat16, kInt8 };

const std::vector<std::string>& weight_kind_names();
/// @throws InvalidArgument "fp8 is no kind of weights; known: float32, bfloat16, int8"
WeightKind weight_kind_of(const std::string& name);
const std::string& to_string(WeightKind kind);

}  // namespace praetor
