#include "actors/cli/generate.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "actors/cli/generate_prompts.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/threads.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor::cli {
namespace {

using nlohmann::json;

std::vector<json> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(json::parse(line));
  return lines;
}

std::vector<json> generate(GenerateOptions options, const std::string& input) {
  const int before = threads();
  options.prompts = std::string("-");
  options.threads = before;
  std::istringstream in(input);
  std::ostringstream out;
  run_generate(options, in, out);
  return lines_of(out.str());
}

}  // namespace

TEST_CASE("generate answers text, tokens and messages in order", "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  GenerateOptions options{.model = shared / "data" / "stories260K"};
  options.sampling.temperature = 0;
  options.sampling.max_new_tokens = 8;
  const auto lines = generate(options,
                              R"({"prompt": "Once upon a time"}
{"tokens": [1, 403, 407, 261, 378]}

{"messages": [{"role": "user", "content": "Once upon a time"}]}
)");
  REQUIRE(lines.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(lines[i]["prompt_index"] == i);
    CHECK(lines[i]["sample_index"] == 0);
    CHECK(lines[i]["finish_reason"] == "length");
    CHECK(lines[i]["logprobs"].size() == 8);
  }
  CHECK(lines[0]["tokens"] == json({432, 383, 286, 261, 376, 298, 315, 421}));
  CHECK(lines[0]["text"] == ", there was a little girl");
  CHECK(lines[1]["tokens"] == lines[0]["tokens"]);
}

TEST_CASE("generate writes n samples a prompt, repeats by seed, and its statistics",
          "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const testing::TempDir folder;
  GenerateOptions options{.model = shared / "data" / "stories260K", .samples = 3, .seed = 9};
  options.sampling.max_new_tokens = 30;
  options.stats = folder / "stats.json";
  const std::string input = R"({"prompt": "Tom and Mia"})"
                            "\n"
                            R"({"prompt": "One day, a big bear"})"
                            "\n";
  const auto lines = generate(options, input);
  REQUIRE(lines.size() == 6);
  size_t tokens = 0;
  for (size_t i = 0; i < 6; ++i) {
    CHECK(lines[i]["prompt_index"] == i / 3);
    CHECK(lines[i]["sample_index"] == i % 3);
    tokens += lines[i]["tokens"].size();
  }
  CHECK(lines[0]["tokens"] != lines[1]["tokens"]);
  const json stats = json::parse(read_file(options.stats));
  CHECK(stats["prompts"] == 2);
  CHECK(stats["tokens"] == tokens);
  CHECK(stats["seconds"] > 0.0);
  CHECK(stats["tokens_per_second"] > 0.0);
  CHECK(stats["peak_rss_bytes"] > 1 << 20);
  CHECK(generate(options, input) == lines);
  CHECK(stats["drafted"] == 0);
  options.engine.max_sequences = 1;
  CHECK(generate(options, input) == lines);
  options.engine.draft_tokens = 4;
  CHECK(generate(options, input) == lines);
  const json guessed = json::parse(read_file(options.stats));
  CHECK(guessed["drafted"] > 0);
  CHECK(guessed["accepted"] <= guessed["drafted"]);
  options.engine.draft_tokens = 0;
  options.seed = 10;
  CHECK(generate(options, input) != lines);
}

TEST_CASE("generate in narrow weights tells the story with other log-probabilities",
          "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  GenerateOptions options{.model = shared / "data" / "stories260K"};
  options.sampling.temperature = 0;
  options.sampling.max_new_tokens = 8;
  const std::string input = R"({"prompt": "Once upon a time"})";
  const json whole = generate(options, input)[0];
  for (const WeightKind kind : {WeightKind::kBfloat16, WeightKind::kInt8}) {
    options.engine.weights = kind;
    const json line = generate(options, input)[0];
    CHECK(line["text"] == ", there was a little girl");
    for (size_t i = 0; i < 8; ++i) {
      CHECK(line["logprobs"][i] != whole["logprobs"][i]);
      CHECK(line["logprobs"][i].get<double>() ==
            Approx(whole["logprobs"][i].get<double>()).margin(0.05));
    }
  }
  options.dtype = "bfloat16";
  CHECK_THROWS_WITH(generate(options, input),
                    Catch::Contains("weights of kind int8 are made of a float32 model"));
}

TEST_CASE("generate stops at the end token and at a stop string", "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  GenerateOptions options{.model = shared / "data" / "stories260K"};
  options.sampling.temperature = 0;
  options.sampling.max_new_tokens = 48;
  options.sampling.stop_strings = {"girl named"};
  const auto lines = generate(options, R"({"prompt": "Once upon a time"})");
  REQUIRE(lines.size() == 1);
  CHECK(lines[0]["text"] == ", there was a little ");
  CHECK(lines[0]["finish_reason"] == "stop");
}

