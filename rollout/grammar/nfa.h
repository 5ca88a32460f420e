#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rollout/grammar/expression.h"

namespace praetor::grammar {

/// A non-deterministic automaton over bytes. From each of its states the accepting one can be
/// reached. Immutable; any thread.
class Nfa {
 public:
  /// The most states of one automaton; larger expressions are refused.
  static constexpr size_t kMostStates = 400'000;

  struct Edge {
    uint8_t low;
    uint8_t high;
    int32_t to;
  };
  struct State {
    std::vector<Edge> edges;
    std::vector<int32_t> free;  ///< reached without a byte
  };

  /// The automaton of an expression (Thompson's construction, its characters spelled in UTF-8).
  /// @throws InvalidArgument when it needs more than kMostStates, or no text is all of a Kind::kAll
  explicit Nfa(const Expression& expression);

  int32_t start() const { return 0; }
  int32_t accept() const { return 1; }
  const std::vector<State>& states() const { return states_; }

 private:
  friend class NfaBuilder;
  std::vector<State> states_;
};

}  // namespace praetor::grammar
