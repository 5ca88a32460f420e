#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/ledger/ledger.h"
#include "core/ledger/segment.h"
#include "tests/core/ledger/ledger_fixture.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using Catch::Matchers::Contains;
using testing::complete;
using testing::issue;
using testing::make_batch;
using testing::make_step;
namespace fs = std::filesystem;

TEST_CASE("after a rewind the same batches are trained again, once each", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  {
    auto ledger = Ledger::open(dir / "run");
    ledger->begin_stage(0, "ppo");
    ledger->begin_stage(1, "dpo", StageForm::kOffline);
    issue(*ledger, 0, 0, 8, 2);
    complete(*ledger, 0, 0, 8, 2);
    for (int64_t step = 1; step <= 3; ++step) {
      ledger->record_batch(0, make_batch(step, 2 * (step - 1), 2 * step, 2));
      ledger->record_step(0, make_step(step));
    }
    ledger->finish_stage(0, "x");
    issue(*ledger, 1, 0, 4, 1);
    ledger->record_batch(1, make_batch(1, 0, 2, 1));
    ledger->record_step(1, make_step(1));
    ledger->record_checkpoint({0, 1, "checkpoints/ppo/step-000001", true});
    ledger->record_checkpoint({0, 3, "checkpoints/ppo/step-000003", true});
  }
  auto ledger = Ledger::open(dir / "run");
  CHECK(ledger->last_step(0) == 3);
  ledger->rewind(0, 1);
  CHECK(ledger->last_step(0) == 1);
  CHECK(ledger->last_batch(0) == 3);
  CHECK(ledger->last_step(1) == 0);
  CHECK_FALSE(ledger->stages()[0].finished);
  CHECK(ledger->step(0, 2)->replayable);
  CHECK_FALSE(ledger->step(0, 1)->replayable);
  CHECK(ledger->checkpoints().at(0).durable);
  CHECK_FALSE(ledger->checkpoints().at(1).durable);
  Balance sum = ledger->balance(0);
  CHECK(sum.trained == 4);
  CHECK(sum.in_batch == 8);
  CHECK(sum.ready == 4);
  CHECK(sum.holds());
  CHECK(ledger->verify().empty());

  CHECK((ledger->batch(0, 2)->samples == make_batch(2, 2, 4, 2).samples));
  CHECK(ledger->rollout(0, {2, 1}) == testing::make_rollout(2, 1));
  CHECK_FALSE(ledger->record_batch(0, make_batch(2, 2, 4, 2)));
  CHECK_THROWS_AS(ledger->record_step(0, make_step(3)), InternalError);  // 2 is next
  CHECK(ledger->record_step(0, make_step(2)) == StepOutcome::kReplayedIdentical);
  CHECK(ledger->record_step(0, make_step(3, "other")) == StepOutcome::kReplayedDifferent);
  CHECK(ledger->record_batch(0, make_batch(4, 6, 8, 2)));
  CHECK(ledger->record_step(0, make_step(4)) == StepOutcome::kNew);
  sum = ledger->balance(0);
  CHECK(sum.trained == 16);
  CHECK(sum.pending() == 0);
  CHECK(ledger->steps(0).size() == 4);
  CHECK(ledger->verify().empty());

  CHECK_THROWS_WITH(ledger->rewind(0, 9),
                    Contains("stage 0 has 4 steps, so it cannot go on from step 9"));
}

TEST_CASE("a checkpoint cannot be ahead of the steps that were recorded", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  auto ledger = Ledger::open(dir / "run");
  testing::two_steps(*ledger);
  CHECK_THROWS_AS(ledger->record_checkpoint({0, 3, "c", false}), InternalError);
  ledger->record_checkpoint({0, 2, "c", false});
  CHECK_FALSE(ledger->checkpoints().at(0).durable);
  ledger->record_checkpoint({0, 2, "c", true});
  REQUIRE(ledger->checkpoints().size() == 1);
  CHECK(ledger->checkpoints()[0].durable);
  ledger->forget_checkpoint("c");
  CHECK(ledger->checkpoints().empty());
}

TEST_CASE("payload goes when a durable checkpoint covers it, and not before",
          "[core][cpu][ledger]") {
  const testing::TempDir dir;
  auto ledger = Ledger::open(dir / "run", {.segment_bytes = 200});  // about two rollouts a file
  ledger->begin_stage(0, "ppo");
  issue(*ledger, 0, 0, 8, 1);
  complete(*ledger, 0, 0, 8, 1);
  for (int64_t step = 1; step <= 3; ++step) {
    ledger->record_batch(0, make_batch(step, 2 * (step - 1), 2 * step, 1));
    ledger->record_step(0, make_step(step));
  }
  REQUIRE(fs::exists(segment_path(dir / "run/rollouts", 4)));
  CHECK_THROWS_AS(ledger->prune_payload(0, 2), InternalError);
  ledger->record_checkpoint({0, 2, "c2", false});
  CHECK_THROWS_AS(ledger->prune_payload(0, 2), InternalError);
  ledger->record_checkpoint({0, 2, "c2", true});
  CHECK_THROWS_AS(ledger->prune_payload(0, 3), InternalError);
  CHECK(ledger->prune_payload(0, 2) > 0);
  CHECK_FALSE(fs::exists(segment_path(dir / "run/rollouts", 1)));
  CHECK_THROWS_WITH(ledger->rollout(0, {0, 0}), Contains("was pruned"));
  CHECK(ledger->samples(0, 0, 1).at(0).pruned);
  // Everything that steps after 2 may need is still there.
  for (int64_t ordinal = 4; ordinal < 8; ++ordinal) {
    CHECK(ledger->rollout(0, {ordinal, 0}) == testing::make_rollout(ordinal, 0));
  }
  CHECK(ledger->balance(0).trained == 6);
  CHECK(ledger->verify().empty());
  CHECK_THROWS_WITH(ledger->rewind(0, 1), Contains("were pruned after a later checkpoint"));
  CHECK(ledger->last_step(0) == 3);
  ledger->rewind(0, 2);

  // A crash between the row and the removal leaves a file, which the next owner removes.
  ledger.reset();
  write_file_atomic(segment_path(dir / "run/rollouts", 1), "left");
  ledger = Ledger::open(dir / "run", {.segment_bytes = 200});
  CHECK_FALSE(fs::exists(segment_path(dir / "run/rollouts", 1)));
  CHECK(ledger->verify().empty());
}

}  // namespace praetor
