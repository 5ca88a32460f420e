#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/model/tensor_source.h"
#include "learners/sharding/flat_layout.h"

namespace praetor {

/// The tensors of all shards of a learner's state, whatever the number of shards: whole tensors by
/// name, and pieces NAME@BEGIN-END of flattened ones, which together must make them whole; of
/// matrices whose columns were spread over ranks the same of each range of columns (StatePlace).
/// Checked first, copied afterwards; what nobody copies is never read.
class ShardState {
 public:
  /// @param source  borrowed. @throws CheckpointError for a name that is there twice
  explicit ShardState(const TensorSource& source);

  /// Which types a tensor may have beside the one that is wanted; `copy` converts.
  enum class Types { kSame, kFloat32OrBfloat16 };
  /// @throws CheckpointError unless `name` is there, in one piece of this shape and dtype, or in
  /// several: each 1-D of its range's length, within the whole, none overlapping another, none
  /// missing; and so each range of columns, if it comes in these
  /// @param sizes  of the whole tensor
  void require(const std::string& name,
               at::IntArrayRef sizes,
               at::ScalarType dtype,
               Types types = Types::kSame);
  /// Names of the tensors, each once.
  std::vector<std::string> names() const;
  /// What a source says of a tensor's first piece. @throws CheckpointError for no such tensor
  const TensorSource::Form& first_form(const std::string& name) const;
  /// @throws CheckpointError naming a tensor that nobody required
  void require_no_more() const;

  /// Elements [begin, end) of `name`, flat, into the contiguous `to` of that many elements.
  void copy(const std::string& name, int64_t begin, int64_t end, const at::Tensor& to) const;
  /// The same of some of its columns. `name` has been required.
  void copy(const std::string& name, const StateRange& range, const at::Tensor& to) const;

 private:
  struct Part {
    size_t index = 0;  ///< in the source
    int64_t end = 0;
    bool whole = false;
  };
  using Parts = std::multimap<int64_t, Part>;  ///< by begin
  using Columns = std::pair<int64_t, int64_t>;
  static constexpr Columns kAll{0, 0};
  struct Entry {
    std::map<Columns, Parts> blocks;  ///< parts of all columns, or of some
    std::vector<int64_t> sizes;       ///< of the whole, once required
    bool required = false;
  };
  /// Of one block, a matrix of `sizes` by itself.
  void require_block(const std::string& name,
                     const Parts& parts,
                     at::IntArrayRef sizes,
                     at::ScalarType dtype,
                     Types types) const;
  void require_columns(const std::string& name, const Entry& entry) const;
  void read_flat(const Parts& parts, int64_t begin, int64_t end, const at::Tensor& to) const;
  /// What the block of columns `from` has of rows of the columns `wanted`.
  void read_columns(const Parts& parts,
                    Columns from,
                    Columns wanted,
                    int64_t begin,
                    int64_t end,
                    const at::Tensor& to) const;
  const TensorSource::Form& form_of(const Part& part) const { return source_.forms()[part.index]; }
  Entry& find(const std::string& name);

  const TensorSource& source_;
  std::map<std::string, Entry> entries_;
};

}  // namespace praetor
