#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "core/model/lora.h"
#include "core/model/transformer.h"

namespace praetor {

/// Weights that are read when and as far as they are wanted, so that a network which is cut over
/// ranks is never whole on one of them. Const calls from any thread.
class ModelWeights {
 public:
  virtual ~ModelWeights() = default;
  /// A model whose parameters have no memory: nothing reads a weight, or writes to one, before
  /// they are given some.
  virtual Transformer shell() const = 0;
  /// Fills `parameters`, which are such a model's, or of its forms in another type or on another
  /// device, and have memory; another type's are rounded from the shell's. @throws DataError,
  /// IoError
  void read(std::span<const NamedTensor> parameters) const;

 private:
  /// Of the shell's type.
  virtual void read_own(std::span<const NamedTensor> parameters) const = 0;
  virtual at::ScalarType dtype() const = 0;
};

/// The parameter of a shell that has no memory yet.
bool is_waiting(const at::Tensor& parameter);
at::Tensor waiting_tensor(const std::vector<int64_t>& sizes,
                          at::ScalarType dtype,
                          at::Device device = at::kCPU);

/// Gives all parameters of a shell memory, and fills them: where that is another device's, one by
/// one, so that the processor's never holds more than one.
void read_whole(const ModelWeights& weights, const Transformer& shell);

/// Those of Transformer::load, bit for bit. Everything is checked but the values.
/// @throws as Transformer::load
std::shared_ptr<const ModelWeights> open_model(const std::filesystem::path& folder,
                                               at::ScalarType dtype = at::kFloat);

/// A scalar model over a shell, and the backbone's weights.
struct OpenedScalar {
  ScalarModel model;
  std::shared_ptr<const ModelWeights> backbone;
};
/// As ScalarModel::load.
OpenedScalar open_scalar(const std::filesystem::path& folder,
                         RandomStream stream,
                         at::ScalarType dtype = at::kFloat,
                         int64_t labels = 1);

/// The same weights with an adapter merged into them, as LoraAdapter::merged does.
std::shared_ptr<const ModelWeights> merged_weights(std::shared_ptr<const ModelWeights> base,
                                                   LoraAdapter adapter);

}  // namespace praetor
