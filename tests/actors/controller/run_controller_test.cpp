#include "actors/controller/run_controller.h"

#include <atomic>
#include <fstream>
#include <thread>

#include "actors/rpc/client.h"
#include "actors/rpc/server.h"
#include "actors/toy/toy_language.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// A run directory in which the toy language is made and the PPO stage is next.
struct Run {
  explicit Run(int prompts_per_step = 4, const std::string& more = "") {
    write_file_atomic(dir / "job.yaml",
                      str(R"(
name: run
stages:
  - {kind: toy_language, name: language, toy_language: {sft_rows: 10, pair_rows: 10, prompt_rows: 40, eval_rows: 8}}
  - kind: ppo
    model: {create: {hidden_size: 16, num_layers: 1, num_heads: 2, max_positions: 64}}
    tokenizer: {stage: language}
    data: {train: "stage:language/prompts_train.jsonl", eval: "stage:language/prompts_eval.jsonl"}
    steps: 3
    sampling: {max_new_tokens: 4}
    rewards: {parts: [{kind: length, unit: words, min: 1}]}
    ppo: {samples_per_prompt: 2, critic: {init: policy}, prompts_per_step: )",
                          prompts_per_step,
                          "}\n",
                          more));
    job = std::make_unique<JobConfig>(JobConfig::load(dir / "job.yaml"));
    ledger = Ledger::open(dir.path());
    controller = std::make_unique<RunController>(
        *job,
        dir.path(),
        *ledger,
        RunControllerOptions{.run_id = "r",
                             .patience = {.lost_after = seconds(5), .hung_after = seconds(60)}});
    write_toy_language(dir / "stages" / "language", 1, job->stages[0].toy);
    controller->begin_stage(0, 0);
    controller->finish_stage(0, "stages/language");
    controller->begin_stage(1, 0);
  }

  void join(const std::string& name, int64_t incarnation = 1) const {
    controller->join({.name = name,
                      .serves = {LeaseKind::kGenerate, LeaseKind::kScore},
                      .incarnation = incarnation});
  }
  static Publication weights(int64_t step) { return {.version = {.stage = 1, .step = step}}; }

  testing::TempDir dir;
  std::unique_ptr<JobConfig> job;
  std::unique_ptr<Ledger> ledger;
  std::unique_ptr<RunController> controller;
};

Generation answer() {
  Generation made;
  made.tokens = {1, 2};
  made.behavior_logprobs = {-1.0F, -2.0F};
  made.text = "a word";
  return made;
}

/// Does what a worker does with one lease. False when there was none.
bool work(RunController& controller,
          const std::string& name,
          LeaseKind kind,
          int64_t number,
          milliseconds wait = milliseconds(0),
          int64_t most = 3) {
  const auto lease = controller.lease(
      {.worker = name, .kind = kind, .max_items = most, .number = number, .wait = wait});
  if (!lease) return false;
  Completion done{.worker = name,
                  .lease = lease->id,
                  .purpose = lease->purpose,
                  .weights = lease->weights.version};
  for (const GenerateItem& item : lease->generate) done.rollouts.push_back({item.id, answer()});
  for (const ScoreItem& item : lease->score) done.scores.push_back({item.id, {.score = 0.5}});
  controller.complete(std::move(done));
  return true;
}

void finish_step(RunController& controller) {
  int64_t number = 1000;
  while (work(controller, "w", LeaseKind::kGenerate, ++number)) {
  }
  while (work(controller, "w", LeaseKind::kScore, ++number)) {
  }
}

}  // namespace

TEST_CASE("idle workers get equal shares, whole prompts each", "[actors][cpu]") {
  const Run run(5);
  for (const char* name : {"a", "b"}) run.join(name);
  run.controller->open_step(1, 1, Run::weights(0));
  const auto lease = [&](const std::string& name, int64_t number) {
    return run.controller->lease({.worker = name, .max_items = 100, .number = number});
  };
  // Ten samples of five prompts for two: five each, and no prompt is split.
  const auto first = lease("a", 1);
  REQUIRE(first);
  CHECK(first->generate.size() == 6);
  // Asked for again, as when the answer was lost on the way.
  CHECK(lease("a", 1)->id == first->id);
  CHECK(lease("b", 1)->generate.size() == 4);
  CHECK_FALSE(lease("b", 1) == std::nullopt);
  // A new request: what it held never reached it.
  CHECK(lease("a", 2)->generate.size() == 6);
  CHECK(run.controller->status().leases_reissued == 1);
}

