// Sampling ahead of training: what is issued, what a batch takes, what a restart keeps.
#include <algorithm>
#include <random>
#include <set>

#include "actors/controller/controller.h"
#include "core/base/error.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

constexpr auto kGenerate = LeaseKind::kGenerate;
constexpr auto kScore = LeaseKind::kScore;

std::vector<Prompt> prompts(int64_t count) {
  std::vector<Prompt> out;
  for (int64_t i = 0; i < count; ++i) out.push_back({{i, i + 1}, str("prompt ", i), "{}"});
  return out;
}

/// Two samples to each of two prompts a step.
OnlinePlan plan(int64_t max_staleness, int64_t total_steps = 0) {
  return {.job_seed = 1,
          .prompts_per_step = 2,
          .samples_per_prompt = 2,
          .max_staleness = max_staleness,
          .total_steps = total_steps,
          .shuffle = false};
}

std::optional<std::string> accept_all(const std::vector<ScoredSample>&) {
  return std::nullopt;
}

Publication weights(int64_t step) {
  return {.version = {.step = step, .digest = str("w", step)}};
}

Generation response(std::vector<int64_t> versions = {}) {
  Generation made;
  made.tokens = {7, 8, 9};
  made.behavior_logprobs = {-0.5F, -0.25F, -1.0F};
  made.versions = std::move(versions);
  made.text = "a";
  made.finish = FinishReason::kStop;
  return made;
}

Completion answer(const Lease& lease,
                  const std::string& worker,
                  const std::vector<int64_t>& versions = {}) {
  Completion done{.worker = worker,
                  .lease = lease.id,
                  .purpose = lease.purpose,
                  .weights = lease.weights.version};
  for (const GenerateItem& item : lease.generate)
    done.rollouts.push_back({item.id, response(versions)});
  for (const ScoreItem& item : lease.score)
    done.scores.push_back({item.id, {.score = static_cast<double>(item.id.ordinal)}});
  return done;
}

void work_off(Controller& controller, LeaseKind kind, int64_t most = 100) {
  if (const auto lease = controller.lease("w", kind, most))
    controller.complete(answer(*lease, "w"));
}

void commit(Controller& controller) {
  controller.commit_step(
      "{}", {.step = controller.close_step()->step, .loss_digest = "l", .gradient_digest = "g"});
}

std::vector<int64_t> ordinals(const ClosedBatch& batch) {
  std::set<int64_t> out;
  for (const ScoredSample& sample : batch.samples) out.insert(sample.rollout.id.ordinal);
  return {out.begin(), out.end()};
}

double figure(const ClosedBatch& batch, const std::string& name) {
  for (const auto& [key, value] : batch.slice({}, 100).metrics) {
    if (key == name) return value;
  }
  throw InternalError("no metric ", name);
}

/// A stage with a ledger of its own.
struct Stage {
  Stage() : ledger(Ledger::open(dir.path())) { ledger->begin_stage(0, "ppo"); }
  Controller controller(const OnlinePlan& of, const Controller::Accept& accept = accept_all) {
    return {*ledger, of, prompts(50), prompts(3), accept};
  }
  testing::TempDir dir;
  std::unique_ptr<Ledger> ledger;
};

}  // namespace

TEST_CASE("prompts are issued as far ahead as the bound allows, and no further", "[actors][cpu]") {
  Stage stage;
  Controller controller = stage.controller(plan(1, 3));
  controller.open_step(1, weights(0));
  CHECK(controller.waiting(kGenerate) == 8);  // steps 1 and 2
  work_off(controller, kGenerate);
  work_off(controller, kScore);
  const ClosedBatch* first = controller.close_step();
  REQUIRE(first);
  CHECK(ordinals(*first) == std::vector<int64_t>{0, 1});
  CHECK(figure(*first, "staleness/max") == 0);
  // While step 1 trains nothing is issued that the weights before it would make too old.
  CHECK(controller.waiting(kGenerate) == 0);
  commit(controller);
  CHECK(controller.waiting(kGenerate) == 0);

  controller.open_step(2, weights(1));
  CHECK(controller.waiting(kGenerate) == 4);  // step 3, the last
  const ClosedBatch* second = controller.close_step();
  REQUIRE(second);
  CHECK(ordinals(*second) == std::vector<int64_t>{2, 3});
  CHECK(figure(*second, "staleness/mean") == 1);
  CHECK(figure(*second, "staleness/max") == 1);
  work_off(controller, kGenerate);
  commit(controller);
  controller.open_step(3, weights(2));
  CHECK(controller.waiting(kGenerate) == 0);
  work_off(controller, kScore);
  const ClosedBatch* third = controller.close_step();
  REQUIRE(third);
  CHECK(third->samples[0].rollout.weight_version == 1);
  commit(controller);
  const Balance balance = stage.ledger->balance(0);
  CHECK(balance.holds());
  CHECK(balance.issued == 12);
  CHECK(balance.trained == 12);
  CHECK(stage.ledger->verify().empty());
}

