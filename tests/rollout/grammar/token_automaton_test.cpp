#include "rollout/grammar/token_automaton.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/random.h"
#include "rollout/grammar/pattern.h"
#include "tests/rollout/grammar/naive_matcher.h"
#include "tests/rollout/grammar/piece_tokenizer.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor::grammar {
namespace {

using praetor::testing::NaiveMatcher;
using praetor::testing::PieceTokenizer;

constexpr size_t kLongest = 6;  // bytes of a text that the naive search looks at

/// Which texts can be made into a match, by trying every run of tokens.
class NaiveSearch {
 public:
  NaiveSearch(std::string pattern, const Tokenizer& tokenizer)
      : pattern_(std::move(pattern)), tokenizer_(tokenizer) {}

  bool matches(const std::string& text) { return NaiveMatcher::matches(pattern_, text); }

  bool can_match(const std::string& text) {
    if (text.size() > kLongest) return false;
    const auto [known, added] = known_.emplace(text, false);
    if (!added) return known->second;
    bool good = matches(text);
    for (int64_t id = 1; !good && id < tokenizer_.vocab_size(); ++id)
      good = can_match(text + tokenizer_.token_bytes(id, false));
    known_[text] = good;
    return good;
  }

 private:
  std::string pattern_;
  const Tokenizer& tokenizer_;
  std::map<std::string, bool> known_;
};

std::shared_ptr<const TokenTable> table_of(const Tokenizer& tokenizer) {
  return std::make_shared<const TokenTable>(tokenizer, tokenizer.vocab_size());
}

std::unique_ptr<TokenAutomaton> automaton_of(const std::string& pattern,
                                             const Tokenizer& tokenizer) {
  return std::make_unique<TokenAutomaton>(Nfa(*parse_pattern(pattern, Extent::kWhole)),
                                          table_of(tokenizer));
}

/// Goes on through every text that tokens can make, and compares each mask with the naive one.
struct Comparison {
  TokenAutomaton& automaton;
  NaiveSearch& naive;
  const Tokenizer& tokenizer;
  int left = 300;  ///< places still to look at
  int ends = 0;

  void at(const std::string& text, TokenAutomaton::Place place) {
    if (left-- <= 0) return;
    CAPTURE(text);
    std::vector<float> z(static_cast<size_t>(tokenizer.vocab_size()), 1.0F);
    const std::vector<int64_t> stops = {0};
    automaton.bar(place, stops, z);
    bool any = false;
    for (int64_t id = 1; id < tokenizer.vocab_size(); ++id) {
      const std::string longer = text + tokenizer.token_bytes(id, false);
      const bool allowed = z[static_cast<size_t>(id)] == 1.0F;
      CAPTURE(longer);
      CHECK(allowed == naive.can_match(longer));
      any = any || allowed;
      if (allowed) at(longer, automaton.advance(place, id));
    }
    CHECK((z[0] == 1.0F) == naive.matches(text));
    CHECK(automaton.accepting(place) == naive.matches(text));
    CHECK(automaton.complete(place) == (!any && naive.matches(text)));
    ends += naive.matches(text) ? 1 : 0;
  }
};

int compare(const std::string& pattern, const Tokenizer& tokenizer) {
  CAPTURE(pattern);
  NaiveSearch naive(pattern, tokenizer);
  if (!naive.can_match("")) {
    CHECK_THROWS_WITH(automaton_of(pattern, tokenizer),
                      "the vocabulary spells no text that matches");
    return 0;
  }
  const auto automaton = automaton_of(pattern, tokenizer);
  Comparison comparison{*automaton, naive, tokenizer};
  comparison.at("", automaton->start());
  return comparison.ends;
}

}  // namespace

TEST_CASE("the tokens allowed are those from which a match can be reached", "[rollout][cpu]") {
  const PieceTokenizer all({"a", "b", "c", "ab", "bc", "abc", "1", "\xC3", "\xA9", "é", "éa"});
  for (const char* pattern : {"abc",
                              "(a|ab)(c|bc)",
                              "a{2,4}",
                              "(ab|ba|c){1,3}",
                              "[abc]{0,3}1",
                              "é{1,3}",
                              "(é|a)b?",
                              "[^a]{1,2}",
                              "a?b?c?1?",
                              "(|abc)"}) {
    CHECK(compare(pattern, all) > 0);
  }
}

TEST_CASE("tokens that lead to a dead end are barred", "[rollout][cpu]") {
  // No x and no d by themselves: what begins with x ends in xb, and d only stands behind c.
  const PieceTokenizer lacking({"a", "b", "c", "xb", "cd", "ax", "\xC3"});
  CHECK(compare("a(xb|b)", lacking) > 0);
  CHECK(compare("a(x|b)c", lacking) > 0);
  CHECK(compare("(ad|cd|acd)", lacking) > 0);
  CHECK(compare("a(é|b)", lacking) > 0);
  CHECK(compare("(axd|ax|c)a?", lacking) > 0);
  CHECK(compare("(x|d)a", lacking) == 0);
  CHECK(compare("é", lacking) == 0);
}

