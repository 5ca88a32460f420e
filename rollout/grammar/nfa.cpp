#include "rollout/grammar/nfa.h"

#include <map>
#include <memory>
#include <span>
#include <utility>

#include "core/base/error.h"
#include "core/tokenizer/unicode.h"
#include "rollout/grammar/dfa.h"

namespace praetor::grammar {
namespace {

using ByteRange = std::pair<uint8_t, uint8_t>;
using ByteRanges = std::vector<ByteRange>;

std::string encoded(char32_t code) {
  std::string out;
  unicode::append(out, code);
  return out;
}

/// Spells characters low..high, all of one length in UTF-8, as sequences of byte ranges: where the
/// ranges of leading bytes differ, the trailing ones must be whole.
void split(char32_t low, char32_t high, size_t length, std::vector<ByteRanges>& out) {
  for (size_t i = 1; i < length; ++i) {
    const char32_t mask = (char32_t{1} << (6 * i)) - 1;
    if ((low & ~mask) == (high & ~mask)) continue;
    if ((low & mask) != 0) {
      split(low, low | mask, length, out);
      split((low | mask) + 1, high, length, out);
      return;
    }
    if ((high & mask) != mask) {
      split(low, (high & ~mask) - 1, length, out);
      split(high & ~mask, high, length, out);
      return;
    }
  }
  const std::string first = encoded(low);
  const std::string last = encoded(high);
  ByteRanges ranges;
  for (size_t i = 0; i < length; ++i)
    ranges.emplace_back(static_cast<uint8_t>(first[i]), static_cast<uint8_t>(last[i]));
  out.push_back(std::move(ranges));
}

std::vector<ByteRanges> spelled(const CodePoints& points) {
  static constexpr char32_t kLastOfLength[] = {0x7F, 0x7FF, 0xFFFF, CodePoints::kLast};
  std::vector<ByteRanges> out;
  for (const CodePoints::Range& r : points.ranges()) {
    char32_t low = r.low;
    for (size_t length = 1; length <= 4 && low <= r.high; ++length) {
      const char32_t end = kLastOfLength[length - 1];
      if (low > end) continue;
      split(low, std::min(end, r.high), length, out);
      low = end + 1;
    }
  }
  return out;
}

}  // namespace

/// The automaton of what several ones accept, deterministic: its states are tuples of theirs.
class Product {
 public:
  /// @throws InvalidArgument when it has more than kMostStates states
  explicit Product(const std::vector<ExpressionPtr>& parts) {
    for (const ExpressionPtr& part : parts) {
      nfas_.push_back(std::make_unique<Nfa>(*part));
      dfas_.emplace_back(*nfas_.back());
    }
    Tuple start;
    for (Dfa& dfa : dfas_) start.push_back(dfa.start());
    find(start);
    for (size_t i = 0; i < states.size(); ++i) explore(static_cast<int32_t>(i));
    mark_living();
  }

  struct State {
    std::vector<Nfa::Edge> edges;
    bool accepting = false;
    bool living = false;  ///< the end can be reached
  };
  std::vector<State> states;  ///< the first is the start

 private:
  static constexpr size_t kMostStates = 50'000;
  using Tuple = std::vector<int32_t>;

  int32_t find(const Tuple& tuple) {
    const auto [known, added] = known_.emplace(tuple, static_cast<int32_t>(states.size()));
    if (!added) return known->second;
    if (states.size() >= kMostStates) {
      throw InvalidArgument("to hold all of it together needs an automaton of more than ",
                            kMostStates,
                            " states: ask for less at once");
    }
    State state{.edges = {}, .accepting = true};
    for (size_t i = 0; i < tuple.size(); ++i)
      state.accepting = state.accepting && dfas_[i].accepting(tuple[i]);
    states.push_back(std::move(state));
    tuples_.push_back(tuple);
    return known->second;
  }

