#include "actors/controller/prompts.h"

#include <cmath>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

TEST_CASE("rows' own answers and tasks are read, and what is wrong with them is named",
          "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const auto tokenizer = Tokenizer::load(shared / "data" / "stories260K");
  const testing::TempDir dir;
  const auto read = [&](const std::string& text, std::optional<WantedAnswers> answers) {
    write_file_atomic(dir / "p.jsonl", text);
    return read_prompts(dir / "p.jsonl", *tokenizer, {}, "area", answers);
  };
  const std::string good = R"({"prompt": "Once", "baseline": " upon a time", "area": "tales"})";
  const auto prompts = read(good + "\n{\"prompt\": \"One\", \"area\": 3}\n", std::nullopt);
  CHECK(prompts[0].task == "tales");
  CHECK(prompts[1].task.empty());
  CHECK(prompts[0].answered.tokens.empty());

  const WantedAnswers wanted{.end = 2, .longest = 12};
  const auto answered = read(good + "\n", wanted);
  const std::vector<int64_t>& tokens = answered[0].answered.tokens;
  CHECK(answered[0].answer == " upon a time");
  CHECK(tokens.back() == 2);
  REQUIRE(tokens.size() > answered[0].tokens.size());
  CHECK(std::equal(answered[0].tokens.begin(), answered[0].tokens.end(), tokens.begin()));

  const std::string at = (dir / "p.jsonl").string();
  CHECK_THROWS_WITH(read(good + "\n{\"prompt\": \"One\"}\n", wanted),
                    Catch::StartsWith(at + ":2: a row with \"prompt\" and a string \"baseline\""));
  CHECK_THROWS_WITH(read(good + "\n", WantedAnswers{.end = 2, .longest = 1}),
                    Catch::StartsWith(at + ":1: \"baseline\" has ") &&
                        Catch::EndsWith("a response has at most 1 (sampling.max_new_tokens)"));
}

TEST_CASE("prompts asked in directions tell them to the policy and to the rewards",
          "[actors][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const std::shared_ptr<const Tokenizer> tokenizer =
      Tokenizer::load(shared / "data" / "stories260K");
  const testing::TempDir dir;
  write_file_atomic(dir / "p.jsonl", "{\"prompt\": \"Once\", \"id\": 7}\n{\"prompt\": \"Two\"}\n");
  const auto prompts = read_prompts(dir / "p.jsonl", *tokenizer, {}, "task");
  DirectionPlan plan;
  plan.text = TextTemplate::parse("{a} {b}: ");
  const auto ask = asked_in_directions(plan, {}, tokenizer, {.job_seed = 1, .stage = 3});
  const Prompt first = ask(prompts[0], 0, Purpose::kPolicy);
  CHECK(first.text == "Once");  // what rewards read
  const Direction v = plan.draw({.job_seed = 1, .stage = 3, .prompt_ordinal = 0});
  CHECK(direction_of(first.metadata, 2) == std::vector<double>{v[0], v[1]});
  CHECK(first.metadata.starts_with("{\"id\":7,"));
  const std::string told = tokenizer->decode(first.tokens);
  CHECK(told.find(str(std::lround(100 * v[0]), " ", std::lround(100 * v[1]), ": Once")) !=
        std::string::npos);
  CHECK(first.tokens.front() == *tokenizer->bos());

  // The same at its place, another at another place, another in an evaluation.
  CHECK(ask(prompts[0], 0, Purpose::kPolicy).metadata == first.metadata);
  CHECK(ask(prompts[0], 2, Purpose::kPolicy).metadata != first.metadata);
  CHECK(ask(prompts[0], 0, Purpose::kEvaluation).metadata != first.metadata);
}

}  // namespace praetor
