#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

#include "core/model/named_tensor.h"

namespace praetor {

class Transformer;

/// Sees every forward of a Transformer enter and leave the parts of the model, so that a part's
/// weights need to be there only in between. Part 0 is the embedding (with learned positions), 1 to
/// L are the layers, L + 1 is the final norm together with the language head.
class ForwardHooks {
 public:
  virtual ~ForwardHooks() = default;
  /// Before a part reads its first weight. `x` [M,H] goes into the part (undefined for part 0);
  /// what is returned goes in instead: the same values, perhaps through a node of autograd.
  virtual at::Tensor enter(size_t part, const at::Tensor& x) = 0;
  /// After a part has read its last weight; `x` [M,H] comes out of it. Not called for the last
  /// part: who asked for the hidden states uses the head.
  virtual at::Tensor leave(size_t part, const at::Tensor& x) = 0;
};

/// `hooks` is borrowed by `model` until other ones (null: none) take its place; clones have none.
void set_hooks(Transformer& model, ForwardHooks* hooks);

/// parameters() of `model` by parts, L + 2 of them. A tied head is in part 0 alone, though the last
/// part reads it as well.
std::vector<std::vector<NamedTensor>> parts_of(const Transformer& model);

}  // namespace praetor
