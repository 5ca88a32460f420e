#include "core/ledger/ledger.h"

#include <limits>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/ledger/rollout_codec.h"
#include "tests/core/ledger/ledger_fixture.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using Catch::Matchers::Contains;
using testing::complete;
using testing::issue;
using testing::make_batch;
using testing::make_rollout;
using testing::make_score;
using testing::make_step;

TEST_CASE("what is recorded comes back, also from the next owner", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  RolloutRecord rollout = make_rollout(1, 1);
  rollout.model_logprobs = rollout.behavior_logprobs;
  rollout.behavior_logprobs[0] = -std::numeric_limits<float>::infinity();
  rollout.text = std::string("zero \0 byte", 11);
  {
    auto ledger = Ledger::open(dir / "run");
    ledger->begin_stage(0, "ppo");
    ledger->set_fact("seed", "7");
    issue(*ledger, 0, 0, 3, 2);
    const auto done = ledger->record_rollouts(0, std::vector{rollout, make_rollout(0, 0, 0)});
    CHECK(done.added == 2);
    ScoreRecord failed = make_score(1, 1, 0.0);
    failed.score.score.reset();
    failed.score.parts[0].score.reset();
    failed.score.parts[0].error = "timeout after 2 s";
    failed.score.parts[0].verdict = false;
    failed.score.parts.push_back({.name = "gold", .score = 0.0, .not_applicable = true});
    failed.score.parts[0].attributes = {{"helpfulness", 0.1, -0.3}, {"verbosity", 2, 0}};
    ledger->record_scores(0, std::vector{failed, make_score(0, 0, 0.1)});
  }
  auto ledger = Ledger::open(dir / "run");
  CHECK(ledger->recovery().cut_bytes == 0);
  CHECK(ledger->fact("seed") == "7");
  CHECK_FALSE(ledger->fact("speed"));
  CHECK(ledger->rollout(0, {1, 1}) == rollout);
  CHECK(ledger->rollout(0, {0, 0}) == make_rollout(0, 0, 0));
  CHECK_FALSE(ledger->rollout(0, {0, 1}));
  CHECK(ledger->score(0, {0, 0})->score.score == 0.1);
  const auto failed = ledger->score(0, {1, 1});
  REQUIRE(failed);
  CHECK_FALSE(failed->score.score);
  CHECK(failed->score.parts.at(0).error == "timeout after 2 s");
  CHECK(failed->score.parts.at(0).verdict == false);
  const std::vector<AttributeScore> attributes = {{"helpfulness", 0.1, -0.3}, {"verbosity", 2, 0}};
  CHECK((failed->score.parts.at(0).attributes == attributes));
  CHECK(failed->score.parts.at(1).attributes.empty());
  CHECK_FALSE(failed->score.parts.at(0).not_applicable);
  CHECK(failed->score.parts.at(1).not_applicable);
  CHECK(failed->worker == "reward-0");
  CHECK(ledger->next_ordinal(0) == 3);
  CHECK(ledger->last_prompt(0)->row == 2);
  CHECK(ledger->next_ordinal(1) == 0);
  CHECK(ledger->stages().at(0).name == "ppo");
  CHECK(ledger->verify().empty());
}

TEST_CASE("a second completion is ignored and counted, the first one stays",
          "[core][cpu][ledger]") {
  const testing::TempDir dir;
  auto ledger = Ledger::open(dir / "run");
  ledger->begin_stage(0, "ppo");
  issue(*ledger, 0, 0, 2, 1);
  ledger->record_rollouts(0, std::vector{make_rollout(0, 0)});
  RolloutRecord other = make_rollout(0, 0);
  other.text = "other";
  const auto again =
      ledger->record_rollouts(0, std::vector{other, make_rollout(1, 0), make_rollout(1, 0)});
  CHECK(again.added == 1);
  CHECK(again.ignored == 2);
  CHECK(ledger->rollout(0, {0, 0})->text == make_rollout(0, 0).text);

  CHECK(ledger->record_scores(0, std::vector{make_score(0, 0, 1.0)}).added == 1);
  CHECK(ledger->record_scores(0, std::vector{make_score(0, 0, 2.0)}).ignored == 1);
  CHECK(ledger->score(0, {0, 0})->score.score == 1.0);

  CHECK(ledger->drop(0, std::vector{SampleId{1, 0}}, "too long").added == 1);
  CHECK(ledger->drop(0, std::vector{SampleId{1, 0}}, "stale").ignored == 1);
  CHECK(ledger->samples(0, 1, 2).at(0).drop_reason == "too long");
  CHECK(ledger->record_scores(0, std::vector{make_score(1, 0, 2.0)}).ignored == 1);
}

