#include "rollout/grammar/token_automaton.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "rollout/draw.h"

namespace praetor::grammar {
namespace {

constexpr size_t kMostDfaBytes = size_t{24} << 20;
constexpr size_t kMostMaskBytes = size_t{64} << 20;

/// Walks the tokens' tree from `state`; `found(first, last)` gets the range of the tokens that end
/// at a state other than the dead one, and that state. Stops when it returns false.
template <typename Found>
void walk(Dfa& dfa, const TokenTrie& trie, int32_t state, const Found& found) {
  std::vector<int32_t> path(static_cast<size_t>(trie.deepest) + 1, state);
  for (size_t i = 0; i < trie.nodes.size();) {
    const TokenTrie::Node& node = trie.nodes[i];
    const auto depth = static_cast<size_t>(node.depth);
    const int32_t next = dfa.step(path[depth - 1], node.byte);
    if (next == Dfa::kDead) {
      i = static_cast<size_t>(node.end);
      continue;
    }
    path[depth] = next;
    if (node.first < node.last && !found(node, next)) return;
    ++i;
  }
}

}  // namespace

TokenAutomaton::TokenAutomaton(Nfa nfa, std::shared_ptr<const TokenTable> tokens)
    : nfa_(std::move(nfa)), tokens_(std::move(tokens)), dfa_(nfa_) {
  find_live();
  const int32_t start = dfa_.start();
  if (start == Dfa::kDead || (!dfa_.accepting(start) && mask_of(start, true)->count == 0))
    throw InvalidArgument("the vocabulary spells no text that matches");
}

// States from which single-byte tokens alone lead to acceptance; with a vocabulary that has all
// bytes, these are all.
void TokenAutomaton::spread_by_single_bytes() {
  const auto& states = nfa_.states();
  std::vector<std::vector<int32_t>> before(states.size());
  for (size_t from = 0; from < states.size(); ++from) {
    const auto id = static_cast<int32_t>(from);
    for (const int32_t to : states[from].free) before[static_cast<size_t>(to)].push_back(id);
    for (const Nfa::Edge& e : states[from].edges) {
      bool spelled = false;
      for (unsigned byte = e.low; byte <= e.high; ++byte)
        spelled = spelled || tokens_->single_bytes()[byte];
      if (spelled) before[static_cast<size_t>(e.to)].push_back(id);
    }
  }
  std::vector<int32_t> open = {nfa_.accept()};
  live_[static_cast<size_t>(nfa_.accept())] = true;
  while (!open.empty()) {
    const int32_t state = open.back();
    open.pop_back();
    for (const int32_t other : before[static_cast<size_t>(state)]) {
      if (live_[static_cast<size_t>(other)]) continue;
      live_[static_cast<size_t>(other)] = true;
      open.push_back(other);
    }
  }
}

// A text is accepted from a set of states when it is from one of them, so it is enough to know this
// of each state alone.
void TokenAutomaton::find_live() {
  live_.assign(nfa_.states().size(), false);
  spread_by_single_bytes();
  Dfa dfa(nfa_);
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < live_.size(); ++i) {
      const Nfa::State& s = nfa_.states()[i];
      if (live_[i] || (s.edges.empty() && s.free.empty())) continue;
      if (dfa.bytes() > kMostDfaBytes) dfa.clear();
      const int32_t state = dfa.closure_of(static_cast<int32_t>(i));
      if (state == Dfa::kDead || !reaches_live(dfa, state, false)) continue;
      live_[i] = true;
      changed = true;
    }
  }
}

bool TokenAutomaton::reaches_live(Dfa& dfa, int32_t state, bool first) const {
  bool reached = live(dfa, state);
  if (reached) return true;
  walk(dfa, tokens_->trie(first), state, [&](const TokenTrie::Node&, int32_t next) {
    reached = live(dfa, next);
    return !reached;
  });
  return reached;
}

bool TokenAutomaton::live(const Dfa& dfa, int32_t state) const {
  const Dfa::Members& members = dfa.members(state);
  return std::any_of(members.begin(), members.end(), [&](int32_t member) {
    return live_[static_cast<size_t>(member)];
  });
}

TokenAutomaton::Place TokenAutomaton::place_of(int32_t state, bool first) {
  return {epoch_, state, std::make_shared<const Dfa::Members>(dfa_.members(state)), first};
}

