#include "actors/cli/logprobs.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/threads.h"
#include "core/model/transformer.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

using nlohmann::json;
using testing::golden;
using testing::TempDir;

namespace {

std::string run(cli::LogprobsOptions options, const std::string& input, const TempDir& dir) {
  write_file_atomic(dir / "in.jsonl", input);
  options.input = dir / "in.jsonl";
  options.threads = 1;
  std::ostringstream out;
  cli::run_logprobs(options, out);
  return out.str();
}

std::vector<json> lines(const std::string& text) {
  std::vector<json> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) out.push_back(json::parse(line));
  return out;
}

}  // namespace

TEST_CASE("log-probabilities of given tokens come out in order, whatever the batches",
          "[actors][cpu]") {
  const TempDir dir;
  const json wanted = json::parse(read_file(golden("models/untied_gqa.json")));
  std::string input;
  for (const auto& row : wanted["sequences"])
    input += json{{"tokens", row}, {"id", "kept out"}}.dump() + "\n\n";
  cli::LogprobsOptions options;
  options.model = golden("models/untied_gqa");
  const std::string text = run(options, input, dir);
  const auto rows = lines(text);
  REQUIRE(rows.size() == wanted["sequences"].size());
  for (size_t i = 0; i < rows.size(); ++i) {
    CHECK(rows[i]["tokens"] == wanted["sequences"][i]);
    REQUIRE(rows[i]["logprobs"].size() == wanted["logprobs"][i].size());
    for (size_t t = 0; t < rows[i]["logprobs"].size(); ++t) {
      CHECK(rows[i]["logprobs"][t].get<double>() ==
            Approx(wanted["logprobs"][i][t].get<double>()).margin(1e-4));
    }
  }
  for (const int64_t batch_tokens : {1, 14, 70}) {
    options.batch_tokens = batch_tokens;
    CHECK(run(options, input, dir) == text);
  }
  options.dtype = "bfloat16";
  const std::string coarse = run(options, input, dir);
  options.batch_tokens = 1000;
  CHECK(run(options, input, dir) == coarse);
  CHECK(coarse != text);
  CHECK(std::abs(lines(coarse)[2]["logprobs"][5].get<double>() -
                 rows[2]["logprobs"][5].get<double>()) < 0.3);
  CHECK(run(options, "", dir).empty());
}

TEST_CASE("text is tokenised as the folder's tokenizer does", "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const TempDir dir;
  cli::LogprobsOptions options;
  options.model = shared / "data" / "stories260K";
  const auto rows = lines(run(options,
                              "{\"text\":\"Once upon a time\"}\n"
                              "{\"prompt\":\"Once upon a time\",\"response\":\"\"}\n"
                              "{\"prompt\":\"Once upon\",\"response\":\" a time\"}\n",
                              dir));
  CHECK(rows[0]["tokens"] == json({1, 403, 407, 261, 378}));
  CHECK(rows[0]["logprobs"][0].get<double>() == Approx(-0.2437431).margin(1e-4));
  CHECK(rows[1] == rows[0]);
  CHECK(rows[2]["tokens"].size() >= 4);
}

TEST_CASE("a bad row is named by file and line before anything is scored", "[actors][cpu]") {
  const TempDir dir;
  cli::LogprobsOptions options;
  options.model = golden("models/untied_gqa");
  const std::pair<std::string, std::string> table[] = {
      {"{\"tokens\":[1,2]", "not valid JSON"},
      {"[1,2]", "must be an object"},
      {"{}", "must have exactly one of"},
      {"{\"tokens\":[1],\"text\":\"a\"}", "must have exactly one of"},
      {"{\"tokens\":\"1 2\"}", "must be a list of token ids"},
      {"{\"tokens\":[1.5]}", "must be a list of token ids, found 1.5"},
      {"{\"tokens\":[]}", "has no tokens"},
      {"{\"tokens\":[1,48]}", "token 1 is 48, outside the model's vocabulary of 48"},
      {"{\"tokens\":[-1]}", "token 0 is -1"},
      {"{\"tokens\":[18446744073709551615]}", "must be a list of token ids"},
      {json{{"tokens", std::vector<int>(65, 1)}}.dump(),
       "has 65 tokens, the model takes at most 64"},
  };
  for (const auto& [row, message] : table) {
    CHECK_THROWS_WITH(run(options, "{\"tokens\":[1,2]}\n\n" + row + "\n", dir),
                      Catch::Contains("in.jsonl:3: ") && Catch::Contains(message));
    CHECK_THROWS_AS(run(options, row, dir), DataError);
  }
  options.model = dir / "none";
  CHECK_THROWS_AS(run(options, "", dir), MissingInput);
}

}  // namespace praetor
