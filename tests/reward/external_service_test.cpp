#include "reward/external_service.h"

#include <atomic>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/deadline.h"
#include "core/base/error.h"
#include "reward/part_counters.h"
#include "reward/scorer.h"
#include "tests/reward/parts.h"
#include "tests/support/catch.h"

namespace praetor {

using std::chrono::milliseconds;
using testing::response;

namespace {

/// What a fake service was asked, and what it is to say.
struct Script {
  std::mutex mutex;
  std::string version = "1";
  std::vector<std::vector<std::string>> calls;  ///< responses of each call
  std::vector<milliseconds> timeouts;
  std::map<std::string, int> failures;  ///< of a response: how often it is not answered
  int deaf = 0;                         ///< calls of Describe that fail
  int described = 0;
};

/// The score is the number of bytes; "error", "nan", "no" and "none" get other answers.
ScorerAnswer answer_to(const std::string& text) {
  if (text == "error") return {.error = "not today"};
  if (text == "none") return {};
  if (text == "nan") return {.score = std::numeric_limits<double>::quiet_NaN()};
  if (text == "no") return {.score = 2.0, .satisfied = false, .reason = "no means no"};
  return {.score = static_cast<double>(text.size())};
}

class Fake final : public ScorerService {
 public:
  explicit Fake(Script& script) : script_(script) {}

  ScorerIdentity describe(milliseconds timeout) override {
    const std::lock_guard lock(script_.mutex);
    script_.timeouts.push_back(timeout);
    ++script_.described;
    if (script_.deaf-- > 0) throw TemporaryError("nobody answers at fake:1");
    return {.name = "fake", .version = script_.version};
  }

  ScorerReply score(std::span<const Sample* const> samples, milliseconds timeout) override {
    const std::lock_guard lock(script_.mutex);
    script_.timeouts.push_back(timeout);
    ScorerReply reply{.version = script_.version, .answers = {}};
    std::vector<std::string> call;
    bool late = false;
    for (const Sample* sample : samples) {
      const std::string& text = sample->response;
      call.push_back(text);
      late = late || text == "late";
      const bool fails = script_.failures[text]-- > 0;
      reply.answers.push_back(fails ? std::nullopt : std::optional(answer_to(text)));
    }
    script_.calls.push_back(std::move(call));
    if (late) throw TimeoutError("timeout after 2000 ms at fake:1");
    return reply;
  }

 private:
  Script& script_;
};

/// The parts of samples with these responses, scored by a service alone, one call at a time.
class Bench {
 public:
  explicit Bench(Script& script,
                 const std::string& keys = "batch: 3",
                 const std::string& section = "cache_entries: 100") {
    const auto document = YamlDocument::parse(
        str("{", section, ", parts: [{kind: external, address: 'fake:1', ", keys, "}]}"), "r.yaml");
    const RewardConfig config = RewardConfig::from_yaml(document->root());
    document->throw_if_errors();
    const auto connect = [&](const std::string& address) -> std::unique_ptr<ScorerService> {
      CHECK(address == "fake:1");
      return std::make_unique<Fake>(script);
    };
    scorer_ = Scorer::make(config,
                           [](const std::string&) { return std::filesystem::path(); },
                           {.threads = 1, .connect = connect});
  }

  std::vector<PartScore> operator()(const std::vector<std::string>& texts) {
    std::vector<Sample> samples;
    for (const std::string& text : texts) samples.push_back(response(text));
    return parts(samples);
  }
  std::vector<PartScore> parts(const std::vector<Sample>& samples) {
    std::vector<PartScore> out;
    for (Score& score : scorer_->score(samples)) out.push_back(std::move(score.parts.at(0)));
    return out;
  }
  Scorer& scorer() { return *scorer_; }

