#include "core/base/error.h"
#include "core/base/fs.h"
#include "tests/reward/parts.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using testing::judged;
using testing::make;
using testing::response;
using testing::TempDir;

namespace {

const char* kFox = R"({"source": "the quick brown fox"})";

}  // namespace

TEST_CASE("the score is the part of the n-grams that stands in the source", "[reward][cpu]") {
  const auto judge = make("quote", "{field: metadata.source, n: 4}");
  // "quic" "uick" "ick " "ck b" "k br" " bro" "brow" are found, "row!" is not.
  const Verdict verdict = judged(*judge, response("quick brow!", kFox));
  CHECK(verdict.score == 0.875);
  CHECK(verdict.passed == true);
  CHECK(verdict.reason == "7 of 8 4-grams are quoted; longest quote 10 characters: \"quick brow\"");
  CHECK(judged(*judge, response("slow red dog", kFox)).score == 0.0);
  CHECK(judged(*judge, response("slow red dog", kFox)).reason == "0 of 9 4-grams are quoted");
  CHECK(judged(*judge, response("the quick brown fox", kFox)).score == 1.0);
  CHECK(judged(*judge, response("THE QUICK", kFox)).score == 0.0);  // case counts
}

TEST_CASE("the threshold is what passes", "[reward][cpu]") {
  const std::string keys = "{field: metadata.source, n: 4, threshold: ";
  CHECK(judged(*make("quote", keys + "0.875}"), response("quick brow!", kFox)).passed == true);
  CHECK(judged(*make("quote", keys + "0.9}"), response("quick brow!", kFox)).passed == false);
}

TEST_CASE("a response too short for an n-gram quotes nothing and fails", "[reward][cpu]") {
  const auto judge = make("quote", "{field: metadata.source, n: 4, threshold: 0}");
  for (const char* text : {"", "the", " \n "}) {
    CAPTURE(text);
    CHECK(judged(*judge, response(text, kFox)).score == 0.0);
    CHECK(judged(*judge, response(text, kFox)).passed == false);
  }
}

TEST_CASE("white space and composed characters are alike", "[reward][cpu]") {
  const auto judge = make("quote", "{field: metadata.source, n: 4}");
  CHECK(judged(*judge, response("the\n  quick\tbrown", kFox)).score == 1.0);
  CHECK(judged(*judge, response("cafe\xcc\x81s", R"({"source": "two caf\u00e9s"})")).score == 1.0);
}

TEST_CASE("what the prompt says is no quote", "[reward][cpu]") {
  Sample sample = response("the quick brown fox", kFox);
  sample.prompt = "Complete: the quick";
  // 16 n-grams; the 6 of "the quick" count on neither side.
  const Verdict verdict = judged(*make("quote", "{field: metadata.source, n: 4}"), sample);
  CHECK(verdict.score == 1.0);
  CHECK(verdict.reason ==
        "10 of 10 4-grams are quoted; longest quote 13 characters: \"ick brown fox\"");
  CHECK(judged(*make("quote", "{field: metadata.source, n: 4, exclude_prompt: false}"), sample)
            .reason ==
        "16 of 16 4-grams are quoted; longest quote 19 characters: \"the quick brown fox\"");
  sample.prompt = "the quick brown fox";
  CHECK(judged(*make("quote", "{field: metadata.source, n: 4}"), sample).score == 0.0);
}

TEST_CASE("a corpus is a text file", "[reward][cpu]") {
  const TempDir dir;
  write_file_atomic(dir / "corpus.txt", "the quick\nbrown fox\n");
  const auto judge = make("quote", "{n: 4, corpus: " + (dir / "corpus.txt").string() + "}");
  CHECK(judged(*judge, response("quick brow!")).score == 0.875);
  CHECK(judged(*judge, response("the lazy dog")).score == Approx(1.0 / 9));  // "the "
  write_file_atomic(dir / "broken.txt", "\xff");
  const auto broken = make("quote", "{n: 4, corpus: " + (dir / "broken.txt").string() + "}");
  CHECK_THROWS_WITH(judged(*broken, response("quick")), Catch::EndsWith("is not valid UTF-8"));
}

TEST_CASE("a row without its source is an error, or skipped", "[reward][cpu]") {
  CHECK_THROWS_WITH(judged(*make("quote", "{field: metadata.source}"), response("a")),
                    "the row has no field metadata.source");
  CHECK(judged(*make("quote", "{field: metadata.source, missing: skip}"), response("a"))
            .not_applicable);
}

}  // namespace praetor