TEST_CASE("a request waits for work, and not for a process that is gone", "[actors][cpu]") {
  const Run run;
  run.join("a");
  std::atomic<int> served{0};
  std::thread waiting([&] {
    while (work(*run.controller, "a", LeaseKind::kGenerate, ++served, seconds(20), 100)) {
    }
  });
  // The old process of that name asks for scores, and dies while it waits.
  std::optional<Lease> lost;
  run.join("b");
  std::thread dying([&] {
    lost = run.controller->lease({.worker = "b",
                                  .kind = LeaseKind::kScore,
                                  .max_items = 100,
                                  .number = 1,
                                  .wait = seconds(20)});
  });
  while (run.controller->status().members.size() < 2) std::this_thread::yield();
  run.controller->report_death("b", 1, "killed by SIGKILL");
  run.controller->open_step(1, 1, Run::weights(0));
  dying.join();
  CHECK_FALSE(lost);
  while (run.controller->status().to_score < 8) std::this_thread::yield();
  run.join("b", 2);
  while (work(*run.controller, "b", LeaseKind::kScore, 1)) {
  }
  const auto batch = run.controller->wait_batch(1, 1, {}, seconds(20));
  REQUIRE(batch);
  CHECK(batch->samples.size() == 8);
  run.controller->end_run();
  waiting.join();
  CHECK(run.controller->heartbeat({.name = "b", .incarnation = 2}) == Orders::kLeave);
}

TEST_CASE("a restart counts once, however many ranks it has and however often it is told",
          "[actors][cpu]") {
  const Run run;
  run.join("a");
  for (int64_t incarnation = 1; incarnation <= 2; ++incarnation) {
    for (const char* rank : {"learner-0", "learner-1", "learner-2"})
      run.controller->report_death(rank, incarnation, "killed by SIGKILL");
    run.controller->report_death("learner-0", incarnation, "killed by SIGKILL");
  }
  CHECK(run.controller->status().restarts == 2);
  run.controller->report_death("a", 1, "killed by SIGKILL");
  run.controller->report_death("a", 1, "killed by SIGKILL");
  CHECK(run.controller->status().restarts == 3);
}

TEST_CASE("many workers at once: every sample counts once", "[actors][cpu]") {
  const Run run(40);
  run.controller->open_step(1, 1, Run::weights(0));
  std::vector<std::thread> workers;
  for (int i = 0; i < 8; ++i) {
    workers.emplace_back([&run, i] {
      const std::string name = str("w", i);
      run.join(name);
      int64_t number = 0;
      const LeaseKind kind = i % 2 == 0 ? LeaseKind::kGenerate : LeaseKind::kScore;
      while (work(*run.controller, name, kind, ++number, milliseconds(500), 5)) {
        if (number % 3 == 0)
          run.controller->heartbeat({.name = name, .incarnation = 1, .busy = true});
        run.controller->tick();
      }
    });
  }
  const auto batch = run.controller->wait_batch(1, 1, {}, seconds(60));
  for (std::thread& worker : workers) worker.join();
  REQUIRE(batch);
  CHECK(batch->total_samples == 80);
  CHECK(batch->samples.front().rollout.id == SampleId{0, 0});
  CHECK(batch->samples.back().rollout.id == SampleId{39, 1});
  run.controller->commit_step(1, "{}", {.step = 1, .loss_digest = "l", .gradient_digest = "g"});
  const Balance balance = run.ledger->balance(1);
  CHECK(balance.trained == 80);
  CHECK(balance.holds());
  // Said twice, as after a lost answer.
  CHECK(run.controller->commit_step(
            1, "{}", {.step = 1, .loss_digest = "l", .gradient_digest = "g"}) == StepOutcome::kNew);
}

