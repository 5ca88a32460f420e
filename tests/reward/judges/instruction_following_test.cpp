#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "tests/reward/parts.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::judged;
using testing::make;
using testing::response;

namespace {

const char* kRow = R"({
  "key": 1,
  "instruction_id_list": ["punctuation:no_comma", "detectable_format:title",
                          "length_constraints:number_words"],
  "kwargs": [{}, {"num_words": null}, {"relation": "at least", "num_words": 3}]})";

}  // namespace

TEST_CASE("a response follows all instructions of its row or fails", "[reward][cpu]") {
  const auto judge = make("instruction_following", "{}");
  const Verdict good = judged(*judge, response("<<Rain>> fell on us", kRow));
  CHECK(good.score == 1.0);
  CHECK(good.passed == true);
  CHECK(good.reason == "all 3 followed");
  const Verdict bad = judged(*judge, response("Rain, rain, go away", kRow));
  CHECK(bad.score == 0.0);
  CHECK(bad.passed == false);
  CHECK(bad.reason == "not followed: punctuation:no_comma, detectable_format:title");
}

TEST_CASE("each gives the fraction of the instructions followed", "[reward][cpu]") {
  const auto judge = make("instruction_following", "{each: true}");
  CHECK(judged(*judge, response("Rain rain go away", kRow)).score == 2.0 / 3);
  CHECK(judged(*judge, response("Rain rain go away", kRow)).passed == false);
  CHECK(judged(*judge, response("<<Rain>> fell on us", kRow)).score == 1.0);
  CHECK(judged(*judge, response(" \n", kRow)).score == 0.0);  // blank follows nothing
}

TEST_CASE("loosely, one variant is enough, and each instruction has its own", "[reward][cpu]") {
  const std::string text = "Sure, here it is:\nRain fell *on <<us>>*";
  CHECK(judged(*make("instruction_following", "{mode: strict}"), response(text, kRow)).passed ==
        false);
  CHECK(judged(*make("instruction_following", "{mode: loose}"), response(text, kRow)).passed ==
        true);
  CHECK(judged(*make("instruction_following", "{mode: loose}"), response("", kRow)).passed ==
        false);
}

TEST_CASE("a row's lists may have other names, and must be there", "[reward][cpu]") {
  const auto other =
      make("instruction_following", "{instructions: metadata.checks, arguments: metadata.with}");
  const std::string row = R"({"checks": ["punctuation:no_comma"], "with": [null]})";
  CHECK(judged(*other, response("a b", row)).passed == true);
  CHECK_THROWS_WITH(judged(*other, response("a b", kRow)), "the row has no field metadata.checks");
  CHECK_THROWS_WITH(judged(*other, response("a b", R"({"checks": ["punctuation:no_comma"]})")),
                    "the row has no field metadata.with");
  const auto skip = make("instruction_following", "{missing: skip}");
  CHECK(judged(*skip, response("a b")).not_applicable);
}

TEST_CASE("lists of the wrong form are the row's error", "[reward][cpu]") {
  const auto complaint = [](const char* row) -> std::string {
    try {
      judged(*make("instruction_following", "{}"), response("a", row));
    } catch (const DataError& failure) {
      return failure.what();
    }
    return "accepted";
  };
  CHECK(complaint(R"({"instruction_id_list": [], "kwargs": []})") ==
        "metadata.instruction_id_list: [] is not a list of instructions");
  CHECK(complaint(R"({"instruction_id_list": [3], "kwargs": [{}]})") ==
        "metadata.instruction_id_list: [3] is not a list of instructions");
  CHECK(complaint(R"({"instruction_id_list": ["punctuation:no_comma"], "kwargs": {}})") ==
        "metadata.kwargs: a list of 1, one object an instruction, is wanted");
  CHECK(complaint(R"({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}, {}]})") ==
        "metadata.kwargs: a list of 1, one object an instruction, is wanted");
  CHECK(complaint(R"({"instruction_id_list": ["rhyme"], "kwargs": [{}]})") ==
        "no instruction is called \"rhyme\"");
}

TEST_CASE("a keyword that explodes on a response is that sample's error", "[reward][cpu]") {
  const char* row =
      R"({"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["^(a+)+$"]}]})";
  CHECK_THROWS_WITH(
      judged(*make("instruction_following", "{}"), response(std::string(60, 'a') + "b", row)),
      "match limit of 1000000 steps reached");
}

}  // namespace praetor
