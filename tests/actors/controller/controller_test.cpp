#include "actors/controller/controller.h"

#include <map>
#include <set>

#include "actors/train/experience_builder.h"
#include "actors/workers/rollout_worker.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/log.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

/// Answers a prompt with one token that names prompt and sample.
class TableGenerator final : public Generator {
 public:
  void generate(std::span<const GenerationRequest> requests,
                const std::function<bool(Generation&&)>& on_finish) override {
    for (size_t r = 0; r < requests.size(); ++r) {
      for (int32_t s = 0; s < requests[r].samples; ++s) {
        Generation made;
        made.request = static_cast<int64_t>(r);
        made.sample = s;
        made.tokens = {static_cast<int64_t>(requests[r].key.sample_index) + s};
        made.behavior_logprobs = {-0.5F};
        made.text = str("answer ", requests[r].key.prompt_ordinal);
        made.finish = FinishReason::kStop;
        if (!on_finish(std::move(made))) return;
      }
    }
  }
};

std::vector<Prompt> prompts(int64_t count) {
  std::vector<Prompt> out;
  for (int64_t i = 0; i < count; ++i) out.push_back({{i, i + 1}, str("prompt ", i), "{}"});
  return out;
}

OnlinePlan plan(int64_t prompts_per_step = 2, int32_t samples = 2) {
  return {.job_seed = 1,
          .prompts_per_step = prompts_per_step,
          .samples_per_prompt = samples,
          .shuffle = false};
}

std::optional<std::string> accept_all(const std::vector<ScoredSample>&) {
  return std::nullopt;
}

/// A worker's view of a bare controller.
class Service final : public WorkerService {
 public:
  explicit Service(Controller& controller) : controller_(controller) {}
  Admission join(const MemberInfo&) override { return {}; }
  Orders heartbeat(const Heartbeat&) override { return Orders::kGoOn; }
  void leave(const std::string& name) override { controller_.worker_lost(name, false); }
  std::optional<Lease> lease(const LeaseRequest& request) override {
    return controller_.lease(request.worker, request.kind, request.max_items);
  }
  void complete(Completion completion) override { controller_.complete(std::move(completion)); }
  std::optional<Publication> newer_weights(const NewerWeights&) override { return std::nullopt; }

 private:
  Controller& controller_;
};

/// Works off what waits, in leases of at most 3; `once`: one of them.
void generate(Controller& controller, const std::string& name = "r0", bool once = false) {
  TableGenerator generator;
  Service service(controller);
  RolloutWorker worker(service,
                       [&](const Lease&) -> Generator& { return generator; },
                       {.name = name, .stream = name == "streams"});
  while (worker.work_once(3, std::chrono::milliseconds(0)) && !once) {
  }
}

Publication weights(int64_t step) {
  return {.version = {.step = step}};
}

/// Scores with the ordinal; `failing` gets no score.
void score_all(Controller& controller, int64_t failing = -1) {
  while (const auto lease = controller.lease("j0", LeaseKind::kScore, 3)) {
    std::vector<ScoreResult> results;
    for (const ScoreItem& item : lease->score) {
      Score score;
      if (item.id.ordinal == failing) {
        score.parts.push_back({.name = "rule", .error = "no such field"});
      } else {
        score.score = static_cast<double>(item.id.ordinal);
      }
      results.push_back({item.id, score});
    }
    controller.complete({.worker = "j0",
                         .lease = lease->id,
                         .purpose = lease->purpose,
                         .weights = lease->weights.version,
                         .scores = std::move(results)});
  }
}

void commit(Controller& controller, int64_t step) {
  controller.commit_step("{}", {.step = step, .loss_digest = "l", .gradient_digest = "g"});
}

}  // namespace

TEST_CASE("a step's batch closes by prompt order when the last sample is scored", "[actors][cpu]") {
  const testing::TempDir dir;
  const auto ledger = Ledger::open(dir.path());
  ledger->begin_stage(0, "ppo");
  Controller controller(*ledger, plan(), prompts(3), {}, accept_all);
  controller.open_step(1, weights(0));
  CHECK_FALSE(controller.close_step());
  generate(controller);
  CHECK_FALSE(controller.close_step());
  score_all(controller);
  const ClosedBatch* batch = controller.close_step();
  REQUIRE(batch);
  REQUIRE(batch->samples.size() == 4);
  CHECK(batch->slice({.rank = 1, .world = 3}, 3).samples.size() == 1);
  const Experience experience = make_experience(batch->samples);
  CHECK((experience.prompt_ordinal == std::vector<int64_t>{0, 0, 1, 1}));
  CHECK((experience.sample_index == std::vector<int32_t>{0, 1, 0, 1}));
  CHECK(experience.tokens.numel() == 12);
  commit(controller, batch->step);
  // The next step goes on with the next prompts and, at the end of the data, with the next pass
  // over it.
  controller.open_step(2, weights(1));
  generate(controller);
  score_all(controller);
  const ClosedBatch* next = controller.close_step();
  REQUIRE(next);
  CHECK((next->samples[0].rollout.tokens == std::vector<int64_t>{2, 3, 0}));
  CHECK((next->samples[2].rollout.tokens == std::vector<int64_t>{0, 1, 0}));
  CHECK(ledger->balance(0).holds());
}

