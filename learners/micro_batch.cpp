#include "learners/micro_batch.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <ranges>
#include <set>
#include <span>
#include <utility>

#include "core/base/error.h"

namespace praetor {
namespace {

at::Tensor to_tensor(const std::vector<int64_t>& values) {
  return at::tensor(values, at::TensorOptions().dtype(at::kLong));
}

void require_length(const char* name, const at::Tensor& t, int64_t wanted) {
  if (!t.defined() || t.dim() != 1 || t.numel() != wanted) {
    throw ShapeError("experience: ",
                     name,
                     " has ",
                     t.defined() ? t.numel() : 0,
                     " entries, but wanted ",
                     wanted);
  }
}

/// Tokens that `unit` adds to a forward in which `families` are already, to which its own come.
int64_t new_tokens(const SequenceBatch& batch,
                   const std::vector<int64_t>& unit,
                   std::set<int64_t>& families) {
  int64_t out = 0;
  for (const int64_t i : unit) {
    const bool first = families.insert(batch.family[size_t(i)]).second;
    out += batch.length(i) - (first ? 0 : batch.shared[size_t(i)]);
  }
  return out;
}

}  // namespace

SequenceBatch SequenceBatch::from(const Experience& experience) {
  const int64_t count = experience.sequences();
  if (count < 0 || experience.offsets.front() != 0)
    throw ShapeError("experience: offsets do not start with 0");
  const auto wanted = static_cast<size_t>(count);
  if (experience.prompt_lengths.size() != wanted || experience.finished.size() != wanted) {
    throw ShapeError("experience: ",
                     count,
                     " sequences, but ",
                     experience.prompt_lengths.size(),
                     " prompt lengths and ",
                     experience.finished.size(),
                     " finished flags");
  }
  require_length("tokens", experience.tokens, experience.offsets.back());

  SequenceBatch out;
  out.offsets = experience.offsets;
  const at::Tensor host = experience.tokens.to(at::kCPU).contiguous();
  out.tokens.assign(host.const_data_ptr<int64_t>(), host.const_data_ptr<int64_t>() + host.numel());
  for (int64_t i = 0; i < count; ++i) {
    const int64_t prompt = experience.prompt_lengths[static_cast<size_t>(i)];
    if (prompt < 1 || experience.response_length(i) < 0) {
      throw ShapeError(
          "experience: sequence ", i, " of ", out.length(i), " tokens has a prompt of ", prompt);
    }
    for (int64_t t = prompt; t < out.length(i); ++t) out.positions.push_back(t);
    out.target_offsets.push_back(static_cast<int64_t>(out.positions.size()));
  }
  const auto responses = static_cast<int64_t>(out.positions.size());
  require_length("sequence_of", experience.sequence_of, responses);
  require_length("behavior_logprob", experience.behavior_logprob, responses);
  if (experience.token_version.defined())
    require_length("token_version", experience.token_version, responses);
  require_length("score", experience.score, count);
  std::map<std::vector<int64_t>, int64_t> families;  // by prompt
  for (int64_t i = 0; i < count; ++i) {
    const auto begin = out.tokens.begin() + out.offsets[size_t(i)];
    const int64_t prompt = experience.prompt_lengths[size_t(i)];
    const auto next = static_cast<int64_t>(families.size());
    out.family.push_back(families.try_emplace({begin, begin + prompt}, next).first->second);
    out.shared.push_back(prompt);
  }
  const at::Tensor sequence_of = experience.sequence_of.to(at::kCPU).contiguous();
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t k = out.target_offsets[size_t(i)]; k < out.target_offsets[size_t(i) + 1]; ++k) {
      if (sequence_of.const_data_ptr<int64_t>()[k] != i) {
        throw ShapeError("experience: response token ",
                         k,
                         " belongs to sequence ",
                         i,
                         ", but sequence_of says ",
                         sequence_of.const_data_ptr<int64_t>()[k]);
      }
    }
  }
  return out;
}

