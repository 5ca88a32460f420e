#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/model/named_tensor.h"
#include "core/model/tensor_split.h"

namespace praetor {

/// Some neighbouring elements of one parameter, counted flat within it.
struct FlatPiece {
  size_t parameter = 0;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t at = 0;  ///< where the piece begins in the range that was asked for
};

/// The parameters of an optimizer end to end, in order, cut into equal parts, one a rank: part r is
/// [r * part(), (r + 1) * part()). part() is a multiple of 16, so the last parts may end early, or
/// hold nothing.
class FlatLayout {
 public:
  /// @param alignment  every parameter begins at a multiple of this; what is left between two
  /// belongs to neither
  FlatLayout(const std::vector<NamedTensor>& parameters, int32_t world_size, int64_t alignment = 1);

  int64_t part() const { return part_; }
  /// Elements up to the end of the last parameter.
  int64_t total() const { return ends_.empty() ? 0 : ends_.back(); }
  /// Where a parameter begins.
  int64_t begin_of(size_t parameter) const { return begins_[parameter]; }
  /// What of [begin, end) there is, parameter by parameter.
  std::vector<FlatPiece> pieces(int64_t begin, int64_t end) const;
  std::vector<FlatPiece> pieces_of(int32_t rank) const {
    return pieces(rank * part_, (rank + 1) * part_);
  }

 private:
  std::vector<int64_t> begins_, ends_;  ///< of each parameter
  int64_t part_ = 0;
};

/// Copies [begin, end) of `tensors` (those the layout was made from, contiguous, one dtype) to
/// `buffer`, 1-D of so many elements, perhaps on another device. Undefined tensors, and what
/// belongs to none, give zeros.
void gather_flat(const FlatLayout& layout,
                 const std::vector<at::Tensor>& tensors,
                 int64_t begin,
                 int64_t end,
                 const at::Tensor& buffer);
/// The way back. On the CPU version counters do not move.
void scatter_flat(const FlatLayout& layout,
                  const std::vector<at::Tensor>& tensors,
                  int64_t begin,
                  int64_t end,
                  const at::Tensor& buffer);

/// Name of elements [begin, end) of a parameter of `numel` elements: NAME@BEGIN-END, and NAME for
/// all of them.
std::string piece_name(const std::string& name, int64_t begin, int64_t end, int64_t numel);

struct PieceName {
  std::string parameter;
  std::optional<std::pair<int64_t, int64_t>> range;  ///< nothing: the whole parameter
};
/// A name that does not end in @BEGIN-END, with BEGIN < END, is that of a whole parameter.
PieceName split_piece_name(const std::string& name);

/// Some elements of a parameter: [begin, end) of it, flattened, or of some of its columns by
/// themselves.
struct StateRange {
  int64_t begin = 0;
  int64_t end = 0;
  /// Of a matrix; nothing: all of it.
  std::optional<std::pair<int64_t, int64_t>> columns = {};
};

/// Where a tensor that a rank keeps lies in a parameter.
struct StatePlace {
  std::vector<int64_t> sizes = {};  ///< of the whole parameter
  TensorPart part = {};             ///< what the rank keeps of it
  int64_t numel() const;            ///< of the whole
  /// Elements [begin, end) of what the rank keeps, flattened.
  StateRange range(int64_t begin, int64_t end) const;
  /// Their name in a state: piece_name where they are neighbours in the whole, else those of
  /// columns: NAME@cBEGIN-END, and NAME@cBEGIN-END@BEGIN-END for a piece of these.
  std::string name(const std::string& parameter, int64_t begin, int64_t end) const;
};

/// NAME@cBEGIN-END; a name that does not end so is that of a whole parameter.
PieceName split_columns_name(const std::string& name);

}  // namespace praetor
