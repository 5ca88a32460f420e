#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace praetor {

class Collective;

/// The ranks over which the layers of a model are split (arXiv:1909.08053), as one of them sees
/// them. All run the same forward over the same tokens, each with its part of the heads, of the
/// MLP's columns and of the vocabulary. Where a result has something of every part, in the forward
/// or in the backward, it is summed here, in rank order: all ranks go on with the same bits.
///
/// Tensors on another device than the CPU pass between ranks from there where the ranks have a
/// group for it (Collective::device), whose sums have its order, else through copies in the
/// processor's memory.
///
/// Every rank makes the same calls, in backwards too. @throws CollectiveError
class TensorGroup {
 public:
  /// `ranks` is borrowed.
  explicit TensorGroup(Collective& ranks);

  int32_t rank() const { return rank_; }
  int32_t size() const { return size_; }

  /// The sum over the ranks of what each computed of it, contiguous. The gradient of a part is that
  /// of the sum.
  at::Tensor summed(const at::Tensor& part) const;
  /// `x`, which every rank has and of which each makes its part of what follows. The gradient is
  /// the sum over the ranks.
  at::Tensor shared(const at::Tensor& x) const;

  /// x becomes the sum of all ranks' x; contiguous. Without autograd, as is the next one.
  void add_up(const at::Tensor& x) const;
  /// Every rank's x, [size, ...].
  at::Tensor all(const at::Tensor& x) const;

 private:
  /// The group that passes such a tensor on from where it is; null: there is none.
  Collective* way(const at::Tensor& x) const;

  Collective& ranks_;
  int32_t rank_, size_;
};

}  // namespace praetor
