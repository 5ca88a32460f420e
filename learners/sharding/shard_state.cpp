#include "learners/sharding/shard_state.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <set>

#include "core/base/error.h"
#include "core/base/str.h"
#include "learners/sharding/flat_layout.h"

namespace praetor {
namespace {

void require_form(const TensorSource::Form& form,
                  at::IntArrayRef sizes,
                  at::ScalarType dtype,
                  ShardState::Types types) {
  const auto either = [](at::ScalarType t) { return t == at::kFloat || t == at::kBFloat16; };
  const bool converts =
      types == ShardState::Types::kFloat32OrBfloat16 && either(dtype) && either(form.dtype);
  if (at::IntArrayRef(form.shape) == sizes && (form.dtype == dtype || converts)) return;
  throw CheckpointError("learner state: ",
                        form.name,
                        " is ",
                        c10::toString(form.dtype),
                        c10::str(at::IntArrayRef(form.shape)),
                        ", but wanted ",
                        c10::toString(dtype),
                        c10::str(sizes));
}

}  // namespace

ShardState::ShardState(const TensorSource& source) : source_(source) {
  std::set<std::string> names;
  for (size_t i = 0; i < source.forms().size(); ++i) {
    const TensorSource::Form& form = source.forms()[i];
    if (!names.insert(form.name).second)
      throw CheckpointError("learner state: ", form.name, " is there twice");
    const PieceName piece = split_piece_name(form.name);
    const PieceName columns = split_columns_name(piece.parameter);
    Part part{.index = i};
    part.whole = !piece.range;
    part.end = part.whole ? form.numel() : piece.range->second;
    entries_[columns.parameter].blocks[columns.range.value_or(kAll)].emplace(
        part.whole ? 0 : piece.range->first, part);
  }
}

std::vector<std::string> ShardState::names() const {
  std::vector<std::string> out;
  for (const auto& [name, entry] : entries_) out.push_back(name);
  return out;
}

const TensorSource::Form& ShardState::first_form(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) throw CheckpointError("learner state: ", name, " is missing");
  return form_of(found->second.blocks.begin()->second.begin()->second);
}

ShardState::Entry& ShardState::find(const std::string& name) {
  const auto found = entries_.find(name);
  if (found == entries_.end()) throw CheckpointError("learner state: ", name, " is missing");
  found->second.required = true;
  return found->second;
}

void ShardState::require(const std::string& name,
                         at::IntArrayRef sizes,
                         at::ScalarType dtype,
                         Types types) {
  Entry& entry = find(name);
  entry.sizes = sizes.vec();
  require_columns(name, entry);
  for (const auto& [columns, parts] : entry.blocks) {
    if (columns == kAll) {
      require_block(name, parts, sizes, dtype, types);
    } else {
      const int64_t block[] = {sizes[0], columns.second - columns.first};
      require_block(
          str(name, "@c", columns.first, "-", columns.second), parts, block, dtype, types);
    }
  }
}

void ShardState::require_columns(const std::string& name, const Entry& entry) const {
  if (entry.blocks.size() == 1 && entry.blocks.contains(kAll)) return;
  const int64_t width = entry.sizes.size() == 2 ? entry.sizes[1] : 0;
  int64_t reached = 0;
  for (const auto& [columns, parts] : entry.blocks) {
    const std::string& first = form_of(parts.begin()->second).name;
    if (columns != kAll && columns.second > width) {
      throw CheckpointError(
          "learner state: ", first, " reaches beyond the ", width, " columns of ", name);
    }
    if (columns == kAll || columns.first < reached)
      throw CheckpointError(
          "learner state: columns of ", name, " are there twice, also in ", first);
    if (columns.first > reached) break;
    reached = columns.second;
  }
  if (reached < width) {
    throw CheckpointError("learner state: columns from ", reached, " on of ", name, " are missing");
  }
}

