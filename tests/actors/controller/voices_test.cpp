#include <algorithm>

#include "actors/controller/controller.h"
#include "actors/train/experience_builder.h"
#include "core/base/error.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

constexpr Voice kMixed{.kind = VoiceKind::kMixture, .share = 0.25};

std::vector<Prompt> prompts() {
  std::vector<Prompt> out;
  for (int64_t i = 0; i < 4; ++i) {
    out.push_back({.tokens = {i, i + 1}, .text = str("prompt ", i), .task = i == 1 ? "math" : ""});
    out.back().answered.tokens = {i, i + 1, 7, 2};
    out.back().answer = "seven";
  }
  return out;
}

OnlinePlan plan(std::vector<VoicePlan> others, ScorePlan scores = ScorePlan::kScalar) {
  return {.job_seed = 1,
          .prompts_per_step = 2,
          .samples_per_prompt = 2,
          .others = std::move(others),
          .scores = scores,
          .shuffle = false};
}

class Desk {
 public:
  explicit Desk(OnlinePlan plan) : ledger_(Ledger::open(dir_.path())), plan_(std::move(plan)) {
    ledger_->begin_stage(0, "nash", StageForm::kOnline);
    reopen();
  }
  void reopen() {
    controller_ = std::make_unique<Controller>(
        *ledger_, plan_, prompts(), prompts(), [](const auto&) { return std::nullopt; });
  }
  Controller& operator*() { return *controller_; }
  Controller* operator->() { return controller_.get(); }
  Ledger& ledger() { return *ledger_; }

  /// Generates what waits; each response is one token, its sample's index.
  std::vector<GenerateItem> generate() {
    std::vector<GenerateItem> seen;
    while (const auto lease = controller_->lease("r0", LeaseKind::kGenerate, 3)) {
      Completion done{.worker = "r0",
                      .lease = lease->id,
                      .purpose = lease->purpose,
                      .weights = lease->weights.version};
      for (const GenerateItem& item : lease->generate) {
        Generation made;
        made.tokens = {item.id.sample};
        made.behavior_logprobs = {-0.5F};
        made.text = str("answer ", item.id.sample);
        made.finish = FinishReason::kStop;
        done.rollouts.push_back({item.id, made});
        seen.push_back(item);
      }
      controller_->complete(std::move(done));
    }
    return seen;
  }

  /// Scores what waits with the sample's index, and prefers it to each rival with 3/4.
  std::vector<ScoreItem> score() {
    std::vector<ScoreItem> seen;
    while (const auto lease = controller_->lease("j0", LeaseKind::kScore, 2)) {
      Completion done{.worker = "j0",
                      .lease = lease->id,
                      .purpose = lease->purpose,
                      .weights = lease->weights.version};
      for (const ScoreItem& item : lease->score) {
        Score score;
        score.score = item.id.sample;
        for (const Rival& rival : item.rivals) score.preferences.push_back({rival.sample, 0.75});
        done.scores.push_back({item.id, score});
        seen.push_back(item);
      }
      controller_->complete(std::move(done));
    }
    return seen;
  }

 private:
  testing::TempDir dir_;
  std::unique_ptr<Ledger> ledger_;
  OnlinePlan plan_;
  std::unique_ptr<Controller> controller_;
};

double metric_of(const StepBatch& batch, const std::string& name) {
  for (const auto& [key, value] : batch.metrics) {
    if (key == name) return value;
  }
  FAIL("no metric " << name);
  return 0;
}

}  // namespace

TEST_CASE("other voices answer after the policy and are told apart", "[actors][cpu]") {
  Desk desk(plan({{.voice = kMixed}, {.voice = {}, .greedy = true}}));
  desk->open_step(1, {.version = {.step = 0}});
  const auto items = desk.generate();
  REQUIRE(items.size() == 8);
  for (const GenerateItem& item : items) {
    CAPTURE(item.id.sample);
    CHECK(item.voice == (item.id.sample == 2 ? kMixed : Voice()));
    CHECK(item.greedy == (item.id.sample == 3));
  }
  desk.score();
  const ClosedBatch* closed = desk->close_step();
  REQUIRE(closed);
  REQUIRE(closed->samples.size() == 8);
  std::vector<int32_t> voices;
  for (const ScoredSample& sample : closed->samples) voices.push_back(sample.rollout.voice);
  CHECK(voices == std::vector<int32_t>{0, 0, 1, 2, 0, 0, 1, 2});
  const StepBatch batch = closed->slice({}, 4);
  CHECK(metric_of(batch, "reward/mean") == 0.5);
  CHECK(metric_of(batch, "reward/others_mean") == 2.5);
  CHECK(make_experience(batch.samples).voice == voices);

  // An evaluation asks the policy alone.
  desk->commit_step("{}", {.step = 1, .loss_digest = "l", .gradient_digest = "g"});
  desk->open_evaluation(1, 2, {.version = {.step = 1}});
  for (const GenerateItem& item : desk.generate()) CHECK(item.voice == Voice());
}

