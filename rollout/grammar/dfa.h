#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "rollout/grammar/nfa.h"

namespace praetor::grammar {

/// A deterministic automaton over bytes, made state by state as texts are read (the subset
/// construction). The automaton that it comes from is borrowed. One thread.
class Dfa {
 public:
  /// States of the Nfa, sorted; those that lead nowhere without a byte are left out.
  using Members = std::vector<int32_t>;
  static constexpr int32_t kDead = -1;  ///< no text that begins so is accepted

  explicit Dfa(const Nfa& nfa);

  int32_t start();
  int32_t step(int32_t state, uint8_t byte);
  /// The state of these members, which another one's members() gave before a clear().
  int32_t intern(Members members);
  /// All that is reached from `state` of the Nfa without a byte.
  int32_t closure_of(int32_t state);

  bool accepting(int32_t state) const { return at(state).accepting; }
  /// True when no byte can follow.
  bool final(int32_t state) const { return at(state).accepting && at(state).members.size() == 1; }
  const Members& members(int32_t state) const { return at(state).members; }
  size_t size() const { return states_.size(); }
  /// Memory that the states take, roughly.
  size_t bytes() const { return states_.size() * sizeof(State) + stored_ * 2 * sizeof(int32_t); }
  /// Forgets all states.
  void clear();

 private:
  static constexpr int32_t kUnknown = -2;
  struct State {
    Members members;
    bool accepting = false;
    std::array<int32_t, 256> next;  ///< kUnknown: not asked for yet
  };
  struct Hash {
    size_t operator()(const Members& members) const;
  };

  State& at(int32_t state) { return *states_[static_cast<size_t>(state)]; }
  const State& at(int32_t state) const { return *states_[static_cast<size_t>(state)]; }
  void reach(int32_t state);
  int32_t take_reached();

  const Nfa& nfa_;
  std::vector<std::unique_ptr<State>> states_;
  std::unordered_map<Members, int32_t, Hash> known_;
  size_t stored_ = 0;           ///< members of all states
  Members reached_;             ///< of the set in the making
  std::vector<int32_t> open_;   ///< reached, what they lead to not yet
  std::vector<uint32_t> mark_;  ///< by state of the Nfa: the round in which it was reached
  uint32_t round_ = 1;
};

}  // namespace praetor::grammar