void ShardState::require_block(const std::string& name,
                               const Parts& parts,
                               at::IntArrayRef sizes,
                               at::ScalarType dtype,
                               Types types) const {
  int64_t numel = 1;
  for (const int64_t size : sizes) numel *= size;
  int64_t reached = 0;
  const Part* before = nullptr;
  for (const auto& [begin, part] : parts) {
    const int64_t length = part.end - begin;
    const std::string& part_name = form_of(part).name;
    require_form(form_of(part), part.whole ? sizes : at::IntArrayRef(length), dtype, types);
    if (part.end > numel) {
      throw CheckpointError(
          "learner state: ", part_name, " reaches beyond the ", numel, " elements of ", name);
    }
    if (begin < reached) {
      throw CheckpointError("learner state: elements ",
                            begin,
                            " to ",
                            std::min(reached, part.end),
                            " of ",
                            name,
                            " are there twice, in ",
                            form_of(*before).name,
                            " and ",
                            part_name);
    }
    if (begin > reached) break;
    reached = part.end;
    before = &part;
  }
  if (reached == numel) return;
  int64_t next = numel;
  for (const auto& [begin, part] : parts) {
    if (begin > reached) next = std::min(next, begin);
  }
  throw CheckpointError(
      "learner state: elements ", reached, " to ", next, " of ", name, " are missing");
}

void ShardState::require_no_more() const {
  for (const auto& [name, entry] : entries_) {
    if (!entry.required) {
      throw CheckpointError("learner state: ",
                            form_of(entry.blocks.begin()->second.begin()->second).name,
                            " is not part of this job");
    }
  }
}

void ShardState::copy(const std::string& name,
                      int64_t begin,
                      int64_t end,
                      const at::Tensor& to) const {
  copy(name, {.begin = begin, .end = end}, to);
}

void ShardState::copy(const std::string& name,
                      const StateRange& range,
                      const at::Tensor& to) const {
  const Entry& entry = entries_.at(name);
  const at::Tensor flat = to.view(-1);
  const Columns wanted = range.columns.value_or(kAll);
  if (const auto same = entry.blocks.find(wanted); same != entry.blocks.end())
    return read_flat(same->second, range.begin, range.end, flat);
  const int64_t width = entry.sizes.at(1);
  const auto in_matrix = [&](const Columns& columns) {
    return columns == kAll ? Columns(0, width) : columns;
  };
  for (const auto& [columns, parts] : entry.blocks)
    read_columns(parts, in_matrix(columns), in_matrix(wanted), range.begin, range.end, flat);
}

void ShardState::read_flat(const Parts& parts,
                           int64_t begin,
                           int64_t end,
                           const at::Tensor& to) const {
  for (const auto& [start, part] : parts) {
    const int64_t from = std::max(begin, start), until = std::min(end, part.end);
    if (from >= until) continue;
    source_.read(part.index, from - start, until - start, to.slice(0, from - begin, until - begin));
  }
}

void ShardState::read_columns(const Parts& parts,
                              Columns from,
                              Columns wanted,
                              int64_t begin,
                              int64_t end,
                              const at::Tensor& to) const {
  constexpr int64_t kBandElements = int64_t{1} << 20;
  const int64_t first = std::max(from.first, wanted.first);
  const int64_t last = std::min(from.second, wanted.second);
  if (first >= last || begin >= end) return;
  const int64_t width = from.second - from.first, wide = wanted.second - wanted.first;
  const int64_t rows_end = (end + wide - 1) / wide,
                band = std::max<int64_t>(kBandElements / width, 1);
  for (int64_t row = begin / wide; row < rows_end; row += band) {
    const int64_t until = std::min(row + band, rows_end);
    const at::Tensor rows = at::empty({(until - row) * width}, to.options());
    read_flat(parts, row * width, until * width, rows);
    for (int64_t r = row; r < until; ++r) {
      // Of the first row and of the last one perhaps not all elements are wanted.
      const int64_t at = std::max(begin, r * wide + first - wanted.first);
      const int64_t stop = std::min(end, r * wide + last - wanted.first);
      if (at >= stop) continue;
      const int64_t source = (r - row) * width + at - r * wide + wanted.first - from.first;
      to.slice(0, at - begin, stop - begin).copy_(rows.slice(0, source, source + stop - at));
    }
  }
}

}  // namespace praetor