TEST_CASE("pairwise scoring waits for the whole prompt and shows the rivals", "[actors][cpu]") {
  for (const ScorePlan scores : {ScorePlan::kPairs, ScorePlan::kRivals}) {
    Desk desk(plan({{.voice = kMixed}}, scores));
    desk->open_step(1, {.version = {.step = 0}});
    const auto first = desk->lease("r0", LeaseKind::kGenerate, 2);
    REQUIRE(first);
    Completion part{.worker = "r0", .lease = first->id, .weights = first->weights.version};
    for (const GenerateItem& item : first->generate) {
      Generation made;
      made.tokens = {1};
      made.behavior_logprobs = {-1.0F};
      made.finish = FinishReason::kStop;
      part.rollouts.push_back({item.id, made});
    }
    desk->complete(part);
    CHECK_FALSE(desk->lease("j0", LeaseKind::kScore, 9));
    desk.generate();
    // Also by a controller that took the run over.
    desk.reopen();
    desk->open_step(1, {.version = {.step = 0}});
    std::map<int32_t, std::vector<int32_t>> rivals;
    for (const ScoreItem& item : desk.score()) {
      auto& of = rivals[item.id.sample];
      of.clear();
      for (const Rival& rival : item.rivals) of.push_back(rival.sample);
    }
    using Rivals = std::map<int32_t, std::vector<int32_t>>;
    const Rivals wanted = scores == ScorePlan::kPairs ? Rivals{{0, {1, 2}}, {1, {2}}, {2, {}}}
                                                      : Rivals{{0, {2}}, {1, {2}}, {2, {}}};
    CHECK(rivals == wanted);
    const ClosedBatch* closed = desk->close_step();
    REQUIRE(closed);
    const Experience e = make_experience(closed->samples);
    CHECK(e.preferences[0].back() == Preference{2, 0.75});
    // What the ledger gives back is what was recorded.
    CHECK(desk.ledger().score(0, {0, 0})->score.preferences.back() == Preference{2, 0.75});
  }
}

TEST_CASE("a task may want another number of samples", "[actors][cpu]") {
  OnlinePlan wanted = plan({{.voice = kMixed}});
  wanted.samples_by_task = {{"math", 3}};
  Desk desk(wanted);
  desk->open_step(1, {.version = {.step = 0}});
  std::map<int64_t, int64_t> count;
  for (const GenerateItem& item : desk.generate()) {
    ++count[item.id.ordinal];
    CHECK((item.voice == kMixed) == (item.id.sample == (item.id.ordinal == 1 ? 3 : 2)));
  }
  CHECK(count == std::map<int64_t, int64_t>{{0, 3}, {1, 4}});
}

TEST_CASE("a row's own answer is recorded without a worker", "[actors][cpu]") {
  Desk desk(plan({{.voice = {}, .from_data = true}}));
  desk->open_step(1, {.version = {.step = 0}});
  const auto items = desk.generate();
  CHECK(items.size() == 4);
  CHECK(std::ranges::none_of(items, [](const GenerateItem& i) { return i.id.sample == 2; }));
  const auto scored = desk.score();
  CHECK(std::ranges::count_if(
            scored, [](const ScoreItem& i) { return i.sample.response == "seven"; }) == 2);
  const ClosedBatch* closed = desk->close_step();
  REQUIRE(closed);
  const RolloutRecord& answer = closed->samples[2].rollout;
  CHECK(answer.voice == 1);
  CHECK(answer.tokens == std::vector<int64_t>{0, 1, 7, 2});
  CHECK(answer.prompt_length == 2);
  CHECK(answer.worker == "data");
}

}  // namespace praetor
