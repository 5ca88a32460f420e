#include "reward/judges/english_text.h"

#include <utility>
#include <vector>

#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("sentences end where a reader ends them", "[reward][cpu]") {
  const std::vector<std::pair<const char*, int64_t>> texts = {
      {"", 0},
      {" \n\t", 0},
      {"No mark at all", 1},
      {"One.", 1},
      {"One. Two", 2},
      {"one. two. three.", 3},
      {"What?! No way!!! Well... yes. So... No.", 5},
      {"He met Dr. Smith, Mr. Lee and J. S. Bach on Main St. in Oct. 1999.", 1},
      {"He lives in the U.S. The rent is high.", 2},
      {"It is 5 p.m. here. It is 3.14 there.", 2},
      {"1. Dig.\n2. Plant.", 4},  // numbers of a list are sentences to Punkt
      {"3. the rest", 1},
      {"\"Stop!\" he said. (He ran.) 'So.'", 4},
      {"All is \xe2\x80\x9cwell.\xe2\x80\x9d Is it?", 2},
      {"Line one\nLine two\n* three", 1},
      {"**Bold.** Next one.", 2},
      {"See example.com for v1.2.", 1},
      {"So do I. The end.", 2},
      {"So says Plan B. Nobody knew.", 1},  // an initial, for all that can be seen
  };
  for (const auto& [text, count] : texts) {
    CAPTURE(text);
    CHECK(count_sentences(text) == count);
  }
}

TEST_CASE("capital words are parted at marks and clitics, not at hyphens", "[reward][cpu]") {
  const std::vector<std::pair<const char*, int64_t>> texts = {
      {"", 0},
      {"none Here", 0},
      {"I am", 1},
      {"WELL-KNOWN A/B U.S.", 3},
      {"IT'S JOHN'S", 4},
      {"JOHN's It's", 1},
      {"DON'T CANNOT GIMME", 6},
      {"don't cannot", 0},
      {"O'CLOCK Y'ALL", 2},
      {"AB,CD EF;GH (IJ) [KL] *MN* \"OP\" QR--ST UV...WX", 12},
      {"A:B 3:4", 2},
      {"R2D2 3PM 42", 2},
      {"\xc3\x89T\xc3\x89 \xd0\x94\xd0\x90", 2},  // ÉTÉ ДА
      {"DON\xe2\x80\x99T", 2},
      {"\xe6\xbc\xa2\xe5\xad\x97", 0},
  };
  for (const auto& [text, count] : texts) {
    CAPTURE(text);
    CHECK(count_capital_words(text) == count);
  }
}

TEST_CASE("word runs hold letters, their marks, digits and underscores", "[reward][cpu]") {
  CHECK(count_word_runs("it's a well-known fact_1") == 6);
  CHECK(count_word_runs("") == 0);
  CHECK(count_word_runs("?! -- ...") == 0);
  CHECK(count_word_runs("\xe0\xa4\x95\xe0\xa4\xbf \xe0\xa4\x95\xe0\xa4\xbe") == 2);  // कि का
}

}  // namespace praetor