TEST_CASE("what a lost worker held goes to another and a repeated result counts once",
          "[actors][cpu]") {
  const testing::TempDir dir;
  const auto ledger = Ledger::open(dir.path());
  ledger->begin_stage(0, "ppo");
  Controller controller(*ledger, plan(), prompts(3), {}, accept_all);
  controller.open_step(1, weights(0));
  const auto lost = controller.lease("dead", LeaseKind::kGenerate, 100);
  REQUIRE(lost);
  CHECK(lost->generate.size() == 4);
  CHECK_FALSE(controller.lease("r0", LeaseKind::kGenerate, 100));
  controller.worker_lost("dead", true);
  CHECK(controller.leases_reissued() == 1);
  generate(controller);
  Generation late;
  late.tokens = {9};
  late.behavior_logprobs = {-1.0F};
  controller.complete({.worker = "dead",
                       .lease = lost->id,
                       .weights = weights(0).version,
                       .rollouts = {{lost->generate[0].id, late}}});
  score_all(controller);
  const ClosedBatch* batch = controller.close_step();
  REQUIRE(batch);
  CHECK(batch->samples.size() == 4);
  CHECK(batch->samples[0].rollout.worker == "r0");
}

TEST_CASE("an expired lease is handed out again", "[actors][cpu]") {
  const testing::TempDir dir;
  const auto ledger = Ledger::open(dir.path());
  ledger->begin_stage(0, "ppo");
  OnlinePlan hurried = plan();
  hurried.lease_time = std::chrono::milliseconds(-1);
  Controller controller(*ledger, hurried, prompts(3), {}, accept_all);
  controller.open_step(1, weights(0));
  const auto first = controller.lease("slow", LeaseKind::kGenerate, 100);
  const auto second = controller.lease("quick", LeaseKind::kGenerate, 100);
  REQUIRE(second);
  CHECK(second->generate.size() == 4);
  CHECK(first->id != second->id);
}

TEST_CASE("a new controller over the same ledger does not generate a finished sample again",
          "[actors][cpu]") {
  const testing::TempDir dir;
  {
    const auto ledger = Ledger::open(dir.path());
    ledger->begin_stage(0, "ppo");
    Controller controller(*ledger, plan(), prompts(3), {}, accept_all);
    controller.open_step(1, weights(0));
    generate(controller, "streams", true);
  }
  const auto ledger = Ledger::open(dir.path());
  ledger->begin_stage(0, "ppo");
  Controller controller(*ledger, plan(), prompts(3), {}, accept_all);
  controller.open_step(1, weights(0));
  const auto rest = controller.lease("r1", LeaseKind::kGenerate, 100);
  REQUIRE(rest);
  REQUIRE(rest->generate.size() == 1);
  CHECK((rest->generate[0].id == SampleId{1, 1}));
}

TEST_CASE("a rejected group is replaced by the next prompt and recorded as dropped",
          "[actors][cpu]") {
  const testing::TempDir dir;
  const auto ledger = Ledger::open(dir.path());
  ledger->begin_stage(0, "ppo");
  Controller controller(
      *ledger, plan(), prompts(10), {}, [](const std::vector<ScoredSample>& group) {
        return group[0].rollout.id.ordinal == 1 ? std::optional<std::string>("too easy")
                                                : std::nullopt;
      });
  const ClosedBatch* batch = nullptr;
  controller.open_step(1, weights(0));
  for (int round = 0; round < 3 && !batch; ++round) {
    generate(controller);
    score_all(controller);
    batch = controller.close_step();
  }
  REQUIRE(batch);
  CHECK((make_experience(batch->samples).prompt_ordinal == std::vector<int64_t>{0, 0, 2, 2}));
  commit(controller, batch->step);
  CHECK(ledger->balance(0).dropped.at("too easy") == 2);
  CHECK(ledger->balance(0).holds());
  controller.open_step(2, weights(1));
  CHECK(controller.lease("r0", LeaseKind::kGenerate, 1)->generate[0].id.ordinal == 3);
}