// The place's state in the automaton as it is now.
int32_t TokenAutomaton::resolve(Place& place) {
  if (dfa_.bytes() > kMostDfaBytes) {
    dfa_.clear();
    masks_.clear();
    mask_count_ = 0;
    ++epoch_;
  }
  if (place.epoch != epoch_) {
    place.state = dfa_.intern(*place.members);
    place.epoch = epoch_;
  }
  return place.state;
}

TokenAutomaton::Place TokenAutomaton::start() {
  const std::scoped_lock lock(mutex_);
  return place_of(dfa_.start(), true);
}

int32_t TokenAutomaton::read(int32_t state, const std::string& bytes) {
  for (const char byte : bytes) {
    if (state == Dfa::kDead) break;
    state = dfa_.step(state, static_cast<uint8_t>(byte));
  }
  return state;
}

TokenAutomaton::Place TokenAutomaton::advance(Place place, int64_t token) {
  const std::scoped_lock lock(mutex_);
  const std::string& bytes = tokens_->bytes(token, place.first);
  if (bytes.empty()) return place;
  const int32_t state = read(resolve(place), bytes);
  PRAETOR_CHECK(state != Dfa::kDead, "token ", token, " was not allowed");
  return place_of(state, false);
}

bool TokenAutomaton::accepting(Place& place) {
  const std::scoped_lock lock(mutex_);
  return dfa_.accepting(resolve(place));
}

bool TokenAutomaton::complete(Place& place) {
  const std::scoped_lock lock(mutex_);
  const int32_t state = resolve(place);
  if (!dfa_.accepting(state)) return false;
  return dfa_.final(state) || mask_of(state, place.first)->count == 0;
}

TokenAutomaton::MaskPtr TokenAutomaton::mask_of(int32_t state, bool first) {
  const auto index = static_cast<size_t>(state);
  if (masks_.size() <= index) masks_.resize(index + 1);
  if (!masks_[index][first ? 1 : 0]) {
    if ((mask_count_ + 1) * static_cast<size_t>(tokens_->size()) / 8 > kMostMaskBytes) {
      masks_.assign(index + 1, {});
      mask_count_ = 0;
    }
    masks_[index][first ? 1 : 0] = make_mask(state, first);
    ++mask_count_;
  }
  return masks_[index][first ? 1 : 0];
}

TokenAutomaton::MaskPtr TokenAutomaton::make_mask(int32_t state, bool first) {
  auto mask = std::make_shared<Mask>();
  mask->bits.assign((static_cast<size_t>(tokens_->size()) + 63) / 64, 0);
  const TokenTrie& trie = tokens_->trie(first);
  walk(dfa_, trie, state, [&](const TokenTrie::Node& node, int32_t next) {
    if (!live(dfa_, next)) return true;
    for (int32_t i = node.first; i < node.last; ++i) {
      const auto id = static_cast<size_t>(trie.ids[static_cast<size_t>(i)]);
      mask->bits[id / 64] |= uint64_t{1} << (id % 64);
    }
    mask->count += node.last - node.first;
    return true;
  });
  return mask;
}

void TokenAutomaton::bar(Place& place, std::span<const int64_t> stop_tokens, std::span<float> z) {
  MaskPtr mask;
  std::vector<std::pair<size_t, float>> stops;  // kept as they are
  {
    const std::scoped_lock lock(mutex_);
    const int32_t state = resolve(place);
    mask = mask_of(state, place.first);
    for (const int64_t stop : stop_tokens) {
      if (stop >= static_cast<int64_t>(z.size())) continue;
      const int32_t end = read(state, tokens_->bytes(stop, place.first));
      const bool ends = end != Dfa::kDead && dfa_.accepting(end);
      const auto id = static_cast<size_t>(stop);
      stops.emplace_back(id, ends ? z[id] : kBarred);
    }
  }
  for (size_t word = 0; word < mask->bits.size(); ++word) {
    const uint64_t bits = mask->bits[word];
    if (~bits == 0) continue;
    const size_t end = std::min(z.size(), (word + 1) * 64);
    for (size_t id = word * 64; id < end; ++id)
      if ((bits >> (id % 64) & 1) == 0) z[id] = kBarred;
  }
  for (const auto& [id, value] : stops) z[id] = value;
}

}  // namespace praetor::grammar
