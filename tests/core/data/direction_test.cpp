#include "core/data/direction.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/base/error.h"
#include "tests/core/tokenizer/tiny_tokenizer.h"
#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("a direction of -30 degrees weighs as worked out", "[core][cpu]") {
  // (70, 60) -> 70 cos 30 - 60 / 2, (65, 40) -> 65 cos 30 - 40 / 2: the second is the better one.
  const Direction v = direction_at(-30);
  CHECK(v[0] == Approx(0.866025).epsilon(1e-6));
  CHECK(v[1] == Approx(-0.5));
  CHECK(v[0] * 70 + v[1] * 60 == Approx(30.621778).epsilon(1e-7));
  CHECK(v[0] * 65 + v[1] * 40 == Approx(36.291651).epsilon(1e-7));
}

TEST_CASE("directions depend on seed, stage and prompt, and fill their range", "[core][cpu]") {
  const DirectionPlan plan;
  std::set<double> seen;
  double lowest = 1, sum = 0;
  for (uint64_t i = 0; i < 400; ++i) {
    const SampleKey key{.job_seed = 3, .stage = 2, .prompt_ordinal = i};
    const Direction v = plan.draw(key);
    CHECK(v == plan.draw(key));
    CHECK(v[0] * v[0] + v[1] * v[1] == Approx(1));
    const double angle = std::atan2(v[1], v[0]) * 180 / 3.14159265358979;
    CHECK(angle >= -45.0001);
    CHECK(angle <= 0);
    lowest = std::min(lowest, v[0]);
    sum += angle;
    seen.insert(angle);
  }
  CHECK(seen.size() == 400);
  CHECK(lowest < 0.72);
  CHECK(sum / 400 == Approx(-22.5).margin(2));
  CHECK(plan.draw({.job_seed = 3, .stage = 1}) != plan.draw({.job_seed = 3, .stage = 2}));
  CHECK(plan.draw({.job_seed = 3}) != plan.draw({.job_seed = 4}));
  // What else the key is for does not enter.
  CHECK(plan.draw({.purpose = Purpose::kPolicy}) == plan.draw({.purpose = Purpose::kEvaluation}));
}

TEST_CASE("a direction is told in the system's message, or before a plain prompt", "[core][cpu]") {
  auto document = YamlDocument::parse("text: 'want {a} and {b}. '");
  YamlReader in = document->root();
  const DirectionPlan plan = DirectionPlan::from_yaml(in);
  CHECK(document->errors().empty());
  Row row;
  row.prompt = "Say it";
  TextFormat plain;
  CHECK(plan.ask(row, plain, direction_at(-30)).prompt == "want 87 and -50. Say it");
  CHECK(plan.ask(row, plain, direction_at(0)).prompt == "want 100 and 0. Say it");

  TextFormat wrapped;
  wrapped.wrap_prompt = true;
  wrapped.chat_template = "chatml";
  Row asked = plan.ask(row, wrapped, direction_at(-45));
  REQUIRE(asked.messages.size() == 2);
  CHECK(asked.messages[0].role == "system");
  CHECK(asked.messages[0].content == "want 71 and -71. ");
  CHECK(asked.messages[1].content == "Say it");
  const auto tokenizer = testing::load_tokenizer(testing::tiny_byte_level());
  CHECK(
      prompt_text(asked, *tokenizer, wrapped).starts_with("<|im_start|>system\nwant 71 and -71."));

  row.messages = {{"system", "Be brief."}, {"user", "Hello"}};
  asked = plan.ask(row, plain, direction_at(0));
  REQUIRE(asked.messages.size() == 2);
  CHECK(asked.messages[0].content == "want 100 and 0. \nBe brief.");
}

TEST_CASE("a row carries its direction among its other fields", "[core][cpu]") {
  const std::string metadata = with_direction(R"({"id":7})", direction_at(-30));
  const auto back = direction_of(metadata, 2);
  CHECK(back[0] == direction_at(-30)[0]);  // bit for bit
  CHECK(back[1] == direction_at(-30)[1]);
  CHECK(metadata.starts_with(R"({"id":7,)"));
  for (const char* broken :
       {"{}", "[]", R"({"direction": 1})", R"({"direction": [1]})", R"({"direction": [1, "a"]})"})
    CHECK_THROWS_AS(direction_of(broken, 2), DataError);
}

TEST_CASE("keys of directions that say nothing usable are named", "[core][cpu]") {
  for (const char* text : {"angle: [-45]",
                           "angle: [0, -45]",
                           "angle: [-45, 0, 45]",
                           "angle: [0, 200]",
                           "text: only {a}",
                           "text: '{a} {b} {c}'"}) {
    CAPTURE(text);
    auto document = YamlDocument::parse(text);
    YamlReader in = document->root();
    DirectionPlan::from_yaml(in);
    CHECK(document->errors().size() == 1);
  }
}

}  // namespace praetor
