#pragma once

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

#include "core/model/transformer.h"

namespace praetor {

/// The weights of a network in bfloat16, which its forwards and backwards read, beside the float32
/// ones, the masters, that an optimizer steps: steps below bfloat16's resolution then add up. A
/// gradient that a backward has made for a copy is added to its master's at once, in float32, and
/// so the sum of micro-batches and ranks is in float32.
class ComputeCopy {
 public:
  /// @param masters        borrowed, float32; must outlive this
  /// @param language_head  used; else a head of its own is not copied
  /// @param scalar_head    [L,H] of the same network, or undefined
  /// @throws InvalidArgument for masters that are not float32
  ComputeCopy(const Transformer& masters, bool language_head, const at::Tensor& scalar_head = {});

  const Transformer& masters() const { return masters_; }
  const Transformer& network() const { return network_; }
  Transformer& network() { return network_; }
  /// Of the scalar head, as a forward reads it: products with it are in float32.
  const at::Tensor& scalar_head() const { return scalar_head_; }

  /// From now on copies of masters that require a gradient have one made.
  void train() const;
  /// The masters have changed. Of a network that is whole on this rank.
  void refresh() const;

 private:
  struct Pair {
    at::Tensor master, copy;
  };
  const Transformer& masters_;
  Transformer network_;
  at::Tensor scalar_head_;
  std::vector<Pair> pairs_;
};

}  // namespace praetor
