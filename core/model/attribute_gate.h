#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/base/random.h"
#include "core/model/named_tensor.h"

namespace praetor {

/// Weights of a model's attributes that depend on the prompt (Wang et al. 2024, arXiv:2406.12845):
///
///   r'_a = r_a - lambda_a r_v             v: the attribute that is taken out of the others
///   g(x) = scale softmax(MLP(h) / 10)     h: hidden state at the last token of the prompt; ReLU
///   R    = sum_a g_a(x) r'_a
///
/// Not synchronised: one thread at a time, or const calls only.
struct AttributeGate {
  std::vector<at::Tensor> weights;  ///< of each layer, [out,in]; the last one's out is A
  std::vector<at::Tensor> biases;   ///< [out]
  at::Tensor scale;                 ///< [1]
  at::Tensor correction;            ///< [A] lambda, constant; zeros where nothing is taken out
  int64_t verbosity = -1;           ///< v; -1: none

  /// Weights uniform in +-1/sqrt(in), biases 0, scale 1, no correction.
  /// @param layers  hidden ones of `width`, >= 0
  static AttributeGate make(int64_t hidden_size,
                            int64_t attributes,
                            int64_t layers,
                            int64_t width,
                            RandomStream stream,
                            at::ScalarType dtype = at::kFloat);

  int64_t attributes() const { return correction.numel(); }
  /// The same on `device`, without gradients.
  AttributeGate moved(at::Device device) const;
  /// g(x) [M,A] from hidden [M,H].
  at::Tensor operator()(const at::Tensor& hidden) const;
  /// r' [M,A] from r [M,A].
  at::Tensor corrected(const at::Tensor& values) const;
  /// What is trained: layers, then the scale.
  std::vector<NamedTensor> parameters() const;

  /// FOLDER/praetor_gate.safetensors, in and out. @throws IoError; MissingInput, DataError naming
  /// the file and what does not fit a model of `hidden_size` and `attributes`
  void save(const std::filesystem::path& folder) const;
  static AttributeGate load(const std::filesystem::path& folder,
                            int64_t hidden_size,
                            int64_t attributes);
  static bool in(const std::filesystem::path& folder);
};

/// lambda [A] with which r_a - lambda_a r_v has no correlation with r_v over the rows of `values`:
/// Cov(r_a, r_v) / Var(r_v), hence 1 for v itself, of which nothing is left. Zeros when r_v is
/// constant.
/// @param values  [N,A]
at::Tensor verbosity_correction(const at::Tensor& values, int64_t verbosity);

}  // namespace praetor