TEST_CASE("a completion that is sent again over the wire counts once", "[actors][cpu]") {
  const Run run;
  RunController& controller = *run.controller;
  RpcServer server({&controller, &controller, &controller}, {.run_id = "r", .secret = "s"});
  RpcClientOptions options;
  options.run_id = "r";
  options.secret = "s";
  options.resolve = [&] { return server.address(); };
  WorkerClient worker(options);
  for (const char* name : {"a", "b"})
    worker.join(
        {.name = name, .serves = {LeaseKind::kGenerate, LeaseKind::kScore}, .incarnation = 1});
  controller.open_step(1, 1, Run::weights(0));
  const auto lease = worker.lease({.worker = "a",
                                   .kind = LeaseKind::kGenerate,
                                   .max_items = 2,
                                   .number = 1,
                                   .wait = milliseconds(0)});
  REQUIRE(lease);
  Completion done{.worker = "a",
                  .lease = lease->id,
                  .purpose = lease->purpose,
                  .weights = lease->weights.version};
  for (const GenerateItem& item : lease->generate) done.rollouts.push_back({item.id, answer()});
  // Another member cannot hand in what it does not hold.
  Completion foreign = done;
  foreign.worker = "b";
  CHECK_THROWS_AS(worker.complete(foreign), RefusedError);
  worker.complete(done);
  const RunStatus before = controller.status();
  for (int again = 0; again < 3; ++again) worker.complete(done);
  // Nor, once the lease is over, change what is recorded.
  foreign.rollouts.front().generation.text = "another";
  worker.complete(foreign);
  const RunStatus after = controller.status();
  CHECK(after.to_score == before.to_score);
  CHECK(after.to_score == static_cast<int64_t>(lease->generate.size()));
  for (const GenerateItem& item : lease->generate) {
    const auto rollout = run.ledger->rollout(1, item.id);
    REQUIRE(rollout);
    CHECK(rollout->text == "a word");
    CHECK(rollout->worker == "a");
  }
}

TEST_CASE("each rank takes its part of a batch", "[actors][cpu]") {
  const Run run(3);
  run.controller->open_step(1, 1, Run::weights(0));
  finish_step(*run.controller);
  size_t samples = 0;
  for (int32_t rank = 0; rank < 4; ++rank) {
    const auto part = run.controller->wait_batch(1, 1, {rank, 4}, milliseconds(0));
    REQUIRE(part);
    CHECK(part->total_samples == 6);
    samples += part->samples.size();
  }
  CHECK(samples == 6);
  CHECK_THROWS_AS(run.controller->wait_batch(1, 1, {4, 4}, milliseconds(0)), InvalidArgument);
}

TEST_CASE("a controller that took over goes on in the middle of a step", "[actors][cpu]") {
  Run run;
  run.controller->open_step(1, 1, Run::weights(0));
  REQUIRE(work(*run.controller, "w", LeaseKind::kGenerate, 1));
  run.controller.reset();
  RunController second(*run.job, run.dir.path(), *run.ledger, {.run_id = "r"});
  CHECK(second.heartbeat({.name = "w", .incarnation = 1}) == Orders::kRegister);
  // The learner, who knows nothing of the change, says again what it wants.
  CHECK_FALSE(second.wait_batch(1, 1, {}, milliseconds(0)));
  second.open_step(1, 1, Run::weights(0));
  finish_step(second);
  CHECK(second.wait_batch(1, 1, {}, milliseconds(0))->samples.size() == 8);

  // A third one is asked to commit what the second closed.
  RunController third(*run.job, run.dir.path(), *run.ledger, {.run_id = "r"});
  third.commit_step(1, "{}", {.step = 1, .loss_digest = "l", .gradient_digest = "g"});
  CHECK(run.ledger->balance(1).trained == 8);

  // The learner goes back to the start: the batch is trained again as it stands.
  CHECK(third.begin_stage(1, 0).last_step == 1);
  CHECK(third.stage_progress(1).lineage == 1);
  CHECK(third.has_batch(1, 1));
  third.open_step(1, 1, Run::weights(0));
  CHECK_FALSE(third.lease({.worker = "w", .max_items = 9, .number = 1}));
  const auto again = third.wait_batch(1, 1, {}, milliseconds(0));
  REQUIRE(again);
  CHECK(again->replayed);
  CHECK(third.commit_step(1, "{}", {.step = 1, .loss_digest = "l", .gradient_digest = "g"}) ==
        StepOutcome::kReplayedIdentical);
}

