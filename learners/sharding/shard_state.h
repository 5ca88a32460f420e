#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/model/tensor_source.h"

namespace praetor {

/// The tensors of all shards of a learner's state, whatever the number of shards: whole tensors by
/// name, and pieces NAME@BEGIN-END of flattened ones, which together must make them whole.
/// Checked first, copied afterwards; what nobody copies is never read.
class ShardState {
 public:
  /// @param source  borrowed. @throws CheckpointError for a name that is there twice
  explicit ShardState(const TensorSource& source);

  /// Which types a tensor may have beside the one that is wanted; `copy` converts.
  enum class Types { kSame, kFloat32OrBfloat16 };
  /// @throws CheckpointError unless `name` is there, in one piece of this shape and dtype, or in
  /// several: each 1-D of its range's length, within the whole, none overlapping another, none
  /// missing
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

 private:
  struct Part {
    size_t index = 0;  ///< in the source
    int64_t end = 0;
    bool whole = false;
  };
  struct Entry {
    std::multimap<int64_t, Part> parts;  ///< by begin
    bool required = false;
  };
  const TensorSource::Form& form_of(const Part& part) const { return source_.forms()[part.index]; }
  Entry& find(const std::string& name);

  const TensorSource& source_;
  std::map<std::string, Entry> entries_;
};

}  // namespace praetor