TEST_CASE("a lease goes on while the step it was given in is left behind", "[actors][cpu]") {
  Stage stage;
  Controller controller = stage.controller(plan(1));
  controller.open_step(1, weights(0));
  const auto mine = controller.lease("a", kGenerate, 4);
  const auto other = controller.lease("b", kGenerate, 4);
  REQUIRE(other);
  controller.complete(answer(*mine, "a"));
  work_off(controller, kScore);
  commit(controller);
  controller.open_step(2, weights(1));
  CHECK(controller.held(kGenerate) == 4);
  // New leases are of the new weights; what the old one brings counts.
  const auto next = controller.lease("a", kGenerate, 1);
  CHECK(next->weights.version.step == 1);
  // Weights of that step which nobody published are not these.
  Completion foreign = answer(*other, "b");
  foreign.weights.digest = "another";
  controller.complete(foreign);
  CHECK(controller.waiting(kScore) == 0);
  controller.complete(answer(*other, "b"));
  CHECK(controller.waiting(kScore) == 4);
  CHECK(controller.held(kGenerate) == 1);
}

TEST_CASE("what a worker held when it was lost is sampled anew, by the weights of then",
          "[actors][cpu]") {
  Stage stage;
  Controller controller = stage.controller(plan(1));
  controller.open_step(1, weights(0));
  const auto kept = controller.lease("a", kGenerate, 4);
  const auto lost = controller.lease("b", kGenerate, 4);
  controller.complete(answer(*kept, "a"));
  work_off(controller, kScore);
  commit(controller);
  controller.open_step(2, weights(1));
  controller.worker_lost("b", false);
  const auto again = controller.lease("a", kGenerate, 2);
  REQUIRE(again);
  CHECK(again->generate[0].id == lost->generate[0].id);
  CHECK(again->weights.version.step == 1);
  controller.complete(answer(*again, "a"));
  controller.complete(answer(*lost, "b"));  // late: it has two that nobody has brought yet
  work_off(controller, kScore);
  const ClosedBatch* batch = controller.close_step();
  REQUIRE(batch);
  CHECK(batch->samples[0].rollout.weight_version == 1);
  CHECK(batch->samples[2].rollout.weight_version == 0);
}

TEST_CASE("each token's weights are kept, and the sample counts as old as its first",
          "[actors][cpu]") {
  Stage stage;
  {
    Controller controller = stage.controller(plan(1));
    controller.open_step(1, weights(0));
    const auto lease = controller.lease("a", kGenerate, 8);
    Completion begun = answer(*lease, "a");
    begun.rollouts.erase(begun.rollouts.begin(), begun.rollouts.begin() + 4);
    Completion first = answer(*lease, "a");
    first.rollouts.resize(4);
    controller.complete(first);
    work_off(controller, kScore);
    commit(controller);
    controller.open_step(2, weights(1));
    const std::vector<int64_t> mixed = {0, 1, 1}, fresh = {1, 1, 1};
    begun.rollouts[0].generation.versions = mixed;
    begun.rollouts[1].generation.versions = fresh;
    // Newer than any, falling, one missing, older than the lease's.
    for (const std::vector<int64_t>& wrong :
         std::vector<std::vector<int64_t>>{{0, 1, 2}, {1, 0, 1}, {0, 1}, {-1, 0, 0}}) {
      Completion bad = begun;
      bad.rollouts[2].generation.versions = wrong;
      CHECK_THROWS_AS(controller.complete(bad), InvalidArgument);
    }
    controller.complete(begun);
    work_off(controller, kScore);
  }
  Controller after = stage.controller(plan(1));
  after.open_step(2, weights(1));
  const ClosedBatch* batch = after.close_step();
  REQUIRE(batch);
  CHECK(batch->samples[0].rollout.versions == std::vector<int64_t>{0, 1, 1});
  CHECK(batch->samples[0].rollout.weight_version == 0);
  CHECK(batch->samples[1].rollout.versions.empty());
  CHECK(batch->samples[1].rollout.weight_version == 1);
  CHECK(figure(*batch, "staleness/mean") == Approx(0.75));
}

