#include "actors/cli/score.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor::cli {

using nlohmann::json;

namespace {

/// Scores `lines` by `rewards`; the lines that come out.
std::vector<json> scored(const testing::TempDir& dir,
                         const std::string& rewards,
                         const std::string& lines) {
  write_file_atomic(dir / "r.yaml", rewards);
  write_file_atomic(dir / "in.jsonl", lines);
  std::ostringstream out;
  score_file(dir / "r.yaml", dir / "in.jsonl", out);
  std::vector<json> rows;
  std::istringstream in(out.str());
  for (std::string line; std::getline(in, line);) rows.push_back(json::parse(line));
  return rows;
}

std::string complaint(const std::string& lines) {
  std::istringstream in(lines);
  try {
    read_score_rows(in, "in.jsonl");
  } catch (const DataError& failure) {
    return failure.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a line of text becomes a line of scores", "[actors][cpu]") {
  const testing::TempDir dir;
  const auto rows = scored(
      dir,
      "parts:\n"
      "  - {name: math, kind: math_answer, weight: 2}\n"
      "  - {name: short, kind: length, unit: tokens, max: 3}\n",
      R"({"prompt": "6*3?", "response": "18", "answer": "18", "response_tokens": 2})"
      "\n\n"
      R"({"prompt": "6*3?", "response": "17", "answer": 18, "response_tokens": 9, "finished": false})"
      "\n"
      R"({"prompt": "6*3?", "response": "17"})");
  REQUIRE(rows.size() == 3);
  CHECK(rows[0] == json::parse(R"({"score": 3.0, "parts": {
      "math": {"score": 1.0, "weight": 2.0, "verdict": true, "reason": "answer 18, wanted 18"},
      "short": {"score": 1.0, "weight": 1.0, "verdict": true, "reason": "2 tokens"}}})"));
  CHECK(rows[1]["score"] == 0.0);
  CHECK(rows[1]["parts"]["short"]["verdict"] == false);
  CHECK(rows[2]["score"].is_null());
  CHECK(rows[2]["parts"]["math"]["score"].is_null());
  CHECK(rows[2]["parts"]["math"]["error"] == "the row has no field metadata.answer");
  CHECK_FALSE(rows[2]["parts"]["math"].contains("verdict"));
}

TEST_CASE("constraints, tasks and preferences stand in the lines", "[actors][cpu]") {
  const testing::TempDir dir;
  const std::string model = std::filesystem::absolute(testing::golden("reward/llama")).string();
  const std::string rewards =
      "parts:\n"
      "  - {kind: preference, form: scalar, path: '" +
      model +
      "'}\n"
      "tasks:\n"
      "  math: {parts: [{kind: math_answer, use: constraint}]}\n"
      "  chat: {parts: [{kind: length, unit: words, min: 2, weight: 0}]}\n";
  const auto rows = scored(
      dir,
      rewards,
      R"({"prompt": "6*3?", "response": "18", "answer": 18, "task": "math", "rivals": ["18", "a"]})"
      "\n"
      R"({"prompt": "Tom", "response": "ran", "task": "chat"})");
  REQUIRE(rows.size() == 2);
  CHECK(rows[0]["satisfied"] == true);
  CHECK(rows[0]["task"] == "math");
  REQUIRE(rows[0]["preferences"].size() == 2);
  CHECK(rows[0]["preferences"][0] == 0.5);  // against itself
  CHECK(rows[0]["score"] == rows[0]["parts"]["preference"]["score"]);
  CHECK(rows[1]["score"] == 0.0);
  CHECK(rows[1]["parts"]["preference"]["not_applicable"] == true);
  CHECK(rows[1]["parts"]["length"]["verdict"] == false);
  CHECK_FALSE(rows[1].contains("satisfied"));
  CHECK_FALSE(rows[1].contains("preferences"));
  CHECK_THROWS_WITH(
      scored(dir, rewards, "\n{\"prompt\": \"\", \"response\": \"\", \"task\": \"code\"}"),
      (dir / "in.jsonl").string() + ":2: unknown task \"code\"; one of math, chat is wanted");
}

TEST_CASE("order holds over many lines", "[actors][cpu]") {
  const testing::TempDir dir;
  std::string lines;
  for (int i = 0; i < 700; ++i)
    lines +=
        json{{"prompt", ""}, {"response", std::to_string(i)}, {"answer", i % 2 ? i : -1}}.dump() +
        "\n";
  const auto rows = scored(dir, "parts: [{kind: math_answer}]", lines);
  REQUIRE(rows.size() == 700);
  for (size_t i = 0; i < rows.size(); ++i) CHECK(rows[i]["score"] == (i % 2 ? 1.0 : 0.0));
}

TEST_CASE("bad rows are named by file and line before anything is scored", "[actors][cpu]") {
  CHECK(complaint(R"({"prompt": "a"})") ==
        "in.jsonl:1: field \"response\" is missing; text is wanted");
  CHECK(complaint("{\"prompt\": \"a\", \"response\": \"b\"}\n\n{\"prompt\": 5, \"response\": "
                  "\"b\"}\nnonsense\n") ==
        "in.jsonl:3: field \"prompt\" is a number; text is wanted\n"
        "in.jsonl:4: not a JSON object in UTF-8: nonsense");
  CHECK(complaint("[1]") == "in.jsonl:1: not a JSON object in UTF-8: [1]");
  CHECK(complaint("{\"prompt\": \"\xff\", \"response\": \"b\"}") ==
        "in.jsonl:1: not a JSON object in UTF-8: {\"prompt\": \"\\xff\", \"response\": \"b\"}");
  CHECK(complaint(R"({"prompt": "a", "response": "b", "response_tokens": -1})") ==
        "in.jsonl:1: field \"response_tokens\" is a number; a count is wanted");
  CHECK(complaint(R"({"prompt": "a", "response": "b", "finished": "yes"})") ==
        "in.jsonl:1: field \"finished\" is a string; true or false is wanted");
  CHECK(complaint(R"({"prompt": "a", "response": "b", "rivals": ["c", 1]})") ==
        "in.jsonl:1: field \"rivals\" is not a list of texts");
  std::string many;
  for (int i = 0; i < 50; ++i) many += "x\n";
  const std::string all = complaint(many);
  CHECK(std::count(all.begin(), all.end(), '\n') == 19);
}

TEST_CASE("a bad section, a stage and a failing part end the command with their place",
          "[actors][cpu]") {
  const testing::TempDir dir;
  const std::string row = "{\"prompt\": \"\", \"response\": \"5\"}\n";
  CHECK_THROWS_WITH(scored(dir, "parts: [{kind: regex, pattern: '('}]", row),
                    Catch::Contains("r.yaml:1:32: parts[0].pattern: missing closing parenthesis"));
  CHECK_THROWS_AS(scored(dir, "parts: [{kind: model, stage: rm}]", row), ConfigError);
  CHECK_THROWS_WITH(scored(dir,
                           "{on_error: fail, parts: [{kind: math_answer}]}",
                           "{\"prompt\": \"\", \"response\": \"5\", \"answer\": 5}\n\n" + row),
                    (dir / "in.jsonl").string() +
                        ":3: rewards part \"math_answer\": the row has no field metadata.answer");
  std::ostringstream out;
  CHECK_THROWS_AS(score_file(dir / "r.yaml", dir / "none.jsonl", out), MissingInput);
  CHECK_THROWS_AS(score_file(dir / "none.yaml", dir / "in.jsonl", out), MissingInput);
  CHECK(scored(dir, "parts: [{kind: math_answer}]", "\n").empty());
}

}  // namespace praetor::cli