TEST_CASE("every sample is in exactly one part of the balance", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  auto ledger = Ledger::open(dir / "run");
  ledger->begin_stage(0, "ppo");
  issue(*ledger, 0, 0, 6, 2);     // 12 samples
  complete(*ledger, 0, 0, 4, 2);  // 8 scored
  ledger->record_rollouts(0, std::vector{make_rollout(4, 0)});
  ledger->drop(0, std::vector{SampleId{3, 0}, SampleId{3, 1}}, "all equal");
  ledger->drop(0, std::vector{SampleId{5, 1}}, "prompt too long");
  ledger->record_batch(0, make_batch(1, 0, 1, 2));
  ledger->record_batch(0, make_batch(2, 1, 2, 2));
  ledger->record_step(0, make_step(1));
  const Balance sum = ledger->balance(0);
  CHECK(sum.prompts == 6);
  CHECK(sum.issued == 12);
  CHECK(sum.trained == 2);
  CHECK(sum.in_batch == 2);
  CHECK(sum.ready == 2);
  CHECK(sum.awaiting_score == 1);
  CHECK(sum.awaiting_rollout == 2);
  CHECK(sum.dropped == std::map<std::string, int64_t>{{"all equal", 2}, {"prompt too long", 1}});
  CHECK(sum.pending() == 7);
  CHECK(sum.holds());
  CHECK(ledger->verify().empty());

  const auto states = ledger->samples(0, 0, 6);
  REQUIRE(states.size() == 12);
  CHECK(states[0].step == 1);
  CHECK(states[7].drop_reason == "all equal");
  CHECK(states[7].scored);
  CHECK(states[8].rolled_out);
  CHECK_FALSE(states[8].scored);
  CHECK_FALSE(states[9].rolled_out);
  CHECK(states[5].score == 2.0);
}

TEST_CASE("an offline stage trains rows without rollouts", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  auto ledger = Ledger::open(dir / "run");
  ledger->begin_stage(0, "sft", StageForm::kOffline);
  issue(*ledger, 0, 0, 5, 1);
  ledger->record_batch(0, make_batch(1, 0, 2, 1));
  ledger->record_step(0, make_step(1));
  ledger->drop(0, std::vector{SampleId{2, 0}}, "longer than max_length");
  const Balance sum = ledger->balance(0);
  CHECK(sum.trained == 2);
  CHECK(sum.ready == 2);
  CHECK(sum.awaiting_rollout == 0);
  CHECK(sum.holds());
  CHECK(ledger->verify().empty());
  CHECK_THROWS_AS(ledger->record_rollouts(0, std::vector{make_rollout(0, 0)}), InternalError);
  ledger->finish_stage(0, "checkpoints/sft/step-000001");
  CHECK(ledger->stages().at(0).finished);
}