TEST_CASE("why samples are dropped is said once a stage", "[actors][cpu]") {
  const testing::TempDir dir, logs;
  log::add_file(logs / "log");
  const auto ledger = Ledger::open(dir.path());
  ledger->begin_stage(0, "dapo");
  Controller controller(
      *ledger, plan(), prompts(10), {}, [](const std::vector<ScoredSample>& group) {
        const int64_t ordinal = group[0].rollout.id.ordinal;
        if (ordinal == 5) return std::optional<std::string>("too hard by half");
        return ordinal % 2 == 1 ? std::optional<std::string>("too easy by half") : std::nullopt;
      });
  for (int64_t step = 1; step <= 2; ++step) {
    controller.open_step(step, weights(step - 1));
    const ClosedBatch* batch = nullptr;
    for (int round = 0; round < 9 && !batch; ++round) {
      generate(controller);
      score_all(controller);
      batch = controller.close_step();
    }
    REQUIRE(batch);
    commit(controller, step);
  }
  CHECK(ledger->balance(0).dropped.at("too easy by half") == 4);
  const std::string text = read_file(logs / "log");
  const auto count = [&](const std::string& words) {
    int out = 0;
    for (size_t at = 0; (at = text.find(words, at)) != std::string::npos; ++at) ++out;
    return out;
  };
  const std::string rest = "; said once a stage, the metric data/dropped counts them all";
  CHECK(count("step 1: 2 samples dropped: too easy by half" + rest) == 1);
  CHECK(count("too easy by half") == 1);
  CHECK(count("step 2: 2 samples dropped: too hard by half" + rest) == 1);
}

TEST_CASE(
    "a sample that no part could score is dropped by name and a whole step of them is an error",
    "[actors][cpu]") {
  const testing::TempDir dir;
  const auto ledger = Ledger::open(dir.path());
  ledger->begin_stage(0, "ppo");
  Controller controller(*ledger, plan(), prompts(3), {}, accept_all);
  controller.open_step(1, weights(0));
  generate(controller);
  score_all(controller, 1);
  const ClosedBatch* batch = controller.close_step();
  REQUIRE(batch);
  CHECK(batch->samples.size() == 2);
  commit(controller, batch->step);
  CHECK(ledger->balance(0).dropped.at("reward part rule failed: no such field") == 2);

  Controller single(*ledger, plan(1, 1), prompts(3), {}, accept_all);
  single.open_step(2, weights(1));
  generate(single);
  score_all(single, 2);
  CHECK_THROWS_WITH(single.close_step(),
                    "step 2: no sample is left: reward part rule failed: no such field");
  CHECK_THROWS_AS(Controller(*ledger, plan(), {}, {}, accept_all), DataError);
}

TEST_CASE("a lease is completed by its holder alone, and with the weights it was given for",
          "[actors][cpu]") {
  const testing::TempDir dir;
  const auto ledger = Ledger::open(dir.path());
  ledger->begin_stage(0, "ppo");
  Controller controller(*ledger, plan(), prompts(3), {}, accept_all);
  controller.open_step(1, weights(0));
  const auto lease = controller.lease("r0", LeaseKind::kGenerate, 1);
  REQUIRE(lease);
  Generation made;
  made.tokens = {1};
  made.behavior_logprobs = {-1.0F};
  Completion completion{.worker = "thief",
                        .lease = lease->id,
                        .weights = weights(0).version,
                        .rollouts = {{lease->generate[0].id, made}}};
  CHECK_THROWS_WITH(controller.complete(completion),
                    str("lease ", lease->id, " is held by r0, not by thief"));
  completion.worker = "r0";
  completion.weights.digest = "others";
  controller.complete(completion);
  CHECK(controller.held(LeaseKind::kGenerate) == 1);  // nothing of it was taken
  completion.weights.digest.clear();
  controller.complete(completion);
  CHECK(controller.held(LeaseKind::kGenerate) == 0);
  CHECK(controller.waiting(LeaseKind::kScore) == 1);
}