SequenceBatch SequenceBatch::from(const std::vector<Example>& examples, int64_t unit) {
  SequenceBatch out;
  out.shared.resize(examples.size(), 0);
  for (size_t i = 0; i < examples.size(); ++i) {
    const Example& example = examples[i];
    out.family.push_back(static_cast<int64_t>(i) / unit);
    const size_t first = i / static_cast<size_t>(unit) * static_cast<size_t>(unit);
    const auto common = std::ranges::mismatch(examples[first].tokens, example.tokens).in2;
    // What all of the unit so far have in common.
    const int64_t before =
        i == first ? static_cast<int64_t>(example.tokens.size()) : out.shared[first];
    std::fill(out.shared.begin() + static_cast<int64_t>(first),
              out.shared.begin() + static_cast<int64_t>(i) + 1,
              std::min<int64_t>(before, common - example.tokens.begin()));
    if (example.tokens.empty() || example.target.size() != example.tokens.size() ||
        example.target[0] != 0) {
      throw DataError("row ",
                      example.row,
                      ": an example needs a token before its first target, and one target flag for "
                      "each of its ",
                      example.tokens.size(),
                      " tokens (",
                      example.target.size(),
                      " given)");
    }
    out.tokens.insert(out.tokens.end(), example.tokens.begin(), example.tokens.end());
    out.offsets.push_back(static_cast<int64_t>(out.tokens.size()));
    for (size_t t = 1; t < example.target.size(); ++t) {
      if (example.target[t] != 0) out.positions.push_back(static_cast<int64_t>(t));
    }
    out.target_offsets.push_back(static_cast<int64_t>(out.positions.size()));
  }
  return out;
}

namespace {

/// Position before the first predicted token of a sequence; without one, its last.
int64_t asked_of(const SequenceBatch& batch, int64_t sequence) {
  if (batch.targets(sequence) == 0) return batch.length(sequence) - 1;
  const int64_t first = batch.target_offsets[static_cast<size_t>(sequence)];
  return batch.positions[static_cast<size_t>(first)] - 1;
}

}  // namespace

PackedSlice pack_slice(const SequenceBatch& batch,
                       const std::vector<int64_t>& sequences,
                       int64_t switch_length) {
  std::vector<std::span<const int64_t>> parts;
  for (const int64_t i : sequences)
    parts.push_back(
        std::span(batch.tokens).subspan(size_t(batch.offsets[size_t(i)]), size_t(batch.length(i))));
  SharedPack packed = pack_shared(parts, switch_length);
  std::vector<int64_t> rows, targets, sequence_of, index, prompt;
  for (int64_t local = 0; local < packed.sequences(); ++local) {
    const auto i = static_cast<size_t>(sequences[static_cast<size_t>(local)]);
    for (int64_t k = batch.target_offsets[i]; k < batch.target_offsets[i + 1]; ++k) {
      const int64_t position = batch.positions[static_cast<size_t>(k)];
      rows.push_back(packed.row(local, position - 1));
      targets.push_back(parts[static_cast<size_t>(local)][static_cast<size_t>(position)]);
      sequence_of.push_back(local);
      index.push_back(k);
    }
    prompt.push_back(packed.row(local, asked_of(batch, sequences[static_cast<size_t>(local)])));
  }
  PackedSlice out;
  out.last = packed.last();
  out.packed = std::move(packed.packed);
  out.rows = to_tensor(rows);
  out.targets = to_tensor(targets);
  out.sequence_of = to_tensor(sequence_of);
  out.index = to_tensor(index);
  out.prompt = to_tensor(prompt);
  return out;
}

Units units_of(const std::vector<int64_t>& order, int64_t size) {
  if (size < 1 || static_cast<int64_t>(order.size()) % size != 0)
    throw InvalidArgument(order.size(), " sequences do not make groups of ", size);
  Units out;
  for (auto at = order.begin(); at != order.end(); at += size) out.emplace_back(at, at + size);
  return out;
}

Units by_family(const SequenceBatch& batch, const Units& units) {
  std::map<int64_t, int64_t> met;  // family to its place
  std::vector<std::pair<int64_t, const std::vector<int64_t>*>> placed;
  for (const auto& unit : units) {
    const int64_t family = batch.family[static_cast<size_t>(unit.front())];
    const auto next = static_cast<int64_t>(met.size());
    placed.emplace_back(met.try_emplace(family, next).first->second, &unit);
  }
  std::ranges::stable_sort(placed, {}, [](const auto& one) { return one.first; });
  Units out;
  for (const auto& [place, unit] : placed) out.push_back(*unit);
  return out;
}

std::vector<std::vector<int64_t>> plan_micro_batches(const SequenceBatch& batch,
                                                     const Units& units,
                                                     int64_t token_budget) {
  if (token_budget < 1)
    throw InvalidArgument(
        "micro-batch budget is ", token_budget, " tokens, but must be at least 1");
  std::vector<std::vector<int64_t>> out;
  int64_t used = 0;
  std::set<int64_t> families;  // of the run
  const auto take = [&](const std::vector<int64_t>& unit) {
    return new_tokens(batch, unit, families);
  };
  for (const auto& unit : units) {
    used += take(unit);
    if (out.empty() || used > token_budget) {
      out.emplace_back();
      families.clear();
      used = take(unit);
    }
    out.back().insert(out.back().end(), unit.begin(), unit.end());
  }
  return out;
}