TEST_CASE("records that break the order of things are refused whole", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  auto ledger = Ledger::open(dir / "run");
  CHECK_THROWS_AS(issue(*ledger, 0, 0, 1, 1), InternalError);  // no stage
  ledger->begin_stage(0, "ppo");
  ledger->begin_stage(0, "ppo");
  CHECK_THROWS_WITH(ledger->begin_stage(0, "dpo"), Contains("recorded as \"ppo\""));
  CHECK_THROWS_AS(issue(*ledger, 0, 1, 2, 1), InternalError);  // not the next ordinal
  issue(*ledger, 0, 0, 4, 1);
  complete(*ledger, 0, 0, 3, 1);

  // The good record before the bad one must not stay.
  CHECK_THROWS_WITH(ledger->record_rollouts(0, std::vector{make_rollout(3, 0), make_rollout(9, 0)}),
                    Contains("prompt 9, sample 0: was never issued"));
  CHECK_FALSE(ledger->rollout(0, {3, 0}));
  CHECK_THROWS_WITH(ledger->record_rollouts(0, std::vector{make_rollout(3, 1)}),
                    Contains("the prompt has 1 samples"));
  RolloutRecord bad = make_rollout(3, 0);
  bad.behavior_logprobs.pop_back();
  CHECK_THROWS_WITH(ledger->record_rollouts(0, std::vector{bad}),
                    Contains("behavior_logprobs has 4 values for 5 response tokens"));
  bad = make_rollout(3, 0);
  bad.tokens[1] = int64_t{1} << 31;
  CHECK_THROWS_WITH(ledger->record_rollouts(0, std::vector{bad}),
                    Contains("token 1 is 2147483648"));
  bad = make_rollout(3, 0);
  bad.prompt_length = 9;
  CHECK_THROWS_AS(ledger->record_rollouts(0, std::vector{bad}), InvalidArgument);
  bad = make_rollout(3, 0);
  bad.finish = FinishReason::kCancelled;
  CHECK_THROWS_AS(ledger->record_rollouts(0, std::vector{bad}), InvalidArgument);
  CHECK_THROWS_WITH(ledger->record_scores(0, std::vector{make_score(0, 0, std::nan(""))}),
                    Contains("the score is nan"));
  CHECK_THROWS_AS(ledger->record_scores(0, std::vector{make_score(3, 0, 1.0)}), InvalidArgument);

  CHECK_THROWS_AS(ledger->record_batch(0, make_batch(2, 0, 1, 1)),
                  InternalError);  // not the next step
  CHECK_THROWS_AS(ledger->record_batch(0, make_batch(1, 3, 4, 1)), InternalError);  // no rollout
  CHECK_THROWS_AS(ledger->record_batch(0, make_batch(1, 0, 0, 1)), InternalError);  // empty
  CHECK(ledger->last_batch(0) == 0);
  CHECK(ledger->record_batch(0, make_batch(1, 0, 1, 1)));
  CHECK_FALSE(ledger->record_batch(0, make_batch(1, 0, 1, 1)));  // the same again
  CHECK_THROWS_AS(ledger->record_batch(0, make_batch(1, 1, 2, 1)), InternalError);
  CHECK_THROWS_WITH(ledger->record_batch(0, make_batch(2, 0, 2, 1)),
                    Contains("stands in the batch of step 1 already"));
  CHECK_THROWS_AS(ledger->drop(0, std::vector{SampleId{0, 0}}, "late"), InternalError);
  ledger->drop(0, std::vector{SampleId{2, 0}}, "tie");
  CHECK_THROWS_WITH(ledger->record_batch(0, make_batch(2, 2, 3, 1)), Contains("was dropped"));
  BatchRecord no_json = make_batch(2, 1, 2, 1);
  no_json.manifest = "rank 0";
  CHECK_THROWS_AS(ledger->record_batch(0, no_json), InvalidArgument);

  CHECK_THROWS_AS(ledger->record_step(0, make_step(2)), InternalError);
  CHECK(ledger->record_step(0, make_step(1)) == StepOutcome::kNew);
  CHECK_THROWS_AS(ledger->record_step(0, make_step(1)), InternalError);  // twice
  CHECK_THROWS_AS(ledger->record_step(0, make_step(2)), InternalError);  // no batch
  CHECK(ledger->balance(0).holds());
  CHECK(ledger->verify().empty());
}

TEST_CASE("a transaction is all or nothing", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  auto ledger = Ledger::open(dir / "run");
  ledger->begin_stage(0, "ppo");
  issue(*ledger, 0, 0, 2, 1);
  const auto size = std::filesystem::exists(dir / "run/rollouts/000001.seg");
  CHECK_FALSE(size);
  CHECK_THROWS_AS(ledger->transaction([&] {
    complete(*ledger, 0, 0, 2, 1);
    throw TemporaryError("the caller gave up");
  }),
                  TemporaryError);
  CHECK_FALSE(ledger->rollout(0, {0, 0}));
  // A failure that the caller swallows must not commit the half of it.
  CHECK_THROWS_AS(ledger->transaction([&] {
    complete(*ledger, 0, 0, 1, 1);
    try {
      ledger->record_rollouts(0, std::vector{make_rollout(1, 0), make_rollout(7, 0)});
    } catch (const InvalidArgument&) {
    }
  }),
                  InternalError);
  CHECK(ledger->balance(0).awaiting_rollout == 2);
  ledger->transaction([&] { complete(*ledger, 0, 0, 2, 1); });
  CHECK(ledger->balance(0).ready == 2);
  CHECK(ledger->verify().empty());
}

