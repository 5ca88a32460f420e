#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/model/model_config.h"
#include "core/model/tensor_group.h"
#include "core/model/transformer.h"

/// How the layers of a model lie over the ranks of a tensor group: query heads with the key/value
/// heads they read, and the MLP's columns, so that the output and down projections are split by
/// their inputs; the vocabulary of embedding and language head. Norms, learned positions and the
/// biases behind a sum are whole on every rank. Where there are fewer key/value heads than ranks,
/// so are their projections, and each rank computes the one head that its queries read.
namespace praetor {

/// [begin, end) of some things.
struct Share {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};
/// Of `count` things those of part `rank` of `ranks`; sizes of parts differ by at most one.
Share share_of(int64_t count, int64_t rank, int64_t ranks);

/// What a rank holds of a tensor: [begin, end) of dimension `dim`, or all of it.
struct TensorPart {
  int64_t dim = -1;  ///< 0: rows; 1: columns; -1: all of it, as every rank
  Share range = {};
  bool everywhere() const { return dim < 0; }
  at::Tensor of(const at::Tensor& whole) const {
    return everywhere() ? whole : whole.narrow(dim, range.begin, range.size());
  }
};
/// Of the parameter `name` of such a model. @throws InternalError for a parameter of which nobody
/// has said how it is split
TensorPart tensor_part(const ModelConfig& config,
                       std::string_view name,
                       int64_t rank,
                       int64_t ranks);

/// Of more ranks than key/value heads: the rows of their projections that `rank` computes, one
/// head's; nothing where these are split.
std::optional<Share> shared_key_rows(const ModelConfig& config, int64_t rank, int64_t ranks);

/// What a rank computes of a linear layer.
struct LayerPart {
  const TensorGroup* group = nullptr;  ///< borrowed
  Share in, out;                       ///< of the layer's inputs and outputs
  bool sums = false;                   ///< its results, of its part of the inputs, are summed
  bool common = false;                 ///< all ranks have the weight; `out` are its rows
};
LayerPart layer_part(const ModelConfig& config,
                     const std::string& layer,
                     const at::Tensor& weight,
                     const TensorGroup& group);

/// Why such a model cannot be split over so many ranks, with the numbers that are possible;
/// nothing: it can.
std::optional<std::string> wrong_tensor_ranks(const ModelConfig& config, int64_t ranks);

/// The shape of the largest part, as if it were a model by itself: for plans of memory.
ModelConfig part_shape(const ModelConfig& config, int64_t ranks);

/// This rank's part of `model`, with the same config, in memory of its own where it is not whole;
/// the other tensors are the model's. Its forward is the model's: the same hidden states on every
/// rank, to rounding those of one. It decodes nothing, and its head gives log-probabilities alone.
/// @param group  borrowed by what is made. @throws InvalidArgument as wrong_tensor_ranks says
Transformer split_model(const Transformer& model, const TensorGroup& group);

}  // namespace praetor
