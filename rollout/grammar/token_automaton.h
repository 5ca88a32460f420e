#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "rollout/grammar/dfa.h"
#include "rollout/grammar/token_table.h"

namespace praetor::grammar {

/// Which tokens may follow which, for all of a text to be accepted by an automaton over bytes.
///
///   allowed(text, token) iff some run of tokens behind text + token makes an accepted text
///
/// so a response never comes to a place from which it cannot be ended well. The allowed tokens of a
/// place are found by walking the tokens' tree and the automaton together, once for each state of
/// the automaton, and kept, within bounds, for all responses. Any thread.
class TokenAutomaton {
 public:
  /// Where a response stands. To be handed back as it came.
  struct Place {
    uint64_t epoch = 0;
    int32_t state = 0;
    std::shared_ptr<const Dfa::Members> members;  ///< of the state, which may be forgotten
    bool first = true;                            ///< no token has added anything yet
  };

  /// @throws InvalidArgument when the vocabulary spells no accepted text
  TokenAutomaton(Nfa nfa, std::shared_ptr<const TokenTable> tokens);

  Place start();
  /// Behind a token that bar() has left. One that adds nothing to the text changes nothing.
  Place advance(Place place, int64_t token);
  /// True when the text may end here.
  bool accepting(Place& place);
  /// True when the text may end here, and no token can follow.
  bool complete(Place& place);
  /// Sets z to -inf where no token may follow. A stop token may follow where the text, with what
  /// the token adds to it, may end.
  /// @param z  [V]
  void bar(Place& place, std::span<const int64_t> stop_tokens, std::span<float> z);

 private:
  /// The tokens allowed at a state: a bit each.
  struct Mask {
    std::vector<uint64_t> bits;
    int64_t count = 0;
  };
  using MaskPtr = std::shared_ptr<const Mask>;

  void find_live();
  void spread_by_single_bytes();
  bool reaches_live(Dfa& dfa, int32_t state, bool first) const;
  bool live(const Dfa& dfa, int32_t state) const;
  int32_t resolve(Place& place);
  int32_t read(int32_t state, const std::string& bytes);
  Place place_of(int32_t state, bool first);
  MaskPtr mask_of(int32_t state, bool first);
  MaskPtr make_mask(int32_t state, bool first);

  const Nfa nfa_;
  const std::shared_ptr<const TokenTable> tokens_;
  std::vector<bool> live_;  ///< by state of the Nfa: tokens lead from it to acceptance

  std::mutex mutex_;  ///< of all below
  Dfa dfa_;
  uint64_t epoch_ = 1;                         ///< counts the times that dfa_ was cleared
  std::vector<std::array<MaskPtr, 2>> masks_;  ///< by state of dfa_, then by `first`
  size_t mask_count_ = 0;
};

}  // namespace praetor::grammar