TEST_CASE("payload that kept checkpoints cover is given up when the job says so", "[actors][cpu]") {
  Run run;
  run.job->ledger.payload = "unsaved";
  for (int64_t step = 1; step <= 2; ++step) {
    run.controller->open_step(1, step, Run::weights(step - 1));
    finish_step(*run.controller);
    REQUIRE(run.controller->wait_batch(1, step, {}, milliseconds(0)));
    run.controller->commit_step(
        1, "{}", {.step = step, .loss_digest = "l", .gradient_digest = "g"});
    const std::string path = str("checkpoints/ppo/step-00000", step);
    run.controller->record_checkpoint({.stage = 1, .step = step, .path = path, .durable = true});
  }
  // The segment in use stays whole; nothing that may be needed is gone.
  CHECK(run.ledger->verify().empty());
  run.controller->forget_checkpoint("checkpoints/ppo/step-000001");
  CHECK(run.controller->checkpoints().size() == 1);
}

TEST_CASE("status shows members, queues and accounts", "[actors][cpu]") {
  const Run run;
  run.join("a");
  run.controller->open_step(1, 1, Run::weights(0));
  REQUIRE(run.controller->lease({.worker = "a", .max_items = 3, .number = 1}));
  const RunStatus status = run.controller->status();
  CHECK(status.job == "run");
  CHECK(status.stage_name == "ppo");
  CHECK(status.step == 1);
  CHECK(status.total_steps == 3);
  CHECK(status.generating == 3);
  CHECK(status.to_generate == 5);
  REQUIRE(status.members.size() == 1);
  CHECK(status.members[0].open_leases == 1);
  CHECK(status.balances.at(1).issued == 8);
  run.controller->leave("a");
  CHECK(run.controller->status().to_generate == 8);
  CHECK(run.controller->status().members.empty());
  CHECK_THROWS_AS(run.controller->begin_stage(7, 0), InvalidArgument);
  CHECK_THROWS_AS(run.controller->lease({.worker = "a", .max_items = 0}), InvalidArgument);
  CHECK_THROWS_AS(run.controller->open_step(0, 1, Run::weights(0)), InvalidArgument);
}

TEST_CASE("whoever generates hears of newer weights of the stage", "[actors][cpu]") {
  const Run run(4, "    max_staleness: 1\n");
  const auto ask = [&](int64_t step, milliseconds wait = milliseconds(0), uint32_t stage = 1) {
    return run.controller->newer_weights({.stage = stage, .step = step, .wait = wait});
  };
  CHECK_FALSE(ask(0));
  run.controller->open_step(1, 1, Run::weights(0));
  CHECK_FALSE(ask(0));
  std::thread later([&] {
    finish_step(*run.controller);
    REQUIRE(run.controller->wait_batch(1, 1, {}, milliseconds(0)));
    run.controller->commit_step(1, "{}", {.step = 1, .loss_digest = "l", .gradient_digest = "g"});
    run.controller->open_step(1, 2, Run::weights(1));
  });
  const auto newer = ask(0, seconds(20));
  later.join();
  REQUIRE(newer);
  CHECK(newer->version.step == 1);
  CHECK_FALSE(ask(1));
  CHECK_FALSE(ask(0, milliseconds(0), 0));
}

TEST_CASE("a lease is no larger than a step, however far ahead is sampled", "[actors][cpu]") {
  const Run run(4, "    max_staleness: 2\n");
  run.join("w");
  run.controller->open_step(1, 1, Run::weights(0));
  const auto lease = run.controller->lease({.worker = "w", .max_items = 100, .number = 1});
  REQUIRE(lease);
  CHECK(lease->generate.size() == 8);
  CHECK(run.controller->status().to_generate == 16);
}

TEST_CASE("a batch says how long workers waited since the one before", "[actors][cpu]") {
  const Run run(4);
  run.join("w");
  run.controller->open_step(1, 1, Run::weights(0));
  finish_step(*run.controller);
  const auto idle = [&](int64_t step) {
    const auto batch = run.controller->wait_batch(1, step, {}, milliseconds(0));
    REQUIRE(batch);
    for (const auto& [name, value] : batch->circumstances) {
      if (name == "idle/rollout") return value;
    }
    return -1.0;
  };
  CHECK(idle(1) < 0.2);
  CHECK_FALSE(work(*run.controller, "w", LeaseKind::kGenerate, 9, milliseconds(200)));
  CHECK(idle(1) >= 0.2);
  CHECK(idle(1) < 0.2);  // it was said
}

}  // namespace praetor
