#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "tests/reward/parts.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using testing::judged;
using testing::make;
using testing::response;

namespace {

std::string answer_of(const Judge& judge, const std::string& text) {
  return judged(judge, response(text, R"({"answer": "0"})")).reason;
}

Sample answered(const std::string& text, const std::string& gold) {
  return response(text, nlohmann::json{{"answer", gold}}.dump());
}

}  // namespace

TEST_CASE("flexible takes the last number of the response, whole", "[reward][cpu]") {
  const auto judge = make("math_answer", "{}");
  CHECK(answer_of(*judge, "so #### 1,234.") == "answer 1234, wanted 0");
  CHECK(answer_of(*judge, "It costs $18.00") == "answer 18.00, wanted 0");
  CHECK(answer_of(*judge, "3 - 8 = -5") == "answer -5, wanted 0");
  CHECK(answer_of(*judge, "That is 1/2") == "answer 1/2, wanted 0");
  CHECK(answer_of(*judge, "half, 1/2, of 10") == "answer 10, wanted 0");
  CHECK(answer_of(*judge, "He has 7 apples...") == "answer 7, wanted 0");
  CHECK(answer_of(*judge, "7, I think, $") == "answer 7, wanted 0");
  CHECK(answer_of(*judge, "12 boxes at $1,250.50 each.") == "answer 1250.50, wanted 0");
  CHECK(answer_of(*judge, "30%") == "answer 30, wanted 0");
  CHECK(answer_of(*judge, "no number...") == "no answer found; wanted 0");
  CHECK(answer_of(*judge, "") == "no answer found; wanted 0");
}

TEST_CASE("strict takes the number behind the marker and nothing else", "[reward][cpu]") {
  const auto judge = make("math_answer", "{extract: strict}");
  CHECK(answer_of(*judge, "so #### 1,234.") == "answer 1234, wanted 0");
  CHECK(answer_of(*judge, "#### 1\n#### -2 apples, not 3") == "answer -2, wanted 0");
  CHECK(answer_of(*judge, "#### 1/2") == "answer 1/2, wanted 0");
  CHECK(answer_of(*judge, "The answer is 18") == "no answer found; wanted 0");
  CHECK(answer_of(*judge, "####18") == "no answer found; wanted 0");
  CHECK(answer_of(*judge, "#### $18") == "no answer found; wanted 0");
  // The marker must begin within the last 300 characters; "é" is one character.
  const auto padded = [](int count) {
    std::string text = "#### 18 ";
    for (int i = 0; i < count; ++i) text += "\xc3\xa9";
    return text;
  };
  CHECK(answer_of(*judge, padded(292)) == "answer 18, wanted 0");
  CHECK(answer_of(*judge, padded(293)) == "no answer found; wanted 0");
  const auto other = make("math_answer", "{extract: strict, marker: 'Answer (final):'}");
  CHECK(answer_of(*other, "Answer (final): 18") == "answer 18, wanted 0");
  CHECK(answer_of(*other, "#### 18") == "no answer found; wanted 0");
}

TEST_CASE("boxed compares LaTeX as text", "[reward][cpu]") {
  const auto judge = make("math_answer", "{extract: boxed}");
  CHECK(judged(*judge, answered("Thus \\boxed{\\frac12}", "0.5")).passed == true);
  CHECK(judged(*judge, answered("Thus $\\boxed{x=5}$.", "It is \\boxed{5}")).passed == true);
  CHECK(judged(*judge, answered("Thus \\boxed{6}", "5")).passed == false);
  CHECK(judged(*judge, answered("Thus 5", "5")).reason == "no answer found; wanted 5");
  CHECK_THROWS_AS(judged(*judge, answered("\\boxed{5}", "")), DataError);
}

TEST_CASE("an answer is right, wrong or not there", "[reward][cpu]") {
  const auto judge = make("math_answer", "{format_score: 0.1}");
  const std::string gold = "She makes 9 * 2 = $<<9*2=18>>18.\n#### 18";
  CHECK(judged(*judge, answered("She makes $18.00.", gold)).score == 1.0);
  CHECK(judged(*judge, answered("She makes $18.00.", gold)).passed == true);
  CHECK(judged(*judge, answered("She makes $19", gold)).score == 0.1);
  CHECK(judged(*judge, answered("She makes $19", gold)).passed == false);
  CHECK(judged(*judge, answered("She makes a lot", gold)).score == 0.0);
  CHECK(judged(*judge, answered("She makes a lot", gold)).passed == false);
  CHECK(judged(*judge, response("5", R"({"answer": 5})")).passed == true);
  CHECK(judged(*judge, response("0.5", R"({"answer": "1/2"})")).passed == true);
  // A number has one gold: a fraction is not its numerator.
  CHECK(judged(*judge, answered("1/2", "1")).passed == false);
}

TEST_CASE("a row without its answer is an error, never a zero", "[reward][cpu]") {
  CHECK_THROWS_WITH(judged(*make("math_answer", "{}"), response("18")),
                    "the row has no field metadata.answer");
  CHECK_THROWS_WITH(
      judged(*make("math_answer", "{gold: metadata.target}"), response("18", R"({"answer": 18})")),
      "the row has no field metadata.target");
  CHECK_THROWS_WITH(judged(*make("math_answer", "{}"), response("18", R"({"answer": "eighteen"})")),
                    "metadata.answer: \"eighteen\" is not a number");
  CHECK_THROWS_AS(judged(*make("math_answer", "{}"), response("18", "not JSON")), DataError);
  CHECK(judged(*make("math_answer", "{missing: skip}"), response("18")).not_applicable);
}

TEST_CASE("published grades of 1200 real answers are all reproduced", "[reward][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  std::ifstream file(shared / "data" / "gsm8k" / "graded_solutions_first300.jsonl");
  const auto flexible = make("math_answer", "{gold: metadata.ground_truth, marker: 'A:'}");
  const auto strict =
      make("math_answer", "{gold: metadata.ground_truth, marker: 'A:', extract: strict}");
  int rows = 0, flexible_agrees = 0, strict_agrees = 0;
  for (std::string line; std::getline(file, line); ++rows) {
    const auto row = nlohmann::json::parse(line);
    Sample sample = response(row["response"].get<std::string>(), line);
    const bool correct = row["is_correct"].get<bool>();
    flexible_agrees += judged(*flexible, sample).passed == correct;
    strict_agrees += judged(*strict, sample).passed == correct;
  }
  CHECK(rows == 1200);
  CHECK(flexible_agrees == 1200);
  CHECK(strict_agrees == 1200);
}

}  // namespace praetor