TEST_CASE("a rejected prompt is replaced at the end of what is issued", "[actors][cpu]") {
  Stage stage;
  const auto accept = [](const std::vector<ScoredSample>& group) -> std::optional<std::string> {
    if (group[0].rollout.id.ordinal == 1) return "dull";
    return std::nullopt;
  };
  Controller controller = stage.controller(plan(1), accept);
  controller.open_step(1, weights(0));
  work_off(controller, kGenerate);
  work_off(controller, kScore);
  const ClosedBatch* batch = controller.close_step();
  REQUIRE(batch);
  CHECK(ordinals(*batch) == std::vector<int64_t>{0, 2});
  CHECK(batch->dropped.at("dull").size() == 2);
  commit(controller);
  controller.open_step(2, weights(1));
  const auto lease = controller.lease("w", kGenerate, 100);
  // Prompt 4 in place of 1, and 5 and 6 of step 3.
  CHECK(lease->generate.front().id.ordinal == 4);
  CHECK(lease->generate.back().id.ordinal == 6);
  CHECK(stage.ledger->balance(0).holds());
}

TEST_CASE("a new controller goes on with what was sampled ahead", "[actors][cpu]") {
  Stage stage;
  {
    Controller controller = stage.controller(plan(2));
    controller.open_step(1, weights(0));
    work_off(controller, kGenerate, 10);  // of 12
    work_off(controller, kScore, 7);
    commit(controller);
  }
  Controller controller = stage.controller(plan(2));
  controller.open_step(2, weights(1));
  // The tenth sample is the first of prompt 5 and waits for nothing; 8 of two steps are new.
  CHECK(controller.waiting(kGenerate) == 2 + 4);
  CHECK(controller.waiting(kScore) == 3);
  work_off(controller, kScore);
  const ClosedBatch* batch = controller.close_step();
  REQUIRE(batch);
  CHECK(ordinals(*batch) == std::vector<int64_t>{2, 3});
  CHECK(figure(*batch, "staleness/max") == 1);
}

TEST_CASE("a run that goes on with a lower bound drops what is beyond it", "[actors][cpu]") {
  Stage stage;
  {
    Controller controller = stage.controller(plan(2));
    controller.open_step(1, weights(0));
    work_off(controller, kGenerate);
    work_off(controller, kScore);
    commit(controller);
  }
  Controller controller = stage.controller(plan(0));
  controller.open_step(2, weights(1));
  CHECK_FALSE(controller.close_step());  // prompts 2 and 3 are a step old: others take their place
  CHECK_FALSE(controller.close_step());  // and so are 4 and 5
  CHECK(controller.waiting(kGenerate) == 4);
  work_off(controller, kGenerate);
  work_off(controller, kScore);
  const ClosedBatch* batch = controller.close_step();
  REQUIRE(batch);
  CHECK(ordinals(*batch) == std::vector<int64_t>{6, 7});
  CHECK(batch->dropped.at("staler than max_staleness 0").size() == 8);
  commit(controller);
  CHECK(stage.ledger->balance(0).holds());
  CHECK(stage.ledger->balance(0).pending() == 0);
}

TEST_CASE("an evaluation goes first and takes nothing away", "[actors][cpu]") {
  Stage stage;
  Controller controller = stage.controller(plan(1));
  controller.open_step(1, weights(0));
  work_off(controller, kGenerate, 4);
  const auto ahead = controller.lease("a", kGenerate, 2);
  work_off(controller, kScore);
  commit(controller);
  controller.open_evaluation(1, 3, weights(1));
  const auto asked = controller.lease("b", kGenerate, 100);
  CHECK(asked->purpose == Purpose::kEvaluation);
  CHECK(asked->generate.size() == 3);
  CHECK(asked->weights.version.step == 1);
  // Meanwhile idle workers sample ahead, and what they bring counts.
  const auto rest = controller.lease("c", kGenerate, 100);
  CHECK(rest->purpose == Purpose::kPolicy);
  controller.complete(answer(*ahead, "a"));
  controller.complete(answer(*asked, "b"));
  CHECK(controller.lease("c", kScore, 3)->purpose == Purpose::kEvaluation);
  controller.worker_lost("c", false);
  for (int i = 0; i < 2; ++i) work_off(controller, kScore);
  REQUIRE(controller.close_evaluation());
  CHECK(controller.close_evaluation()->samples.size() == 3);
  controller.open_step(2, weights(1));
  CHECK(controller.ready() == 2);
  CHECK(controller.waiting(kGenerate) == 2 + 4);
}