TEST_CASE("bad prompts are named by file and line, all of them", "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const auto folder = shared / "data" / "stories260K";
  const auto tokenizer = Tokenizer::load(folder);
  const ModelConfig model = ModelConfig::load(folder);
  const auto refusal = [&](const std::string& text, const std::string& chat = "plain") {
    try {
      read_generate_prompts(text, "p.jsonl", *tokenizer, model, chat);
    } catch (const DataError& failure) {
      CHECK(failure.exit_status() == kExitBadData);
      return std::string(failure.what());
    }
    return std::string();
  };
  using Catch::Matchers::Contains;
  using Catch::Matchers::StartsWith;
  CHECK(refusal(R"({"prompt": "ok", "note": 1})").empty());
  CHECK_THAT(refusal("\n{\"prompt\": "), StartsWith("p.jsonl:2: not valid JSON"));
  CHECK_THAT(refusal("[1]"), StartsWith("p.jsonl:1: must be an object, not array"));
  CHECK_THAT(refusal("{}"), Contains("exactly one of"));
  CHECK_THAT(refusal(R"({"prompt": "a", "tokens": [1]})"), Contains("exactly one of"));
  CHECK_THAT(refusal(R"({"prompt": 3})"), Contains("\"prompt\" must be a string, not number"));
  CHECK_THAT(refusal(R"({"tokens": []})"), Contains("no tokens"));
  CHECK_THAT(refusal(R"({"tokens": [1, "a"]})"), Contains("token ids"));
  CHECK_THAT(refusal(R"({"tokens": [1, 512]})"), Contains("token 1 is 512"));
  CHECK_THAT(refusal(R"({"tokens": [-1]})"), Contains("token 0 is -1"));
  CHECK_THAT(refusal(R"({"messages": []})"), Contains("not empty"));
  CHECK_THAT(refusal(R"({"messages": [{"role": "user"}]})"), Contains("has no \"content\""));
  CHECK_THAT(refusal(R"({"messages": [{"role": "cat", "content": ""}]})", "chatml"),
             Contains("cat"));
  CHECK_THAT(refusal(json({{"tokens", std::vector<int>(512, 5)}}).dump()),
             Contains("512 tokens") && Contains("512 positions"));
  CHECK_THAT(refusal("  \n"), Contains("no rows"));
  CHECK_THAT(refusal("[1]\n{\"prompt\": \"fine\"}\n{}\n"),
             Contains("p.jsonl:1: ") && Contains("\np.jsonl:3: "));
}

TEST_CASE("generate holds responses to a pattern and reports the most likely tokens",
          "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  GenerateOptions options{.model = shared / "data" / "stories260K"};
  options.sampling.max_new_tokens = 30;
  options.sampling.top_logprobs = 2;
  options.sampling.processors = {{"regex", R"({"pattern":"[a-z]{2,4}( [a-z]{2,4}){2}\\."})"}};
  const auto lines = generate(options, R"({"prompt": "Once upon a time"})");
  REQUIRE(lines.size() == 1);
  CHECK(lines[0]["finish_reason"] == "stop");
  const auto text = lines[0]["text"].get<std::string>();
  CHECK(std::regex_match(text, std::regex("[a-z]{2,4}( [a-z]{2,4}){2}\\.")));
  REQUIRE(lines[0]["top_logprobs"].size() == lines[0]["tokens"].size());
  for (const json& each : lines[0]["top_logprobs"]) {
    REQUIRE(each.size() == 2);
    CHECK(each[0]["logprob"].get<double>() >= each[1]["logprob"].get<double>());
    CHECK(each[0]["token"].is_number_integer());
  }
}

TEST_CASE("flags name processors, and their options are checked before a model is read",
          "[actors][cpu]") {
  CHECK(processor_of_flag("regex={\"pattern\":\"a=b\"}").kind == "regex");
  CHECK(processor_of_flag("regex={\"pattern\":\"a=b\"}").options == R"({"pattern":"a=b"})");
  CHECK(bias_of_flag("5:-2.5").options == R"({"bias":{"5":-2.5}})");
  CHECK_THROWS_WITH(bias_of_flag("5"), "--logit-bias: ID:BIAS is wanted, not 5");
  CHECK_THROWS_WITH(processor_of_flag("regex"), "--processor: KIND={...} is wanted, not regex");
  GenerateOptions options{.model = "none"};
  options.sampling.processors = {bias_of_flag("5:1"), processor_of_flag("regex={}")};
  CHECK_THROWS_WITH(generate(options, ""), "generate: processors[1]: regex: pattern: is missing");
  options.sampling.processors = {bias_of_flag("5:x")};
  CHECK_THROWS_WITH(generate(options, ""),
                    Catch::Contains("processors[0]: logit_bias: the options"));
}

TEST_CASE("generate refuses parameters out of range and missing files", "[actors][cpu]") {
  std::istringstream in;
  std::ostringstream out;
  GenerateOptions options{.model = "no-such-model", .prompts = "no-such-prompts"};
  CHECK_THROWS_AS(run_generate(options, in, out), MissingInput);
  options.prompts = std::string("-");
  CHECK_THROWS_AS(run_generate(options, in, out), MissingInput);
  options.sampling.top_p = 2;
  CHECK_THROWS_AS(run_generate(options, in, out), InvalidArgument);
}

}  // namespace praetor::cli