TEST_CASE("a prompt that ends three workers is set aside, its neighbours are not",
          "[actors][cpu]") {
  const testing::TempDir dir;
  const auto ledger = Ledger::open(dir.path());
  ledger->begin_stage(0, "ppo");
  Controller controller(*ledger, plan(), prompts(3), {}, accept_all);
  controller.open_step(1, weights(0));
  int deaths = 0;
  // Prompt 1 ends whoever works on it; the others are worked off when they are met.
  while (const auto lease = controller.lease(str("r", deaths), LeaseKind::kGenerate, 100)) {
    bool dies = false;
    std::vector<RolloutResult> results;
    for (const GenerateItem& item : lease->generate) {
      dies = dies || item.id.ordinal == 1;
      Generation made;
      made.tokens = {1};
      made.behavior_logprobs = {-1.0F};
      results.push_back({item.id, made});
    }
    if (dies) {
      controller.worker_lost(str("r", deaths++), true);
    } else {
      controller.complete({.worker = str("r", deaths),
                           .lease = lease->id,
                           .weights = weights(0).version,
                           .rollouts = std::move(results)});
    }
  }
  CHECK(deaths == 3);
  REQUIRE(controller.set_aside().size() == 1);
  CHECK(controller.set_aside()[0] == "prompt 1 (row 1 of the prompt data)");
  score_all(controller);
  const ClosedBatch* batch = controller.close_step();
  REQUIRE(batch);
  CHECK(batch->samples.size() == 2);
  commit(controller, 1);
  CHECK(ledger->balance(0).dropped.at("set aside: it ended 3 workers") == 2);
  CHECK(ledger->balance(0).holds());

  // Trained again, the recorded batch counts what was dropped as it did at first.
  const auto first = batch->slice({0, 1}, 3).metrics;
  const ClosedBatch again = load_batch(*ledger, plan(), *ledger->batch(0, 1));
  CHECK((again.dropped == batch->dropped));
  CHECK((again.slice({0, 1}, 3).metrics == first));
}

TEST_CASE("an evaluation takes the same way and leaves no record", "[actors][cpu]") {
  const testing::TempDir dir;
  const auto ledger = Ledger::open(dir.path());
  ledger->begin_stage(0, "ppo");
  Controller controller(*ledger, plan(), prompts(3), prompts(5), accept_all);
  controller.open_evaluation(0, 4, weights(0));
  CHECK_FALSE(controller.close_evaluation());
  const auto lease = controller.lease("r0", LeaseKind::kGenerate, 1);
  REQUIRE(lease);
  CHECK(lease->purpose == Purpose::kEvaluation);
  controller.worker_lost("r0", false);
  generate(controller);
  score_all(controller);
  const auto evaluation = controller.close_evaluation();
  REQUIRE(evaluation);
  REQUIRE(evaluation->samples.size() == 4);
  CHECK(evaluation->prompts[3] == "prompt 3");
  CHECK(evaluation->samples[3].rollout.text == "answer 3");
  CHECK(*evaluation->samples[3].score.score.score == 3.0);
  CHECK(ledger->balance(0).issued == 0);
  // The step in work goes on afterwards.
  controller.open_step(1, weights(0));
  generate(controller);
  score_all(controller);
  CHECK(controller.close_step());
}

TEST_CASE("parts are counted by name, whatever a sample's task has of them", "[actors][cpu]") {
  const testing::TempDir dir;
  const auto ledger = Ledger::open(dir.path());
  ledger->begin_stage(0, "ppo");
  OnlinePlan wanted = plan(2, 1);
  wanted.parts = {{.name = "math"}, {.name = "chat"}, {.name = "watched", .monitor = true}};
  Controller controller(*ledger, wanted, prompts(2), {}, accept_all);
  controller.open_step(1, weights(0));
  generate(controller);
  while (const auto lease = controller.lease("j0", LeaseKind::kScore, 1)) {
    const bool math = lease->score[0].id.ordinal == 0;
    Score score;
    score.score = math ? 1.0 : 3.0;
    score.task = math ? "math" : "chat";
    if (!math) score.satisfied = false;
    score.parts.push_back({.name = score.task, .score = *score.score, .verdict = math});
    score.parts.push_back(
        {.name = "watched", .score = 0.0, .verdict = std::nullopt, .not_applicable = !math});
    if (math) score.parts.back() = {.name = "watched", .score = 0.5, .verdict = true};
    controller.complete({.worker = "j0",
                         .lease = lease->id,
                         .purpose = lease->purpose,
                         .weights = lease->weights.version,
                         .scores = {{lease->score[0].id, score}}});
  }
  const ClosedBatch* batch = controller.close_step();
  REQUIRE(batch);
  const StepBatch slice = batch->slice({}, 2);
  std::map<std::string, double> metrics(slice.metrics.begin(), slice.metrics.end());
  CHECK(metrics.at("reward/mean") == 2.0);
  CHECK(metrics.at("reward/math/mean") == 1.0);  // over its own samples
  CHECK(metrics.at("reward/chat/mean") == 3.0);
  CHECK(metrics.at("reward/watched/mean") == 0.5);  // over those that it applies to
  CHECK(metrics.at("task/math/samples") == 1.0);
  CHECK(metrics.at("task/chat/mean") == 3.0);
  CHECK(metrics.at("task/chat/satisfied") == 0.0);
  CHECK_FALSE(metrics.contains("task/math/satisfied"));  // it has no constraint
  const std::map<std::string, double> told(slice.circumstances.begin(), slice.circumstances.end());
  CHECK(told.at("judge/math/pass") == 1.0);
  CHECK(told.at("judge/chat/pass") == 0.0);
  CHECK(told.at("judge/watched/na") == 0.5);
  CHECK(told.at("judge/chat/cached") == 0.0);
}

