#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace praetor {

struct NamedTensor {
  std::string name;  ///< Hugging Face's: "model.layers.0.self_attn.q_proj.weight"
  at::Tensor tensor;
};

}  // namespace praetor
