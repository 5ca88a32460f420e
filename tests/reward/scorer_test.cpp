#include "reward/scorer.h"

#include <atomic>
#include <chrono>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "reward/judges/registry.h"
#include "tests/reward/parts.h"
#include "tests/support/catch.h"

namespace praetor {

using testing::make;
using testing::response;
using namespace std::chrono_literals;

namespace {

PartConfig part(const std::string& name, double weight, std::shared_ptr<const Judge> judge) {
  PartConfig out;
  out.name = name;
  out.kind = "test";
  out.weight = weight;
  out.judge = std::move(judge);
  return out;
}

std::filesystem::path no_stages(const std::string& stage) {
  throw InvalidArgument("no stage ", stage);
}

std::unique_ptr<Scorer> scorer_of(std::vector<PartConfig> parts,
                                  OnError on_error = OnError::kDrop,
                                  int threads = 2) {
  RewardConfig config;
  config.parts = std::move(parts);
  config.on_error = on_error;
  config.error_value = -7.0;
  config.timeout = 50ms;
  return Scorer::make(config, no_stages, {.threads = threads});
}

std::vector<Score> score(Scorer& scorer, const std::vector<Sample>& samples) {
  return scorer.score(samples);
}

/// Never done: works until its deadline.
class Endless final : public Judge {
 public:
  Verdict judge(const Sample&, const Deadline& deadline) const override {
    for (;;) deadline.check();
  }
};

/// The length in bytes, and how many calls were at work at once at most.
class Counting final : public Judge {
 public:
  Verdict judge(const Sample& sample, const Deadline&) const override {
    const int now = ++working;
    int seen = most;
    while (seen < now && !most.compare_exchange_weak(seen, now)) {
    }
    ++calls;
    --working;
    return {.score = static_cast<double>(sample.response.size()), .passed = true};
  }
  mutable std::atomic<int> working{0}, most{0}, calls{0};
};

}  // namespace

TEST_CASE("a score is the weighted sum of its parts, in their order", "[reward][cpu]") {
  const auto scorer =
      scorer_of({part("long", 2.0, make("length", "{unit: characters, min: 5, max: 9, soft: 4}")),
                 part("cat", -0.5, make("regex", "{pattern: cat}")),
                 part("seen", 0.0, make("keywords", "{required: [a]}"))});
  const auto scores = score(*scorer, {response("a cat"), response("dog"), response("")});
  REQUIRE(scores.size() == 3);
  CHECK(scores[0].score == 2.0 * 1.0 - 0.5 * 1.0);
  CHECK(scores[1].score == 2.0 * 0.5);
  CHECK(scores[2].score == 0.0);
  REQUIRE(scores[0].parts.size() == 3);
  CHECK(scores[0].parts[0].name == "long");
  CHECK(scores[0].parts[0].weight == 2.0);
  CHECK(scores[0].parts[1].name == "cat");
  CHECK(scores[0].parts[1].score == 1.0);
  CHECK(scores[0].parts[1].verdict == true);
  CHECK(scores[0].parts[1].reason == "found \"cat\" at byte 2");
  CHECK(scores[0].parts[2].score == 1.0);
  CHECK(scores[0].parts[2].error.empty());
  CHECK(score(*scorer, {}).empty());
}

TEST_CASE("a part that fails has an error and no score, and its neighbours go on",
          "[reward][cpu]") {
  const auto scorer = scorer_of(
      {part("math", 1.0, make("math_answer", "{}")), part("any", 1.0, make("length", "{min: 0}"))});
  const auto scores = score(*scorer, {response("18"), response("18", R"({"answer": 18})")});
  CHECK_FALSE(scores[0].score);
  CHECK_FALSE(scores[0].parts[0].score);
  CHECK_FALSE(scores[0].parts[0].verdict);
  CHECK(scores[0].parts[0].error == "the row has no field metadata.answer");
  CHECK(scores[0].parts[1].score == 1.0);
  CHECK(scores[1].score == 2.0);
}

TEST_CASE("on_error says what a failed part makes of the score", "[reward][cpu]") {
  const std::vector<Sample> samples = {response("18", R"({"answer": 18})"), response("18")};
  const auto value = scorer_of({part("math", 3.0, make("math_answer", "{}"))}, OnError::kValue);
  const auto scores = score(*value, samples);
  CHECK(scores[0].score == 3.0);
  CHECK(scores[1].score == -7.0);
  CHECK_FALSE(scores[1].parts[0].score);  // the part itself stays without one
  const auto fail = scorer_of({part("math", 3.0, make("math_answer", "{}"))}, OnError::kFail);
  CHECK_THROWS_WITH(score(*fail, samples),
                    "sample 1: rewards part \"math\": the row has no field metadata.answer");
  CHECK_THROWS_AS(score(*fail, samples), DataError);
}

TEST_CASE("a judge that does not end is given up at its deadline", "[reward][cpu]") {
  const auto scorer = scorer_of({part("slow", 1.0, std::make_shared<Endless>()),
                                 part("any", 1.0, make("length", "{min: 0}"))});
  const auto begin = std::chrono::steady_clock::now();
  const auto scores = score(*scorer, {response("a"), response("b"), response("c")});
  CHECK(std::chrono::steady_clock::now() - begin < 5s);
  for (const Score& s : scores) {
    CHECK(s.parts[0].error == "timeout after 50 ms");
    CHECK(s.parts[0].latency_ms >= 50.0);
    CHECK(s.parts[1].score == 1.0);
    CHECK_FALSE(s.score);
  }
  CHECK(scorer->counters()[0].timeouts == 3);
  CHECK(scorer->counters()[0].errors == 0);
  CHECK(scorer->counters()[1].scored == 3);
}

TEST_CASE("a pattern that explodes is named and the rest is scored", "[reward][cpu]") {
  const auto scorer = scorer_of({part("bad", 1.0, make("regex", "{pattern: '^(a+)+$'}"))});
  const auto scores = score(*scorer, {response(std::string(60, 'a') + "b"), response("aa")});
  const std::string error = scores[0].parts[0].error;
  INFO(error);
  CHECK((error == "match limit of 1000000 steps reached" || error == "timeout after 50 ms"));
  CHECK(scores[1].score == 1.0);
}

TEST_CASE("broken UTF-8 is an error of every part", "[reward][cpu]") {
  const auto scorer = scorer_of({part("any", 1.0, make("length", "{min: 0}"))});
  Sample prompt = response("fine");
  prompt.prompt = "\xc0\x80";
  const auto scores = score(*scorer, {response("a\xff"), prompt, response("fine")});
  CHECK(scores[0].parts[0].error == "the response is not valid UTF-8");
  CHECK(scores[1].parts[0].error == "the prompt is not valid UTF-8");
  CHECK_FALSE(scores[0].score);
  CHECK_FALSE(scores[1].score);
  CHECK(scores[2].score == 1.0);
  CHECK(scorer->counters()[0].errors == 2);
}

TEST_CASE("what is not applicable adds nothing and is counted", "[reward][cpu]") {
  const auto scorer = scorer_of({part("math", 1.0, make("math_answer", "{missing: skip}"))});
  const auto scores = score(*scorer,
                            {response("18"),
                             response("18", R"({"answer": 18})"),
                             response("17", R"({"answer": 18})"),
                             response("18", "[]")});
  CHECK(scores[0].score == 0.0);
  CHECK_FALSE(scores[0].parts[0].verdict);
  CHECK(scores[0].parts[0].reason == "not applicable: the row has no field metadata.answer");
  const PartCounters& counters = scorer->counters()[0];
  CHECK(counters.scored == 3);
  CHECK(counters.passed == 1);
  CHECK(counters.failed == 1);
  CHECK(counters.not_applicable == 1);
  CHECK(counters.errors == 1);
  CHECK(counters.first_error == "the metadata is not a JSON object: []");
  std::map<std::string, double> metrics;
  for (const auto& [name, value] : part_metrics(scorer->counters())) metrics[name] = value;
  CHECK(metrics.at("reward/math/mean") == 0.5);  // of the two it could judge
  CHECK(metrics.at("judge/math/pass") == 0.5);
  CHECK(metrics.at("judge/math/na") == 0.25);
  CHECK(metrics.at("judge/math/error") == 0.25);
  CHECK(metrics.at("judge/math/timeout") == 0.0);
  CHECK(metrics.at("judge/math/latency_ms") >= 0.0);
  scorer->reset_counters();
  CHECK(part_metrics(scorer->counters()).empty());
  CHECK(scorer->counters()[0].seen() == 0);
}

TEST_CASE("every sample is judged once, and scores do not depend on the threads", "[reward][cpu]") {
  std::vector<Sample> samples;
  for (int i = 0; i < 500; ++i)
    samples.push_back(response(std::string(static_cast<size_t>(i % 17), 'x')));
  std::vector<double> first;
  for (const int threads : {1, 3}) {
    const auto judge = std::make_shared<Counting>();
    const auto scorer = scorer_of({part("n", 1.0, judge)}, OnError::kDrop, threads);
    std::vector<double> values;
    for (const Score& s : score(*scorer, samples)) values.push_back(*s.score);
    CHECK(judge->calls == 500);
    CHECK(judge->most <= threads);
    if (threads == 1) first = values;
    CHECK(values == first);
    CHECK(values[16] == 16.0);
  }
}

}  // namespace praetor
