#include "actors/cli/tokenize.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor::cli {

namespace {

using Catch::Matchers::Contains;

/// Two letters, a special token and its template.
std::unique_ptr<Tokenizer> letters() {
  const testing::TempDir dir;
  write_file_atomic(dir / "tokenizer.json", R"({
    "added_tokens": [{"id": 2, "content": "<s>", "special": true}],
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], "special_tokens": {"<s>": {"ids": [2]}}},
    "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}})");
  return Tokenizer::load(dir.path());
}

std::string run(const std::string& in, const TokenizeOptions& options) {
  std::istringstream input(in);
  std::ostringstream output;
  tokenize_lines(*letters(), options, input, output);
  return output.str();
}

/// What goes wrong, and what was written before.
std::pair<std::string, std::string> failure(const std::string& in, const TokenizeOptions& options) {
  std::istringstream input(in);
  std::ostringstream output;
  try {
    tokenize_lines(*letters(), options, input, output);
  } catch (const DataError& error) {
    CHECK(error.exit_status() == kExitBadData);
    return {error.what(), output.str()};
  }
  return {"", output.str()};
}

}  // namespace

TEST_CASE("tokenize turns each line into one line", "[actors][cpu]") {
  CHECK(run("\"ab\"\n{\"text\": \"ba\", \"id\": 1}\n\"\"\n", {}) ==
        "{\"tokens\":[2,0,1]}\n{\"tokens\":[2,1,0]}\n{\"tokens\":[2]}\n");
  CHECK(run("\"ab\"", {.special = false}) == "{\"tokens\":[0,1]}\n");
  CHECK(run("{\"tokens\": [2, 0, 1]}\n{\"tokens\":[]}\n", {.decode = true}) ==
        "{\"text\":\"<s>ab\"}\n{\"text\":\"\"}\n");
  CHECK(run("{\"tokens\": [2, 0, 1]}", {.decode = true, .special = false}) ==
        "{\"text\":\"ab\"}\n");
  CHECK(run("", {}).empty());
}

TEST_CASE("a bad row is named by its line, after the good ones were written", "[actors][cpu]") {
  const auto [what, written] = failure("\"a\"\n{\"txt\": \"b\"}\n", {});
  CHECK_THAT(what, Catch::StartsWith("stdin:2: \"text\" is missing"));
  CHECK(written == "{\"tokens\":[2,0]}\n");
  CHECK_THAT(failure("not json\n", {}).first,
             Catch::StartsWith("stdin:1: not valid JSON: parse error"));
  CHECK_THAT(failure("\"a\"\n\n\"b\"\n", {}).first,
             Catch::StartsWith("stdin:2: the line is empty"));
  CHECK_THAT(failure("7\n", {}).first,
             Contains("stdin:1: a string or {\"text\": \"...\"} is wanted, not 7"));
  CHECK_THAT(failure("\"\xff\"\n", {}).first, Contains("stdin:1: not valid JSON"));
  CHECK_THAT(failure("\"a\"\n", {.decode = true}).first,
             Contains("{\"tokens\": [...]} is wanted, not \"a\""));
  CHECK_THAT(failure("{\"tokens\":[0,3]}\n", {.decode = true}).first,
             Contains("stdin:1: tokens: 3 is not a token; ids go from 0 to 2"));
  CHECK_THAT(failure("{\"tokens\":[0.5]}\n", {.decode = true}).first,
             Contains("0.5 is not a token id"));
  CHECK_THAT(failure("{\"tokens\":[18446744073709551615]}\n", {.decode = true}).first,
             Contains("is not a token"));
}

TEST_CASE("output that cannot be written ends the program", "[actors][cpu]") {
  std::istringstream input("\"a\"\n");
  std::ostringstream output;
  output.setstate(std::ios::badbit);
  CHECK_THROWS_AS(tokenize_lines(*letters(), {}, input, output), IoError);
}

}  // namespace praetor::cli
