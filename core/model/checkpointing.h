#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

namespace praetor {

class Transformer;

/// What a forward with gradient keeps of each layer for the backward, and what that computes again,
/// with the same kernels on the same inputs and so to the same bits.
enum class ActivationCheckpointing {
  kNone,  ///< everything is kept
  /// The norms' results and the whole MLP up to its activation are computed again: what is large
  /// and needs two products a layer (arXiv:2205.05198). The insides of attention never are kept.
  kSelective,
  kBlock  ///< the layer's input alone is kept: one more forward a backward (arXiv:1604.06174)
};

/// "none", "selective", "block", in the order of the enumerators.
const std::vector<std::string>& activation_checkpointing_names();
/// Of one of the names.
ActivationCheckpointing activation_checkpointing_of(const std::string& name);

/// For the forwards of `model` from now on (clones begin with kNone).
void set_activation_checkpointing(Transformer& model, ActivationCheckpointing what);

/// `run(x)`, of which nothing but `x` is kept: the backward runs it again, with gradients for the
/// leaves that it uses. Without grad mode, or where nothing in it requires a gradient, it is
/// `run(x)` alone. `run` gives the same result each time and lives as long as the graph.
at::Tensor recomputed(const at::Tensor& x, std::function<at::Tensor(const at::Tensor&)> run);

/// Gives back the memory of `values` until the backward comes to `outputs`, for which alone it
/// needs them: then `again` makes the same values, in order. Each has a storage of its own. Nothing
/// happens without grad mode or where no output requires a gradient.
/// @param outputs  made from `values`; each is put through a node of autograd
void drop_until_backward(const std::vector<at::Tensor>& values,
                         const std::vector<at::Tensor*>& outputs,
                         std::function<std::vector<at::Tensor>()> again);

}  // namespace praetor
