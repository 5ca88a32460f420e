// Groups of ranks that keep a copy each (sharding.group), in parts within the group.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <cmath>
#include <thread>

#include "core/base/error.h"
#include "tests/learners/sharding/cases.h"
#include "tests/learners/sharding/train_group.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"

namespace praetor {

using namespace testing;

namespace {

using Errors = std::vector<std::string>;

Errors none(int32_t world) {
  return Errors(static_cast<size_t>(world));
}

/// Ranks, and those of them that keep a copy.
const std::vector<std::pair<int32_t, int64_t>> kLayouts{{2, 1}, {2, 2}, {4, 1}, {4, 2}, {4, 4}};

/// A case's options in a layout.
CaseOptions in(CaseOptions options, int64_t stage, int64_t group) {
  options.stage = stage;
  options.group = group;
  return options;
}

}  // namespace

TEST_CASE("with one micro-batch a rank, every stage of a group has the bits of stage 1",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : learner_cases()) {
    for (const auto& [world, group] : kLayouts) {
      const CaseOptions first{.micro_batch_tokens = 8192, .tied = group != 2, .group = group};
      const Trained wanted = train(name, world, 0, 2, first);
      INFO(name << ", " << world << " ranks in groups of " << group);
      REQUIRE(wanted.errors == none(world));
      CHECK(wanted.weights == Errors(static_cast<size_t>(world), wanted.weights[0]));
      for (const int64_t stage : {2, 3}) {
        const Trained got = train(name, world, 0, 2, in(first, stage, group));
        CHECK(got.errors == none(world));
        CHECK(got.weights == wanted.weights);
        CHECK(got.state_json == wanted.state_json);
        for (size_t r = 0; r < got.last.size(); ++r) {
          CHECK(got.last[r].loss_digest == wanted.last[r].loss_digest);
          CHECK(got.last[r].gradient_digest == got.last[0].gradient_digest);
        }
        CHECK(at::equal(flat_state(joined(name, got, first)),
                        flat_state(joined(name, wanted, first))));
      }
      // One group is no group; and groups of one add in the order of the ranks, as stage 1 does.
      const Trained whole = train(name, world, 0, 2, in(first, 1, 0));
      if (group == world) CHECK(whole.last[0].gradient_digest == wanted.last[0].gradient_digest);
      if (group != 2 || world == 2) CHECK(whole.weights == wanted.weights);
    }
  }
}

TEST_CASE("with many micro-batches stages 2 and 3 of a group have each other's bits",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : learner_cases()) {
    const Trained two = train(name, 4, 0, 2, in({}, 2, 2)),
                  three = train(name, 4, 0, 2, in({}, 3, 2));
    INFO(name);
    CHECK(two.errors == none(4));
    CHECK(two.weights == three.weights);
    CHECK(two.last[0].loss_digest == three.last[0].loss_digest);
    CHECK(two.last[0].gradient_digest == three.last[0].gradient_digest);
    CHECK(two.last[0].metrics == three.last[0].metrics);
    // Exchanges beside the computation, layers computed again: neither moves a bit.
    CaseOptions other = in({.prefetch = 0}, 3, 2);
    other.checkpointing = ActivationCheckpointing::kBlock;
    const Trained otherwise = train(name, 4, 0, 2, other);
    CHECK(otherwise.errors == none(4));
    CHECK(otherwise.weights == three.weights);
    CHECK(otherwise.last[0].gradient_digest == three.last[0].gradient_digest);
  }
}

TEST_CASE("adapters in groups have the same bits at every stage", "[learners][cpu]") {
  const testing::OneThread one_thread;
  LoraConfig lora;
  lora.rank = 2;
  for (const std::string& name : std::vector<std::string>{"sft", "dpo", "ppo", "reward_model"}) {
    const CaseOptions options{.lora = lora};
    Trained first;
    for (const int64_t stage : {1, 2, 3}) {
      const Trained ranks = train(name, 4, 0, 4, in(options, stage, 2));
      INFO(name << ", stage " << stage);
      REQUIRE(ranks.errors == none(4));
      if (stage == 1) first = ranks;
      CHECK(ranks.last[0].gradient_digest == first.last[0].gradient_digest);
      CHECK(ranks.weights == first.weights);
    }
  }
}