 private:
  std::unique_ptr<Scorer> scorer_;
};

using Calls = std::vector<std::vector<std::string>>;

}  // namespace

TEST_CASE("a service is asked in batches, and its answers become verdicts", "[reward][cpu]") {
  Script script;
  Bench bench(script, "batch: 3, threshold: 2.5");
  const auto parts = bench({"a", "abc", "no", "ab"});
  CHECK(script.calls == Calls{{"a", "abc", "no"}, {"ab"}});
  REQUIRE(parts.size() == 4);
  CHECK(parts[0].score == 1.0);
  CHECK(parts[0].verdict == false);  // below the threshold
  CHECK(parts[1].score == 3.0);
  CHECK(parts[1].verdict == true);
  CHECK(parts[2].score == 2.0);
  CHECK(parts[2].verdict == false);
  CHECK(parts[2].reason == "no means no");
  CHECK(parts[3].score == 2.0);
  CHECK(parts[3].verdict == false);
  CHECK(bench({}).empty());
  CHECK(script.described == 1);  // nothing to ask, no call
}

TEST_CASE("what a service says of itself or of a sample does not spoil the others",
          "[reward][cpu]") {
  Script script;
  Bench bench(script, "batch: 10, retries: 0");
  script.failures["b"] = 1;
  const auto parts = bench({"a", "error", "nan", "none", "b"});
  CHECK(parts[0].score == 1.0);
  CHECK(parts[1].error == "the scorer at fake:1 says: not today");
  CHECK(parts[2].error ==
        "the scorer at fake:1 answered score nan; a finite score or an error is wanted");
  CHECK(parts[3].error ==
        "the scorer at fake:1 answered neither score nor error; a finite score or an error is "
        "wanted");
  CHECK(parts[4].error == "the scorer at fake:1 answered 4 of 5 samples, and not this one");
  for (size_t i = 1; i < parts.size(); ++i) {
    CHECK_FALSE(parts[i].score);
    CHECK_FALSE(parts[i].verdict);
  }
  Sample bare = response("c");
  bare.metadata = "[]";
  CHECK(bench.parts({bare})[0].error == "the metadata is not a JSON object: []");
  bare = response("\xff");
  CHECK(bench.parts({bare})[0].error == "the response is not valid UTF-8");
  CHECK(script.calls.size() == 1);  // neither was sent
}

TEST_CASE("only samples without a verdict are asked about again", "[reward][cpu]") {
  Script script;
  Bench bench(script, "batch: 2, retries: 2");
  script.failures = {{"b", 1}, {"c", 2}, {"d", 3}};
  const auto parts = bench({"a", "b", "c", "d"});
  CHECK(script.calls == Calls{{"a", "b"}, {"c", "d"}, {"b", "c"}, {"d"}, {"c", "d"}});
  CHECK(parts[0].score == 1.0);
  CHECK(parts[0].retries == 0);
  CHECK(parts[1].score == 1.0);
  CHECK(parts[1].error.empty());
  CHECK(parts[1].retries == 1);
  CHECK(parts[2].retries == 2);
  CHECK(parts[2].score == 1.0);
  CHECK(parts[3].retries == 2);
  CHECK(parts[3].error == "the scorer at fake:1 answered 1 of 2 samples, and not this one");
}

TEST_CASE("a call that is late is the error of its samples alone, and counts as a timeout",
          "[reward][cpu]") {
  Script script;
  Bench bench(script, "batch: 2, retries: 0, timeout_ms: 70");
  const auto parts = bench({"a", "late", "b", "c"});
  CHECK(parts[0].error == "timeout after 2000 ms at fake:1");
  CHECK(parts[1].error == parts[0].error);
  CHECK(parts[2].score == 1.0);
  CHECK(parts[3].score == 1.0);
  for (const milliseconds timeout : script.timeouts) CHECK(timeout == milliseconds(70));
  CHECK(bench.scorer().counters()[0].timeouts == 2);
  std::map<std::string, double> metrics;
  for (const auto& [name, value] : part_metrics(bench.scorer().counters())) metrics[name] = value;
  CHECK(metrics.at("judge/external/timeout") == 0.5);
}

TEST_CASE("a service that nobody hears fails every sample, once its tries are over",
          "[reward][cpu]") {
  Script script;
  script.deaf = 2;
  Bench bench(script, "retries: 1");
  const auto parts = bench({"a", "b", "c", "d"});
  for (const PartScore& part : parts) {
    CHECK(part.error == "nobody answers at fake:1");
    CHECK(part.retries == 1);
  }
  CHECK(script.described == 2);  // not once a batch
  CHECK(script.calls.empty());
  script.deaf = 1;
  CHECK(bench({"a"})[0].score == 1.0);  // the second try was heard
}

TEST_CASE("on_error holds for a service as for a judge", "[reward][cpu]") {
  Script script;
  Bench dropped(script, "retries: 0", "on_error: drop");
  const std::vector<Sample> samples = {response("error")};
  CHECK_FALSE(dropped.scorer().score(samples)[0].score);
  Bench value(script, "retries: 0, on_error: value, error_value: -3", "on_error: drop");
  CHECK(value.scorer().score(samples)[0].score == -3.0);
  Bench failing(script, "retries: 0", "on_error: fail");
  CHECK_THROWS_WITH(failing.scorer().score(samples),
                    "sample 0: rewards part \"external\": the scorer at fake:1 says: not today");
}

TEST_CASE("verdicts are kept under the version that gave them", "[reward][cpu]") {
  Script script;
  Bench bench(script);
  bench({"a", "b"});
  const auto again = bench({"b", "c", "a"});
  CHECK(script.calls == Calls{{"a", "b"}, {"c"}});
  CHECK(again[0].cached);
  CHECK(again[0].score == 1.0);
  CHECK(again[0].verdict == true);
  CHECK_FALSE(again[1].cached);
  script.version = "2";
  CHECK_FALSE(bench({"a"})[0].cached);
  CHECK(script.calls.back() == std::vector<std::string>{"a"});
  CHECK(bench({"a"})[0].cached);
  script.version = "1";
  CHECK(bench({"c"})[0].cached);
  // A failure is no verdict.
  bench({"error"});
  CHECK_FALSE(bench({"error"})[0].cached);
}

TEST_CASE("several calls are under way at once", "[reward][cpu]") {
  // Each call waits until another one is there as well.
  struct Pair final : ScorerService {
    ScorerIdentity describe(milliseconds) override { return {"pair", "1"}; }
    ScorerReply score(std::span<const Sample* const> samples, milliseconds) override {
      ++here;
      for (int i = 0; i < 20'000 && here < 2; ++i) std::this_thread::sleep_for(milliseconds(1));
      ScorerReply reply{.version = "1", .answers = {}};
      reply.answers.resize(samples.size(), ScorerAnswer{.score = here >= 2 ? 1.0 : 0.0});
      return reply;
    }
    std::atomic<int> here{0};
  };
  ExternalService service({.address = "pair:1", .batch = 1}, std::make_unique<Pair>());
  const std::vector<Sample> samples = {response("a"), response("b")};
  std::vector<PartScore> out(2);
  VerdictCache cache(0);
  const std::vector<ExternalService::Item> items = {{&samples[0], &out[0]}, {&samples[1], &out[1]}};
  service.score(items, {.timeout = milliseconds(1000), .retries = 0, .threads = 2}, 0, cache);
  CHECK(out[0].score == 1.0);
  CHECK(out[1].score == 1.0);
}

}  // namespace praetor
