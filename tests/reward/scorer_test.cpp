#include "reward/scorer.h"

#include <algorithm>
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
  config.cache_entries = 0;
  return Scorer::make(config, no_stages, {.threads = threads});
}

/// From a section as it stands in a job file.
std::unique_ptr<Scorer> scorer_from(const std::string& yaml) {
  const auto document = YamlDocument::parse(yaml, "r.yaml");
  const RewardConfig config = RewardConfig::from_yaml(document->root());
  document->throw_if_errors();
  return Scorer::make(config, no_stages, {.threads = 2});
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

/// Fails the first `failures` times that it is asked.
class Shaky final : public Judge {
 public:
  explicit Shaky(int failures) : failures_(failures) {}
  Verdict judge(const Sample&, const Deadline&) const override {
    if (calls++ < failures_) throw DataError("shaken");
    return {.score = 1.0, .passed = true};
  }
  mutable std::atomic<int> calls{0};

 private:
  int failures_;
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

TEST_CASE("constraints make satisfied, monitors nothing, and neither enters the score",
          "[reward][cpu]") {
  const auto scorer = scorer_from(R"(
on_error: value
error_value: -7
parts:
  - {name: value, kind: regex, pattern: good, weight: 2}
  - {name: polite, kind: regex, pattern: please, use: constraint}
  - {name: right, kind: math_answer, missing: skip, use: constraint}
  - {name: watched, kind: math_answer, use: monitor}
)");
  const auto scores = score(*scorer,
                            {response("good please"),
                             response("good"),
                             response("please 18", R"({"answer": 18})"),
                             response("please 17", R"({"answer": 18})"),
                             response("good please", "[]")});
  // What does not apply counts as satisfied; the monitor's failure costs nothing.
  CHECK(scores[0].score == 2.0);
  CHECK(scores[0].satisfied == true);
  CHECK(scores[0].parts[2].not_applicable);
  CHECK(scores[0].parts[3].error == "the row has no field metadata.answer");
  CHECK(scores[1].score == 2.0);
  CHECK(scores[1].satisfied == false);
  CHECK(scores[2].score == 0.0);
  CHECK(scores[2].satisfied == true);
  CHECK(scores[3].satisfied == false);
  // A constraint that failed leaves satisfied open, and on_error applies as to any part.
  CHECK_FALSE(scores[4].satisfied);
  CHECK(scores[4].score == -7.0);
  CHECK(scores[0].parts[1].weight == 0.0);
  CHECK(scorer->counters()[2].not_applicable == 2);
  CHECK(scorer->counters()[3].monitor);
  const auto without = scorer_from("parts: [{kind: length, min: 0}]");
  CHECK_FALSE(score(*without, {response("a")})[0].satisfied);
}

TEST_CASE("a part says for itself what its failure means", "[reward][cpu]") {
  const std::vector<Sample> samples = {response("18"), response("18", R"({"answer": 18})")};
  const auto one = [&](const std::string& keys) {
    const auto scorer = scorer_from(
        "{on_error: value, error_value: -7, parts: [{kind: length, min: "
        "0}, {kind: math_answer, " +
        keys + "}]}");
    return score(*scorer, samples);
  };
  CHECK(one("weight: 2")[0].score == -7.0);  // the section's: the whole score
  CHECK(one("weight: 2")[1].score == 3.0);
  CHECK(one("weight: 2, on_error: value, error_value: 0.25")[0].score == 1.5);  // its own summand
  CHECK_FALSE(one("weight: 2, on_error: drop")[0].score);
  CHECK_THROWS_WITH(one("on_error: fail"),
                    "sample 0: rewards part \"math_answer\": the row has no field metadata.answer");
  const auto violated = one("use: constraint, on_error: violated");
  CHECK(violated[0].satisfied == false);
  CHECK(violated[0].score == 1.0);
  CHECK(violated[1].satisfied == true);
  CHECK_FALSE(violated[0].parts[1].score);  // the part itself stays without one
}

TEST_CASE("a judge that failed is tried again as often as is said", "[reward][cpu]") {
  for (const auto& [retries, failures] :
       std::vector<std::pair<int, int>>{{0, 0}, {0, 1}, {2, 2}, {2, 3}}) {
    const auto judge = std::make_shared<Shaky>(failures);
    PartConfig shaky = part("shaky", 1.0, judge);
    shaky.retries = retries;
    const auto scorer = scorer_of({shaky});
    const auto scores = score(*scorer, {response("a")});
    INFO(retries << " retries, " << failures << " failures");
    CHECK(scores[0].score.has_value() == (failures <= retries));
    CHECK(scores[0].parts[0].error == (failures <= retries ? "" : "shaken"));
    CHECK(scores[0].parts[0].retries == std::min(retries, failures));
    CHECK(judge->calls == std::min(retries, failures) + 1);
    CHECK(scorer->counters()[0].retries == std::min(retries, failures));
  }
  PartConfig slow = part("slow", 1.0, std::make_shared<Endless>());
  slow.timeout = 5ms;
  slow.retries = 0;
  CHECK(score(*scorer_of({slow}), {response("a")})[0].parts[0].error == "timeout after 5 ms");
}

TEST_CASE("each row is scored by the parts of its task and those of all", "[reward][cpu]") {
  const auto scorer = scorer_from(R"(
parts: [{name: any, kind: length, min: 0}]
tasks:
  math: {parts: [{name: sum, kind: math_answer, weight: 5}]}
  chat: {parts: [{name: kind, kind: regex, pattern: please, use: constraint}]}
)");
  const auto scores = score(*scorer,
                            {response("18", R"({"task": "math", "answer": 18})"),
                             response("please", R"({"task": "chat"})")});
  CHECK(scores[0].score == 6.0);
  CHECK(scores[0].task == "math");
  CHECK_FALSE(scores[0].satisfied);
  REQUIRE(scores[0].parts.size() == 2);
  CHECK(scores[0].parts[1].name == "sum");
  CHECK(scores[1].score == 1.0);
  CHECK(scores[1].task == "chat");
  CHECK(scores[1].satisfied == true);
  REQUIRE(scores[1].parts.size() == 2);
  CHECK(scores[1].parts[1].name == "kind");
  CHECK(scorer->counters()[0].seen() == 2);
  CHECK(scorer->counters()[1].seen() == 1);  // of its own rows alone
  CHECK(scorer->counters()[2].seen() == 1);
  CHECK_THROWS_WITH(score(*scorer, {response("", R"({"task": "maths"})")}),
                    "sample 0: unknown task \"maths\"; one of math, chat is wanted");
  // Counted again by name, as the controller does.
  std::vector<PartCounters> counters = empty_counters(RewardConfig());
  CHECK(counters.empty());
  for (const PartCounters& one : scorer->counters()) counters.push_back({.name = one.name});
  for (const Score& s : scores) count_parts(s.parts, counters);
  CHECK(counters[0].scored == 2);
  CHECK(counters[1].passed == 1);
  CHECK(counters[2].passed == 1);
}

TEST_CASE("a tree is scored with its leaves, and its error names the one that failed",
          "[reward][cpu]") {
  const auto scorer = scorer_from(R"(
parts:
  - name: gated
    kind: gate
    cap: 0.25
    parts:
      - {name: either, kind: any_of, parts: [{name: a, kind: regex, pattern: a},
                                             {name: gold, kind: math_answer}]}
    value: {name: size, kind: length, unit: characters, min: 4, soft: 4}
    weight: 2
)");
  const auto scores = score(*scorer,
                            {response("a 18", R"({"answer": 18})"),
                             response("17", R"({"answer": 18})"),
                             response("a 18")});
  CHECK(scores[0].score == 2.0);
  CHECK(scores[0].parts[0].verdict == true);
  CHECK(scores[1].score == 0.5);  // the value's 1/2, capped at 1/4, twice
  CHECK(scores[1].parts[0].verdict == false);
  CHECK_FALSE(scores[2].score);
  CHECK(scores[2].parts[0].error ==
        "part \"either\": part \"gold\": the row has no field metadata.answer");
  CHECK(scores[2].parts[1].error == "part \"gold\": the row has no field metadata.answer");
  REQUIRE(scores[0].parts.size() == 5);
  CHECK(scores[0].parts[4].name == "size");
  CHECK(scorer->counters()[3].errors == 1);
  CHECK(scorer->counters()[2].passed == 2);
}

TEST_CASE("verdicts are kept for equal samples, and change nothing", "[reward][cpu]") {
  std::vector<Sample> samples;
  for (int i = 0; i < 60; ++i)
    samples.push_back(response(std::string(static_cast<size_t>(i % 6), 'x'), R"({"answer": 1})"));
  samples.push_back(response("x", R"({"answer": 2})"));  // another row
  const auto judge = std::make_shared<Counting>();
  RewardConfig config;
  config.parts = {part("n", 1.0, judge)};
  const auto kept = Scorer::make(config, no_stages, {.threads = 1});
  config.parts = {part("n", 1.0, std::make_shared<Counting>())};
  config.cache_entries = 0;
  const auto fresh = Scorer::make(config, no_stages, {.threads = 1});
  const auto a = score(*kept, samples), b = score(*fresh, samples);
  for (size_t i = 0; i < samples.size(); ++i) {
    CHECK(a[i].score == b[i].score);
    CHECK(a[i].parts[0].verdict == b[i].parts[0].verdict);
    CHECK(a[i].parts[0].cached == (i >= 6 && i < 60));
    CHECK_FALSE(b[i].parts[0].cached);
  }
  CHECK(judge->calls == 7);
  CHECK(kept->counters()[0].cached == 54);
  std::map<std::string, double> metrics;
  for (const auto& [name, value] : part_metrics(kept->counters())) metrics[name] = value;
  CHECK(metrics.at("judge/n/cached") == Approx(54.0 / 61.0));
  // A failure is no verdict: it is tried anew.
  const auto shaky = std::make_shared<Shaky>(2);
  config.parts = {part("s", 1.0, shaky)};
  config.cache_entries = 10;
  const auto again = Scorer::make(config, no_stages, {.threads = 1});
  CHECK_FALSE(score(*again, {response("a")})[0].score);
  CHECK(score(*again, {response("a")})[0].score == 1.0);
}

}  // namespace praetor
