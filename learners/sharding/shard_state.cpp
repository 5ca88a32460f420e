#include "learners/sharding/shard_state.h"

#include <algorithm>
#include <set>

#include "core/base/error.h"
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
    Part part{.index = i};
    part.whole = !piece.range;
    part.end = part.whole ? form.numel() : piece.range->second;
    entries_[piece.parameter].parts.emplace(part.whole ? 0 : piece.range->first, part);
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
  return form_of(found->second.parts.begin()->second);
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
  const Entry& entry = find(name);
  int64_t numel = 1;
  for (const int64_t size : sizes) numel *= size;
  int64_t reached = 0;
  const Part* before = nullptr;
  for (const auto& [begin, part] : entry.parts) {
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
  for (const auto& [begin, part] : entry.parts) {
    if (begin > reached) next = std::min(next, begin);
  }
  throw CheckpointError(
      "learner state: elements ", reached, " to ", next, " of ", name, " are missing");
}

void ShardState::require_no_more() const {
  for (const auto& [name, entry] : entries_) {
    if (!entry.required) {
      throw CheckpointError(
          "learner state: ", form_of(entry.parts.begin()->second).name, " is not part of this job");
    }
  }
}

void ShardState::copy(const std::string& name,
                      int64_t begin,
                      int64_t end,
                      const at::Tensor& to) const {
  const at::Tensor flat = to.view(-1);
  for (const auto& [start, part] : entries_.at(name).parts) {
    const int64_t from = std::max(begin, start), until = std::min(end, part.end);
    if (from >= until) continue;
    source_.read(
        part.index, from - start, until - start, flat.slice(0, from - begin, until - begin));
  }
}

}  // namespace praetor