namespace {

/// Units on ranks, with the tokens that each rank computes.
class RankLoads {
 public:
  RankLoads(const SequenceBatch& batch, const Units& units, int32_t world_size)
      : batch_(batch), units_(units), ranks_(static_cast<size_t>(world_size)) {
    for (size_t r = 0; r < ranks_.size(); ++r) by_tokens_.emplace(0, r);
  }

  /// Moves a unit from the fullest to the emptiest rank. @return false: that helps neither
  bool even_out() {
    const auto [most, full] = *by_tokens_.rbegin();
    const auto [fewest, empty] = *by_tokens_.begin();
    std::optional<size_t> best;
    int64_t least = most;
    for (const size_t unit : ranks_[full].units | std::views::reverse) {
      const int64_t family = family_of(unit);
      const bool stays = ranks_[full].families.at(family) > 1;
      const int64_t without = most - tokens(unit) + (stays ? shared(unit) : 0);
      const int64_t with = fewest + added(unit, empty);
      if (std::max(without, with) >= least) continue;
      least = std::max(without, with);
      best = unit;
    }
    if (!best) return false;
    give(*best, full, -1);
    give(*best, empty, 1);
    return true;
  }

  void give_to_emptiest(const std::vector<size_t>& units) {
    const size_t rank = by_tokens_.begin()->second;
    for (const size_t unit : units) give(unit, rank, 1);
  }

  std::vector<Units> in_order() const {
    std::vector<Units> out;
    for (const Rank& rank : ranks_) {
      out.emplace_back();
      for (const size_t unit : rank.units) out.back().push_back(units_[unit]);
    }
    return out;
  }

  int64_t family_of(size_t unit) const { return batch_.family[size_t(units_[unit].front())]; }
  /// Tokens of a unit by itself.
  int64_t tokens(size_t unit) const {
    std::set<int64_t> none;
    return new_tokens(batch_, units_[unit], none);
  }

 private:
  struct Rank {
    std::set<size_t> units;
    std::map<int64_t, int64_t> families;  ///< units of each
    int64_t tokens = 0;
  };

  int64_t shared(size_t unit) const { return batch_.shared[size_t(units_[unit].front())]; }
  int64_t added(size_t unit, size_t rank) const {
    return tokens(unit) - (ranks_[rank].families.contains(family_of(unit)) ? shared(unit) : 0);
  }
  /// Adds a unit to a rank (`sign` 1), or takes it away (-1).
  void give(size_t unit, size_t rank, int64_t sign) {
    Rank& to = ranks_[rank];
    by_tokens_.erase({to.tokens, rank});
    if (sign > 0) {
      to.tokens += added(unit, rank);
      to.units.insert(unit);
      ++to.families[family_of(unit)];
    } else {
      to.units.erase(unit);
      if (--to.families[family_of(unit)] == 0) to.families.erase(family_of(unit));
      to.tokens -= added(unit, rank);
    }
    by_tokens_.emplace(to.tokens, rank);
  }

  const SequenceBatch& batch_;
  const Units& units_;
  std::vector<Rank> ranks_;
  std::set<std::pair<int64_t, size_t>> by_tokens_;
};

}  // namespace

std::vector<Units> plan_ranks(const SequenceBatch& batch, const Units& units, int32_t world_size) {
  if (world_size < 1) throw InvalidArgument("a world of ", world_size, " ranks");
  RankLoads loads(batch, units, world_size);
  std::map<int64_t, std::vector<size_t>> families;
  for (size_t i = 0; i < units.size(); ++i) families[loads.family_of(i)].push_back(i);
  // Families, the longest first, each to the rank that has fewest (Graham 1969).
  std::vector<std::pair<int64_t, const std::vector<size_t>*>> order;
  for (const auto& [family, members] : families) {
    int64_t tokens = 0;
    for (const size_t unit : members) tokens += loads.tokens(unit);
    order.emplace_back(tokens, &members);
  }
  std::ranges::stable_sort(order, std::greater(), [](const auto& one) { return one.first; });
  for (const auto& [tokens, members] : order) loads.give_to_emptiest(*members);
  while (loads.even_out()) {
  }
  return loads.in_order();
}

std::vector<std::vector<int64_t>> plan_minibatches(const std::vector<int64_t>& order,
                                                   int64_t count) {
  const auto total = static_cast<int64_t>(order.size());
  const int64_t parts = std::min(count, total);
  std::vector<std::vector<int64_t>> out;
  int64_t begin = 0;
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t size = total / parts + (part < total % parts ? 1 : 0);
    out.emplace_back(order.begin() + begin, order.begin() + begin + size);
    begin += size;
  }
  return out;
}

}  // namespace praetor
