#include "rollout/grammar/dfa.h"

#include <algorithm>
#include <utility>

namespace praetor::grammar {

Dfa::Dfa(const Nfa& nfa) : nfa_(nfa), mark_(nfa.states().size(), 0) {}

size_t Dfa::Hash::operator()(const Members& members) const {
  uint64_t hash = 1469598103934665603U;  // FNV-1a over the numbers
  for (const int32_t m : members) hash = (hash ^ static_cast<uint32_t>(m)) * 1099511628211U;
  return static_cast<size_t>(hash);
}

// Adds a state of the Nfa, and what it reaches without a byte, to the set in the making.
void Dfa::reach(int32_t state) {
  open_.push_back(state);
  while (!open_.empty()) {
    const int32_t next = open_.back();
    open_.pop_back();
    uint32_t& mark = mark_[static_cast<size_t>(next)];
    if (mark == round_) continue;
    mark = round_;
    const Nfa::State& s = nfa_.states()[static_cast<size_t>(next)];
    if (!s.edges.empty() || next == nfa_.accept()) reached_.push_back(next);
    open_.insert(open_.end(), s.free.begin(), s.free.end());
  }
}

int32_t Dfa::take_reached() {
  ++round_;
  std::sort(reached_.begin(), reached_.end());
  const int32_t state = intern(reached_);
  reached_.clear();
  return state;
}

int32_t Dfa::intern(Members members) {
  if (members.empty()) return kDead;
  const auto found = known_.find(members);
  if (found != known_.end()) return found->second;
  const auto id = static_cast<int32_t>(states_.size());
  auto state = std::make_unique<State>();
  state->accepting = std::binary_search(members.begin(), members.end(), nfa_.accept());
  state->next.fill(kUnknown);
  known_.emplace(members, id);
  stored_ += members.size();
  state->members = std::move(members);
  states_.push_back(std::move(state));
  return id;
}

int32_t Dfa::closure_of(int32_t state) {
  reach(state);
  return take_reached();
}

int32_t Dfa::start() {
  return closure_of(nfa_.start());
}

int32_t Dfa::step(int32_t state, uint8_t byte) {
  const int32_t known = at(state).next[byte];
  if (known != kUnknown) return known;
  for (const int32_t member : at(state).members) {
    for (const Nfa::Edge& e : nfa_.states()[static_cast<size_t>(member)].edges) {
      if (e.low <= byte && byte <= e.high) reach(e.to);
    }
  }
  const int32_t next = take_reached();
  at(state).next[byte] = next;
  return next;
}

void Dfa::clear() {
  states_.clear();
  known_.clear();
  stored_ = 0;
}

}  // namespace praetor::grammar