TEST_CASE("leases are history: closed once, lost when their owner ends", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  LeaseRecord lease;
  lease.kind = LeaseKind::kScore;
  lease.worker = "reward-1";
  lease.issued_at = TimePoint(std::chrono::milliseconds(1700000000123));
  lease.deadline = lease.issued_at + std::chrono::seconds(30);
  lease.items = {{0, 0}, {5, 3}};
  int64_t open_id = 0;
  {
    auto ledger = Ledger::open(dir / "run");
    const int64_t done = ledger->open_lease(lease);
    const int64_t late = ledger->open_lease(lease);
    open_id = ledger->open_lease(lease);
    CHECK(ledger->close_lease(done, LeaseState::kCompleted));
    CHECK_FALSE(ledger->close_lease(done, LeaseState::kExpired));
    CHECK(ledger->close_lease(late, LeaseState::kExpired));
    CHECK_FALSE(ledger->close_lease(12345, LeaseState::kExpired));
    const auto open = ledger->leases(LeaseState::kOpen);
    REQUIRE(open.size() == 1);
    CHECK(open[0].id == open_id);
    CHECK((open[0].items == lease.items));
    CHECK(open[0].deadline == lease.deadline);
    CHECK(open[0].kind == LeaseKind::kScore);
  }
  auto ledger = Ledger::open(dir / "run");
  CHECK(ledger->recovery().lost_leases == 1);
  CHECK(ledger->leases(LeaseState::kLost).at(0).id == open_id);
  CHECK(ledger->leases(LeaseState::kCompleted).size() == 1);
  CHECK(ledger->leases(LeaseState::kExpired).size() == 1);
  CHECK_FALSE(ledger->close_lease(open_id, LeaseState::kCompleted));
  CHECK(ledger->open_lease(lease) > open_id);
}

TEST_CASE("one owner at a time, and readers only when none lives", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  CHECK_THROWS_AS(Ledger::open_read_only(dir / "run"), MissingInput);
  {
    auto owner = Ledger::open(dir / "run");
    testing::two_steps(*owner);
    CHECK_THROWS_WITH(Ledger::open_read_only(dir / "run"),
                      Contains("another process owns this ledger"));
    CHECK_THROWS_AS(Ledger::open(dir / "run"), TemporaryError);
  }
  {
    const auto reader = Ledger::open_read_only(dir / "run");
    CHECK(reader->balance(0).trained == 8);
    CHECK(reader->rollout(0, {3, 1}) == make_rollout(3, 1));
    CHECK(reader->verify().empty());
    CHECK_THROWS_AS(reader->set_fact("a", "b"), InternalError);
    CHECK_THROWS_AS(reader->open_lease({}), InternalError);
  }
  CHECK(Ledger::open(dir / "run")->last_step(0) == 2);
}

TEST_CASE("a foreign or later file is not taken for a ledger", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  std::filesystem::create_directories(dir / "run");
  write_file_atomic(dir / "run/ledger.db", std::string(4096, 'x'));
  CHECK_THROWS_WITH(Ledger::open(dir / "run"), Contains("not a Praetor ledger"));
  write_file_atomic(dir / "file", "x");
  CHECK_THROWS_AS(Ledger::open(dir / "file"), IoError);
  CHECK_THROWS_AS(Ledger::open(dir / "other", {.segment_bytes = 0}), InvalidArgument);
}

TEST_CASE(
    "a response of several weights keeps each token's, one of a single weight is stored as ever",
    "[core][cpu][ledger]") {
  RolloutRecord rollout = make_rollout(1, 0);
  const std::string plain = encode_rollout(0, rollout);
  CHECK(plain[0] == 1);
  const size_t tokens = rollout.behavior_logprobs.size();
  REQUIRE(tokens >= 2);
  rollout.versions.assign(tokens, rollout.weight_version + 2);
  rollout.versions.front() = rollout.weight_version;
  const std::string mixed = encode_rollout(0, rollout);
  CHECK(mixed[0] == 2);
  CHECK(mixed.size() == plain.size() + 4 + 2 * 12);
  CHECK(decode_rollout(mixed).rollout == rollout);
  for (size_t bytes = plain.size(); bytes < mixed.size(); ++bytes)
    CHECK_THROWS_AS(decode_rollout(mixed.substr(0, bytes)), DataError);
  std::string wrong = mixed;
  ++wrong[wrong.size() - 4];  // the last run is longer than the response
  CHECK_THROWS_WITH(decode_rollout(wrong), Contains("versions for"));

  const testing::TempDir dir;
  const auto ledger = Ledger::open(dir / "run");
  ledger->begin_stage(0, "ppo");
  issue(*ledger, 0, 0, 2, 1);
  RolloutRecord falling = rollout;
  falling.versions.back() = rollout.weight_version - 1;
  CHECK_THROWS_WITH(ledger->record_rollouts(0, std::vector{falling}), Contains("are to rise"));
  RolloutRecord later = rollout;
  later.versions.front() = rollout.weight_version + 1;
  CHECK_THROWS_AS(ledger->record_rollouts(0, std::vector{later}), InvalidArgument);
  ledger->record_rollouts(0, std::vector{rollout});
  CHECK(ledger->rollout(0, {1, 0}) == rollout);
  CHECK(ledger->verify().empty());
}

}  // namespace praetor