TEST_CASE("the first copy alone is the state, and it loads in any layout", "[learners][cpu]") {
  const testing::OneThread one_thread;
  struct Layout {
    int64_t stage;
    int32_t world;
    int64_t group;
  };
  const std::vector<Layout> layouts{
      {1, 1, 0}, {1, 4, 2}, {2, 4, 2}, {3, 4, 2}, {3, 4, 1}, {3, 2, 1}, {3, 3, 0}, {1, 2, 0}};
  for (const std::string& name :
       std::vector<std::string>{"sft", "ppo", "ppo_shared", "reward_model"}) {
    for (const Layout& from : layouts) {
      const Trained saved = train(name, from.world, 0, 2, in({}, from.stage, from.group));
      REQUIRE(saved.errors == none(from.world));
      const at::Tensor whole = flat_state(joined(name, saved));
      int64_t elements = 0;
      for (const NamedTensor& t : saved.shards) elements += t.tensor.numel();
      CHECK(elements == whole.numel());  // nothing is there twice
      for (const Layout& to : layouts) {
        if (from.group == 0 && to.group == 0) continue;  // stages_test.cpp
        INFO(name << " from stage " << from.stage << " on " << from.world << " in " << from.group
                  << " to stage " << to.stage << " on " << to.world << " in " << to.group);
        const Trained loaded =
            train(name, to.world, 0, 0, in({.seed = 9}, to.stage, to.group), [&](Learner& learner) {
              learner.load_state(saved.shards, saved.state_json[0]);
            });
        CHECK(loaded.errors == none(to.world));
        CHECK(at::equal(flat_state(joined(name, loaded)), whole));
        CHECK(loaded.weights == Errors(static_cast<size_t>(to.world), saved.weights[0]));
      }
    }
  }
}

TEST_CASE("groups that are saved and loaded go on as if they had not stopped", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : std::vector<std::string>{"sft", "ppo"}) {
    for (const int64_t stage : {1, 3}) {
      const CaseOptions options = in({}, stage, 2);
      const Trained first = train(name, 4, 0, 2, options), straight = train(name, 4, 0, 4, options);
      const Trained resumed = train(name, 4, 2, 4, options, [&](Learner& learner) {
        learner.load_state(first.shards, first.state_json[0]);
      });
      testing::check_same(resumed, straight);
    }
  }
}

TEST_CASE("other optimizers and bfloat16 go with groups", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& kind : std::vector<std::string>{"sgd", "adafactor", "adamw"}) {
    for (const int64_t stage : {1, 3}) {
      CaseOptions options = in({.optimizer = kind}, stage, 2);
      if (kind == "adamw") options.precision = options.state_dtype = at::kBFloat16;
      const Trained straight = train("sft", 4, 0, 4, options),
                    half = train("sft", 4, 0, 2, options);
      INFO(kind << ", stage " << stage << ": " << straight.errors[0]);
      REQUIRE(straight.errors == none(4));
      CHECK(straight.weights == Errors(4, straight.weights[0]));
      const auto load = [&](Learner& learner) {
        learner.load_state(half.shards, half.state_json[0]);
      };
      testing::check_same(train("sft", 4, 2, 4, options, load), straight);
      // And in another layout, where sums have another order.
      const Trained whole = train("sft", 3, 2, 4, in(options, 4 - stage, 0), load);
      REQUIRE(whole.errors == none(3));
      const double error = relative_distance(flat_state(joined("sft", whole, options), true),
                                             flat_state(joined("sft", straight, options), true));
      CHECK(error < (kind == "adamw" ? 1e-2 : 1e-5));
    }
  }
}

TEST_CASE("a rank of a group keeps its part of one copy, frozen networks too", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const CaseOptions options{.layers = 6};
  const Learner whole = make_case("dpo", nullptr, options);
  int64_t all = 0;
  for (const NamedTensor& p : whole.policy().parameters())
    all += 2 * static_cast<int64_t>(p.tensor.nbytes());  // and the reference
  for (const int64_t group : {2, 4}) {
    const Trained ranks = train("dpo", 4, 0, 1, in(options, 3, group));
    REQUIRE(ranks.errors == none(4));
    for (const UnitMeter& meter : ranks.meters) {
      CHECK(meter.units == 0);
      CHECK(meter.part_bytes >= all / group);
      CHECK(meter.part_bytes < all / group + all / 8);
      CHECK(meter.peak_units <= 3);
    }
  }
  // A rank that keeps all of a copy exchanges no weights.
  for (const UnitMeter& meter : train("dpo", 4, 0, 1, in(options, 3, 1)).meters)
    CHECK(meter.peak_units == 0);
}

