#pragma once

#include <cstddef>
#include <cstdint>

#include "core/cuda/decoder.h"

/// For the decoder's sources.
namespace praetor::cuda {

inline int64_t query_width(const ModelConfig& c) {
  return c.num_heads * c.head_dim;
}
inline int64_t qkv_width(const ModelConfig& c) {
  return (c.num_heads + 2 * c.num_kv_heads) * c.head_dim;
}

/// One layer's weights and cache; what its family does not have is empty.
struct Decoder::Layer {
  NormWeights attention_norm, attention_output_norm, mlp_norm, mlp_output_norm, q_norm, k_norm;
  DeviceArray<Bfloat16> qkv, o, gate_up, down;
  DeviceArray<float> qkv_bias, o_bias, gate_up_bias, down_bias;
  DeviceArray<Bfloat16> keys, values;
  int64_t window = 0;
  size_t rope = 0;  ///< index into ropes_
};

}  // namespace praetor::cuda