TEST_CASE("a sample is dropped in the name of what failed it, not of a monitor", "[actors][cpu]") {
  const testing::TempDir dir;
  const auto ledger = Ledger::open(dir.path());
  ledger->begin_stage(0, "ppo");
  OnlinePlan wanted = plan(1, 1);
  wanted.parts = {{.name = "watched", .monitor = true}, {.name = "rule"}};
  Controller controller(*ledger, wanted, prompts(1), {}, accept_all);
  controller.open_step(1, weights(0));
  generate(controller);
  const auto lease = controller.lease("j0", LeaseKind::kScore, 1);
  REQUIRE(lease);
  Score score;
  score.parts.push_back({.name = "watched", .error = "asleep"});
  score.parts.push_back({.name = "rule", .error = "no such field"});
  controller.complete({.worker = "j0",
                       .lease = lease->id,
                       .purpose = lease->purpose,
                       .weights = lease->weights.version,
                       .scores = {{lease->score[0].id, score}}});
  CHECK_THROWS_WITH(controller.close_step(),
                    "step 1: no sample is left: reward part rule failed: no such field");
}

TEST_CASE("a prompt is asked in its place's own way, by every sample, pass and controller",
          "[actors][cpu]") {
  const testing::TempDir dir;
  const auto ledger = Ledger::open(dir.path());
  ledger->begin_stage(0, "dpa");
  OnlinePlan asked = plan();
  asked.ask = [](const Prompt& plain, int64_t ordinal, Purpose purpose) {
    Prompt out = plain;
    out.tokens.insert(out.tokens.begin(), purpose == Purpose::kEvaluation ? 200 : 100 + ordinal);
    out.metadata = str("{\"place\":", ordinal, "}");
    return out;
  };
  {
    Controller controller(*ledger, asked, prompts(3), prompts(1), accept_all);
    controller.open_step(1, weights(0));
    const auto lease = controller.lease("r0", LeaseKind::kGenerate, 4);
    REQUIRE(lease);
    CHECK(lease->generate[0].prompt == std::vector<int64_t>{100, 0, 1});
    CHECK(lease->generate[1].prompt == lease->generate[0].prompt);
    CHECK(lease->generate[3].prompt == std::vector<int64_t>{101, 1, 2});
    controller.worker_lost("r0", false);
    generate(controller);
  }
  // Another controller takes over: what waits to be scored is asked about alike.
  Controller controller(*ledger, asked, prompts(3), prompts(1), accept_all);
  controller.open_step(1, weights(0));
  const auto lease = controller.lease("j0", LeaseKind::kScore, 4);
  REQUIRE(lease);
  CHECK(lease->score[0].sample.prompt == "prompt 0");
  CHECK(lease->score[0].sample.metadata == "{\"place\":0}");
  CHECK(lease->score[3].sample.metadata == "{\"place\":1}");
  CHECK(lease->score[0].sample.response_tokens == 1);
  controller.worker_lost("j0", false);
  score_all(controller);
  REQUIRE(controller.close_step());
  CHECK(make_experience(controller.close_step()->samples).prompt_lengths ==
        std::vector<int64_t>{3, 3, 3, 3});
  commit(controller, 1);
  // Row 0 comes again in the second step, at the fourth place.
  controller.open_step(2, weights(1));
  const auto later = controller.lease("r0", LeaseKind::kGenerate, 4);
  REQUIRE(later);
  CHECK(later->generate[2].prompt == std::vector<int64_t>{103, 0, 1});
  controller.open_evaluation(2, 1, weights(2));
  const auto held_out = controller.lease("r0", LeaseKind::kGenerate, 4);
  REQUIRE(held_out);
  CHECK(held_out->generate[0].prompt == std::vector<int64_t>{200, 0, 1});
}

}  // namespace praetor
