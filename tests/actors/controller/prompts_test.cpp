#include "actors/controller/prompts.h"

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

}  // namespace praetor