TEST_CASE("random patterns allow exactly what the naive search allows", "[rollout][cpu]") {
  RandomStream random({.job_seed = 40});
  const PieceTokenizer tokenizers[] = {
      PieceTokenizer({"a", "b", "c", "ab", "ca", "abc", "\xC3", "\xA9"}),
      PieceTokenizer({"ab", "ba", "c", "aa", "bc", "é"}),
  };
  // A pattern, and the most bytes of a text that matches.
  using Made = std::pair<std::string, size_t>;
  const std::function<Made(int)> make = [&](int depth) -> Made {
    static const std::vector<Made> kAtoms = {
        {"a", 1}, {"b", 1}, {"c", 1}, {"é", 2}, {"[ab]", 1}, {"[^a]", 2}, {"[a-c]", 1}};
    const uint64_t kind = random.below(8);
    if (depth == 0 || kind < 2) return kAtoms[random.below(kAtoms.size())];
    const Made one = make(depth - 1);
    if (kind == 7) {
      const bool twice = random.below(2) == 0;
      return {"(" + one.first + ")" + (twice ? "{1,2}" : "?"), one.second * (twice ? 2 : 1)};
    }
    const Made other = make(depth - 1);
    if (kind < 5) return {one.first + other.first, one.second + other.second};
    return {"(" + one.first + "|" + other.first + ")", std::max(one.second, other.second)};
  };
  int ends = 0;
  int tried = 0;
  for (int i = 0; tried < 60; ++i) {
    const auto [pattern, longest] = make(3);
    if (longest > kLongest) continue;
    ends += compare(pattern, tokenizers[i % 2]);
    ++tried;
  }
  CHECK(ends > 100);
}

TEST_CASE("the published tokenizers spell what a pattern wants, and nothing else",
          "[rollout][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const std::vector<std::string> patterns = {"[a-z ]{3,30}!",
                                             " ?(é|ß|日本|😀){1,9}",
                                             "[^\\d]{5,9}",
                                             "\\s{1,4}\\w+\\.",
                                             "\\{\"a\": (-?\\d{1,9}|null)\\}\n?"};
  RandomStream random({.job_seed = 42});
  int ended = 0;
  for (const char* name : {"tokenizer-gpt2", "tokenizer-llama2", "tokenizer-qwen3"}) {
    CAPTURE(name);
    const auto tokenizer = Tokenizer::load(shared / "data" / name);
    // A row of logits may be longer than the vocabulary.
    const auto table = std::make_shared<const TokenTable>(*tokenizer, tokenizer->vocab_size() + 3);
    for (const std::string& pattern : patterns) {
      TokenAutomaton automaton(Nfa(*parse_pattern(pattern, Extent::kWhole)), table);
      for (int i = 0; i < 8; ++i) {
        std::vector<int64_t> tokens;
        auto place = automaton.start();
        while (!automaton.complete(place) && tokens.size() < 200) {
          std::vector<float> z(static_cast<size_t>(table->size()), 0.0F);
          automaton.bar(place, {}, z);
          std::vector<int64_t> allowed;
          for (size_t id = 0; id < z.size(); ++id)
            if (z[id] == 0.0F) allowed.push_back(static_cast<int64_t>(id));
          REQUIRE(!allowed.empty());
          tokens.push_back(allowed[random.below(allowed.size())]);
          place = automaton.advance(place, tokens.back());
          if (automaton.accepting(place) && random.below(3) == 0) break;
        }
        if (!automaton.accepting(place)) continue;
        ++ended;
        CAPTURE(pattern, tokenizer->decode(tokens));
        CHECK(NaiveMatcher::matches(pattern, tokenizer->decode(tokens)));
      }
    }
  }
  CHECK(ended > 60);
}

TEST_CASE("a masked softmax is the softmax over the allowed tokens", "[rollout][cpu]") {
  const PieceTokenizer tokenizer({"a", "b", "ab", "c", "1"});
  const auto automaton = automaton_of("a(b|c)+", tokenizer);
  auto place = automaton->advance(automaton->start(), 1);
  std::vector<float> z = {0.5F, 2.0F, 1.0F, -1.0F, 0.25F, 3.0F};
  automaton->bar(place, {}, z);
  // Behind "a": "b" (id 2) and "c" (id 4); no end yet.
  const float barred = -std::numeric_limits<float>::infinity();
  CHECK(z == std::vector<float>{barred, barred, 1.0F, barred, 0.25F, barred});
}

TEST_CASE("a place outlives the states that the automaton forgets", "[rollout][cpu]") {
  // (a|b)*a(a|b){14} has 2^15 states, more than are kept.
  const PieceTokenizer tokenizer({"a", "b"});
  const auto automaton = automaton_of("(a|b)*a(a|b){14}", tokenizer);
  RandomStream random({.job_seed = 41});
  const auto early = automaton->advance(automaton->start(), 1);
  std::string text;
  auto place = automaton->start();
  for (int i = 0; i < 60'000; ++i) {
    const int64_t id = 1 + static_cast<int64_t>(random.below(2));
    place = automaton->advance(place, id);
    text += tokenizer.token_bytes(id, false);
    const bool wanted = text.size() >= 15 && text[text.size() - 15] == 'a';
    if (automaton->accepting(place) != wanted)
      FAIL("wrong behind " << text.size() << " characters");
  }
  auto again = early;
  for (int i = 0; i < 14; ++i) again = automaton->advance(again, 2);
  CHECK(automaton->accepting(again));
  again = automaton->advance(again, 2);
  CHECK_FALSE(automaton->accepting(again));
}

TEST_CASE("a stop token that has a text ends where the text with it may end", "[rollout][cpu]") {
  const PieceTokenizer tokenizer({"a", "b", "\n"});
  const auto automaton = automaton_of("a+\n?", tokenizer);
  auto place = automaton->start();
  const std::vector<int64_t> stops = {0, 3};
  std::vector<float> z(4, 0.0F);
  automaton->bar(place, stops, z);
  CHECK(std::isinf(z[0]));
  CHECK(std::isinf(z[3]));
  place = automaton->advance(place, 1);
  z.assign(4, 0.0F);
  automaton->bar(place, stops, z);
  CHECK(z[0] == 0.0F);
  CHECK(z[3] == 0.0F);
  CHECK(std::isinf(z[2]));
}

}  // namespace praetor::grammar
