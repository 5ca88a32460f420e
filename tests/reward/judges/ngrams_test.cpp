#include "reward/judges/ngrams.h"

#include <algorithm>

#include "tests/support/catch.h"

namespace praetor {

using Views = std::vector<std::string_view>;

TEST_CASE("n-grams are runs of words or of code points", "[reward][cpu]") {
  CHECK(word_ngrams("a bc d", 2) == Views{"a bc", "bc d"});
  CHECK(word_ngrams("a bc d", 3) == Views{"a bc d"});
  CHECK(word_ngrams("a bc d", 4).empty());
  CHECK(word_ngrams("", 1).empty());
  CHECK(character_ngrams("a\xc3\xa9z", 2) == Views{"a\xc3\xa9", "\xc3\xa9z"});
  CHECK(character_ngrams("abc", 4).empty());
  CHECK(single_spaced(" a\n\t bc\xc2\xa0 d ") == "a bc d");
  CHECK(single_spaced(" \n").empty());
}

TEST_CASE("an index holds the n-grams of its text and no others", "[reward][cpu]") {
  // Against the list itself, on a text with many repeats and characters of several widths.
  std::string text;
  uint32_t state = 1;
  for (int i = 0; i < 2000; ++i) {
    state = state * 1664525u + 1013904223u;
    const char* const kSigns[] = {"a", "b", " ", "\xc3\xa9", "\xe6\xbc\xa2"};
    text += kSigns[(state >> 16) % 5];
  }
  for (const int64_t n : {1, 3, 6}) {
    const std::string_view half = std::string_view(text).substr(0, text.find("ab", 1000));
    const NgramIndex index(std::string(half), n, Deadline::never());
    const Views known = character_ngrams(half, n);
    size_t found = 0, absent = 0;
    for (const std::string_view gram : character_ngrams(text, n)) {
      const bool held = std::find(known.begin(), known.end(), gram) != known.end();
      CHECK(index.contains(gram) == held);
      ++(held ? found : absent);
    }
    CHECK(found >= known.size());
    if (n == 6) CHECK(absent > 100);
  }
}

TEST_CASE("an index of too short a text holds nothing", "[reward][cpu]") {
  CHECK_FALSE(NgramIndex("", 2, Deadline::never()).contains("ab"));
  CHECK_FALSE(NgramIndex("a", 2, Deadline::never()).contains("ab"));
  CHECK(NgramIndex("ab", 2, Deadline::never()).contains("ab"));
}

}  // namespace praetor