TEST_CASE("the first copy's weights are visited and gathered, and no other's", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const std::string wanted = make_case("dpo", nullptr).policy().digest();
  std::vector<int64_t> elements(4), peak(4);
  std::vector<std::string> gathered(4);
  std::vector<int32_t> shards(4);
  CHECK(run_ranks(4, [&](Collective& ranks) {
          const auto r = static_cast<size_t>(ranks.rank());
          const Learner learner = make_case("dpo", &ranks, in({}, 3, 2));
          shards[r] = learner.state_shards();
          learner.visit_weights(learner.policy().parameters(),
                                [&](std::span<const NamedTensor> some) {
                                  for (const NamedTensor& t : some) elements[r] += t.tensor.numel();
                                });
          peak[r] = learner.unit_meter().peak_units;
          const auto first = learner.gather_weights({&learner.policy()});
          if (r == 0) gathered[r] = learner.policy().digest();
        }) == none(4));
  CHECK(elements[0] == testing::tiny_policy()->config().parameter_count());
  CHECK(std::vector<int64_t>(elements.begin() + 1, elements.end()) == std::vector<int64_t>(3, 0));
  CHECK(peak == std::vector<int64_t>{1, 1, 0, 0});
  CHECK(gathered == Errors{wanted, "", "", ""});
  CHECK(shards == std::vector<int32_t>(4, 2));
}

TEST_CASE("copies that come to differ are found out on every rank", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const int64_t stage : {1, 2}) {
    const auto errors = run_ranks(4, [&](Collective& ranks) {
      Learner learner = make_case("sft", &ranks, in({}, stage, 2));
      update_case("sft", learner, 0);
      if (ranks.rank() == 3) {
        // As memory does that is broken.
        const at::NoGradGuard no_grad;
        for (const NamedTensor& t : learner.policy().parameters()) t.tensor.mul_(1.5);
      }
      update_case("sft", learner, 1);
    });
    CHECK_THAT(errors[0], Catch::Contains("rank 3 keeps what rank 1 keeps, but their weights"));
    CHECK(errors == Errors(4, errors[0]));
  }
}

TEST_CASE("what fails on one rank of a group is the same error on all, and they stay whole",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const int64_t stage : {1, 2, 3}) {
    auto pairs = testing::example_pairs();
    pairs[8].margin = std::nan("");  // of the last pair, which the last rank takes
    std::vector<std::string> next(4);
    const auto errors = run_ranks(4, [&](Collective& ranks) {
      Learner learner = make_case("reward_model", &ranks, in({}, stage, 2));
      try {
        learner.update(pairs);
      } catch (const DataError&) {
        learner.update(testing::example_pairs());
        next[static_cast<size_t>(ranks.rank())] = testing::weights_digest(learner);
        throw;
      }
    });
    CHECK_THAT(errors[0], Catch::Contains("the loss is") && Catch::Contains("sequences 8 to 9"));
    CHECK(errors == Errors(4, errors[0]));
    CHECK(next == train("reward_model", 4, 0, 1, in({}, stage, 2)).weights);
  }
}

TEST_CASE("a rank that stops is named by its group, and the other group is told",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const int64_t stage : {2, 3}) {
    const auto errors = run_ranks(4,
                                  [&](Collective& ranks) {
                                    Learner learner = make_case("sft", &ranks, in({}, stage, 2));
                                    update_case("sft", learner, 0);
                                    if (ranks.rank() == 3)
                                      std::this_thread::sleep_for(std::chrono::milliseconds(3000));
                                    if (ranks.rank() != 3) update_case("sft", learner, 1);
                                  },
                                  {.deadline = std::chrono::milliseconds(1000)});
    CHECK(errors[3].empty());
    CHECK_THAT(
        errors[2],
        Catch::Contains("rank 2, group shards of ranks 2, 3: ") && Catch::Contains("in step 1"));
    // Who is late first says it; rank 2, which waits for rank 3, may not have told that yet.
    for (const size_t r : {0, 1, 2}) {
      CHECK_THAT(
          errors[r],
          Catch::Contains("(rank 3 did not come") || Catch::Contains("ranks 2, 3 did not come)"));
    }
  }
}

TEST_CASE("a group that does not divide the ranks is refused", "[learners][cpu]") {
  for (const int64_t group : {3, 8}) {
    const auto errors =
        run_ranks(4, [&](Collective& ranks) { make_case("sft", &ranks, in({}, 1, group)); });
    CHECK(errors ==
          Errors(4, str("sharding.group is ", group, ", which does not divide the 4 ranks")));
  }
  const auto differ = run_ranks(
      4, [](Collective& ranks) { make_case("sft", &ranks, in({}, 1, ranks.rank() < 2 ? 2 : 1)); });
  CHECK_THAT(differ[0], Catch::Contains("sharding group differs"));
  CHECK(make_case("sft", nullptr, in({}, 3, 2)).state_shards() == 1);  // one rank keeps everything
  const auto document = YamlDocument::parse("sharding: {group: 0}", "run.yaml");
  LearnerConfig::from_yaml(document->root());
  REQUIRE(document->errors().size() == 1);
  CHECK_THAT(document->errors()[0], Catch::Contains("run.yaml:1:19: sharding.group: 0"));
}

}  // namespace praetor