  void explore(int32_t from) {
    const Tuple own = tuples_[static_cast<size_t>(from)];
    Tuple next(own.size());
    for (int byte = 0; byte < 256; ++byte) {
      bool dead = false;
      for (size_t i = 0; i < own.size() && !dead; ++i) {
        next[i] = dfas_[i].step(own[i], static_cast<uint8_t>(byte));
        dead = next[i] == Dfa::kDead;
      }
      if (dead) continue;
      const int32_t to = find(next);
      const auto at = static_cast<uint8_t>(byte);
      std::vector<Nfa::Edge>& edges = states[static_cast<size_t>(from)].edges;
      if (!edges.empty() && edges.back().to == to && edges.back().high + 1 == byte) {
        edges.back().high = at;
      } else {
        edges.push_back({at, at, to});
      }
    }
  }

  void mark_living() {
    std::vector<std::vector<int32_t>> before(states.size());
    std::vector<int32_t> open;
    for (size_t i = 0; i < states.size(); ++i) {
      for (const Nfa::Edge& e : states[i].edges)
        before[static_cast<size_t>(e.to)].push_back(static_cast<int32_t>(i));
      if (states[i].accepting) open.push_back(static_cast<int32_t>(i));
    }
    while (!open.empty()) {
      const auto i = static_cast<size_t>(open.back());
      open.pop_back();
      if (states[i].living) continue;
      states[i].living = true;
      open.insert(open.end(), before[i].begin(), before[i].end());
    }
  }

  std::vector<std::unique_ptr<Nfa>> nfas_;
  std::vector<Dfa> dfas_;
  std::map<Tuple, int32_t> known_;
  std::vector<Tuple> tuples_;
};

/// Adds paths between states that exist already. A path enters no state but its own, so paths may
/// share their ends.
class NfaBuilder {
 public:
  explicit NfaBuilder(std::vector<Nfa::State>& states) : states_(states) {}

  int32_t fresh() {
    if (states_.size() >= Nfa::kMostStates) {
      throw InvalidArgument(
          "needs an automaton of more than ", Nfa::kMostStates, " states: repeat or nest less");
    }
    states_.emplace_back();
    return static_cast<int32_t>(states_.size()) - 1;
  }

  void add(const Expression& e, int32_t from, int32_t to) {
    switch (e.kind) {
      case Expression::Kind::kBytes:
        return add_bytes(e.bytes, from, to);
      case Expression::Kind::kClass:
        return add_class(e.points, from, to);
      case Expression::Kind::kSequence:
        return add_sequence(e.parts, from, to);
      case Expression::Kind::kChoice:
        for (const ExpressionPtr& part : e.parts) add(*part, from, to);
        return;
      case Expression::Kind::kRepeat:
        return add_repeat(e, from, to);
      case Expression::Kind::kList:
        return add_list(e, from, to);
      case Expression::Kind::kFields:
        return add_fields(e, from, to);
      case Expression::Kind::kAll:
        return add_all(e, from, to);
      case Expression::Kind::kMultiple:
        return add_multiples(e.least, from, to);
    }
  }

 private:
  Nfa::State& at(int32_t state) { return states_[static_cast<size_t>(state)]; }
  void free(int32_t from, int32_t to) { at(from).free.push_back(to); }
  void edge(int32_t from, ByteRange range, int32_t to) {
    at(from).edges.push_back({range.first, range.second, to});
  }

  void add_bytes(const std::string& bytes, int32_t from, int32_t to) {
    if (bytes.empty()) return free(from, to);
    for (size_t i = 0; i < bytes.size(); ++i) {
      const int32_t next = i + 1 == bytes.size() ? to : fresh();
      const auto byte = static_cast<uint8_t>(bytes[i]);
      edge(from, {byte, byte}, next);
      from = next;
    }
  }

  // Characters that end alike share the states of their last bytes.
  void add_class(const CodePoints& points, int32_t from, int32_t to) {
    std::map<ByteRanges, int32_t> tails;
    for (const ByteRanges& ranges : spelled(points)) {
      int32_t next = to;
      for (size_t i = ranges.size() - 1; i > 0; --i) {
        const ByteRanges tail(ranges.begin() + static_cast<std::ptrdiff_t>(i), ranges.end());
        const auto [known, added] = tails.emplace(tail, 0);
        if (added) {
          known->second = fresh();
          edge(known->second, ranges[i], next);
        }
        next = known->second;
      }
      edge(from, ranges[0], next);
    }
  }