namespace {

/// A run in which everything happens at random: workers of different speed that die and come late,
/// responses that go on under newer weights, prompts that are rejected, controllers that restart.
class Simulation {
 public:
  Simulation(uint64_t seed, int64_t max_staleness, int64_t steps)
      : random_(seed), plan_(plan(max_staleness, steps)), steps_(steps) {
    start();
  }

  /// The largest staleness of any sample.
  int64_t run() {
    int64_t worst = 0;
    while (step_ <= steps_) {
      if (chance(2)) restart();
      act(names_[below(names_.size())]);
      // An update takes as long as some pieces of work.
      const ClosedBatch* batch = chance(30) ? controller_->close_step() : nullptr;
      if (!batch) continue;
      CHECK(ordinals(*batch).size() == 2);
      for (const ScoredSample& sample : batch->samples)
        worst = std::max(worst, step_ - 1 - sample.rollout.weight_version);
      commit(*controller_);
      CHECK(stage_.ledger->balance(0).holds());
      ++step_;
      if (step_ <= steps_) controller_->open_step(step_, weights(step_ - 1));
    }
    const Balance balance = stage_.ledger->balance(0);
    CHECK(balance.trained == 4 * steps_);
    CHECK(balance.issued == balance.trained + balance.total_dropped());
    CHECK(stage_.ledger->verify().empty());
    return worst;
  }

 private:
  bool chance(uint64_t percent) { return below(100) < percent; }
  size_t below(size_t count) { return random_() % count; }

  void start() {
    controller_.reset(new Controller(
        stage_.controller(plan_, [](const auto& group) -> std::optional<std::string> {
          if (group[0].rollout.id.ordinal % 7 == 3) return "dull";
          return std::nullopt;
        })));
    controller_->open_step(step_, weights(step_ - 1));
  }
  void restart() {
    controller_.reset();
    start();
  }

  void act(const std::string& name) {
    const auto held = held_.find(name);
    if (held == held_.end()) {
      const LeaseKind kind = chance(50) ? kGenerate : kScore;
      if (auto lease = controller_->lease(name, kind, 1 + static_cast<int64_t>(below(5))))
        held_[name] = *lease;
    } else if (chance(10)) {
      controller_->worker_lost(name, false);
      if (chance(50)) held_.erase(held);  // else its results come, late
    } else if (chance(60)) {
      Completion done = answer(held->second, name);
      for (RolloutResult& one : done.rollouts) {
        const int64_t from = held->second.weights.version.step;
        const int64_t newer = from + static_cast<int64_t>(below(static_cast<size_t>(step_ - from)));
        if (chance(50)) one.generation.versions = {from, newer, newer};
      }
      controller_->complete(std::move(done));
      held_.erase(held);
    }
  }

  std::mt19937_64 random_;
  const OnlinePlan plan_;
  const int64_t steps_;
  Stage stage_;
  std::unique_ptr<Controller> controller_;
  int64_t step_ = 1;
  const std::vector<std::string> names_ = {"a", "b", "c"};
  std::map<std::string, Lease> held_;
};

}  // namespace

TEST_CASE("whatever happens, no batch holds a sample beyond the bound, and none is lost",
          "[actors][cpu]") {
  for (const int64_t bound : {0, 1, 2, 4}) {
    int64_t worst = 0;
    for (uint64_t seed = 1; seed <= 4; ++seed) {
      CAPTURE(bound, seed);
      const int64_t stalest = Simulation(seed, bound, 12).run();
      CHECK(stalest <= bound);
      worst = std::max(worst, stalest);
    }
    CHECK(worst == bound);  // and the bound is made use of
  }
}

}  // namespace praetor