  void add_sequence(const std::vector<ExpressionPtr>& parts, int32_t from, int32_t to) {
    if (parts.empty()) return free(from, to);
    for (size_t i = 0; i < parts.size(); ++i) {
      const int32_t next = i + 1 == parts.size() ? to : fresh();
      add(*parts[i], from, next);
      from = next;
    }
  }

  void add_repeat(const Expression& e, int32_t from, int32_t to) {
    for (int64_t i = 0; i < e.least; ++i) {
      const int32_t next = fresh();
      add(*e.parts[0], from, next);
      from = next;
    }
    if (e.most == kUnbounded) {
      const int32_t hub = fresh();
      free(from, hub);
      add(*e.parts[0], hub, hub);
      return free(hub, to);
    }
    for (int64_t i = e.least; i < e.most; ++i) {
      free(from, to);
      const int32_t next = fresh();
      add(*e.parts[0], from, next);
      from = next;
    }
    free(from, to);
  }

  // An item behind the least number of them leads back to itself, so it is there once.
  void add_list(const Expression& e, int32_t from, int32_t to) {
    if (e.least == 0) free(from, to);
    if (e.most == 0) return;
    const Expression& item = *e.parts[0];
    const Expression& between = *e.parts[1];
    const int64_t copies = e.most == kUnbounded ? std::max<int64_t>(e.least, 1) : e.most;
    int32_t before = fresh();
    free(from, before);
    for (int64_t i = 1; i <= copies; ++i) {
      const int32_t after = fresh();
      add(item, before, after);
      if (i >= e.least) free(after, to);
      if (i == copies) {
        if (e.most == kUnbounded) add(between, after, before);
        return;
      }
      before = fresh();
      add(between, after, before);
    }
  }

  // Two tracks: nothing has been written yet, and something has. Each field is there once.
  void add_fields(const Expression& e, int32_t from, int32_t to) {
    int32_t none = fresh();
    int32_t some = fresh();
    free(from, none);
    for (size_t i = 0; i < e.required.size(); ++i) {
      const int32_t begin = fresh();
      const int32_t next_none = fresh();
      const int32_t next_some = fresh();
      free(none, begin);
      if (i > 0) add(*e.parts[0], some, begin);
      add(*e.parts[i + 1], begin, next_some);
      if (!e.required[i]) {
        free(none, next_none);
        free(some, next_some);
      }
      none = next_none;
      some = next_some;
    }
    free(none, to);
    free(some, to);
  }

  void add_all(const Expression& e, int32_t from, int32_t to) {
    const Product product(e.parts);
    if (!product.states[0].living) throw InvalidArgument("no text meets all of it");
    std::vector<int32_t> own;  // by state of the product; those that lead nowhere have none
    for (const Product::State& state : product.states) own.push_back(state.living ? fresh() : -1);
    free(from, own[0]);
    for (size_t i = 0; i < own.size(); ++i) {
      if (own[i] < 0) continue;
      if (product.states[i].accepting) free(own[i], to);
      for (const Nfa::Edge& e_of : product.states[i].edges) {
        const int32_t next = own[static_cast<size_t>(e_of.to)];
        if (next >= 0) edge(own[i], {e_of.low, e_of.high}, next);
      }
    }
  }

  // A state for each remainder of what has been read.
  void add_multiples(int64_t divisor, int32_t from, int32_t to) {
    std::vector<int32_t> remainder;
    for (int64_t r = 0; r < divisor; ++r) remainder.push_back(fresh());
    const auto digits = [&](int32_t state, int64_t r) {
      for (uint8_t d = 0; d < 10; ++d) {
        const auto byte = static_cast<uint8_t>('0' + d);
        edge(state, {byte, byte}, remainder[static_cast<size_t>((10 * r + d) % divisor)]);
      }
    };
    digits(from, 0);
    for (int64_t r = 0; r < divisor; ++r) digits(remainder[static_cast<size_t>(r)], r);
    free(remainder[0], to);
  }

  std::vector<Nfa::State>& states_;
};

Nfa::Nfa(const Expression& expression) {
  NfaBuilder builder(states_);
  const int32_t start = builder.fresh();
  const int32_t accept = builder.fresh();
  builder.add(expression, start, accept);
}

}  // namespace praetor::grammar
