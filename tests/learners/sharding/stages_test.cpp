// Learners that keep gradients (stage 2) and weights (stage 3) in parts, against those that do not.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/model/kernels/packed_weight.h"
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

/// Bytes of memory behind the weights of `model`.
size_t held_bytes(const Transformer& model) {
  size_t out = 0;
  for (const NamedTensor& p : model.parameters()) out += p.tensor.storage().nbytes();
  return out;
}

}  // namespace

TEST_CASE("with one micro-batch a rank, stages 2 and 3 have the bits of stage 1",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : learner_cases()) {
    for (const int32_t world : {1, 2, 3, 4}) {
      const CaseOptions first{.micro_batch_tokens = 8192, .tied = world % 2 == 0};
      const Trained wanted = train(name, world, 0, 2, first);
      REQUIRE(wanted.errors == none(world));
      for (const int64_t stage : {2, 3}) {
        INFO(name << ", " << world << " ranks, stage " << stage);
        CaseOptions options = first;
        options.stage = stage;
        const Trained got = train(name, world, 0, 2, options);
        CHECK(got.errors == none(world));
        CHECK(got.weights == wanted.weights);
        CHECK(got.state_json == wanted.state_json);
        for (size_t r = 0; r < got.last.size(); ++r) {
          CHECK(got.last[r].loss_digest == wanted.last[r].loss_digest);
          CHECK(got.last[r].manifest == wanted.last[r].manifest);
          CHECK(got.last[r].gradient_digest == got.last[0].gradient_digest);
        }
        CHECK(at::equal(flat_state(joined(name, got, first)),
                        flat_state(joined(name, wanted, first))));
      }
    }
  }
}

TEST_CASE("with many micro-batches, stages 2 and 3 have each other's bits and stage 1's numbers",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : learner_cases()) {
    for (const int32_t world : {2, 3}) {
      const Trained one = train(name, world, 0, 2), two = train(name, world, 0, 2, {.stage = 2}),
                    three = train(name, world, 0, 2, {.stage = 3});
      INFO(name << ", " << world << " ranks: " << two.errors[0] << three.errors[0]);
      CHECK(two.weights == three.weights);
      CHECK(two.last[0].loss_digest == three.last[0].loss_digest);
      CHECK(two.last[0].gradient_digest == three.last[0].gradient_digest);
      CHECK(two.last[0].metrics == three.last[0].metrics);
      CHECK(relative_distance(flat_state(joined(name, three), true),
                              flat_state(joined(name, one), true)) < 1e-6);
    }
  }
}

TEST_CASE("between calls stage 3 holds a part, and two units within them and those ahead beside it",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name :
       std::vector<std::string>{"sft", "dpo", "ppo", "ppo_shared", "reward_model"}) {
    for (const auto& [tied, prefetch] :
         std::vector<std::pair<bool, int64_t>>{{true, 0}, {false, 0}, {true, 1}, {false, 3}}) {
      const CaseOptions options{.stage = 3, .tied = tied, .layers = 6, .prefetch = prefetch};
      const int32_t world = 4;
      std::vector<size_t> before(world), after(world);
      std::vector<UnitMeter> meters(world);
      const Learner whole = make_case(name, nullptr, options);
      // Not of the ranks' own policy, which would have to be brought together for it.
      const Experience experience =
          whole.has_policy() ? testing::make_experience(testing::mixed_rolls(), whole.policy())
                             : Experience();
      const int64_t packed = ops::kernels::packed_weight_stats().entries;
      const auto errors = run_ranks(world, [&](Collective& ranks) {
        const auto r = static_cast<size_t>(ranks.rank());
        Learner learner = make_case(name, &ranks, options);
        const auto held = [&] {
          size_t bytes = learner.has_policy() ? held_bytes(learner.policy()) : 0;
          if (learner.companion()) bytes += held_bytes(*learner.companion());
          if (learner.algorithm().models().reward_model ||
              learner.algorithm().models().critic == CriticKind::kSeparate)
            bytes += held_bytes(learner.scalar().backbone);
          return bytes;
        };
        before[r] = held();
        if (learner.algorithm().online()) {
          Experience mine = experience;
          learner.update(mine);
        } else {
          update_case(name, learner, 0);
        }
        after[r] = held();
        meters[r] = learner.unit_meter();
      });
      INFO(name << ", tied " << tied << ", prefetch " << prefetch);
      CHECK(errors == none(world));
      CHECK(before == std::vector<size_t>(world, 0));
      CHECK(after == std::vector<size_t>(world, 0));
      CHECK(ops::kernels::packed_weight_stats().entries <= packed);
      int64_t largest = 0, all = 0;
      const auto count = [&](const Transformer& model) {
        for (const NamedTensor& p : model.parameters()) {
          all += static_cast<int64_t>(p.tensor.nbytes());
          if (p.name.starts_with("model.layers.0.") || p.name.find("embed") != std::string::npos)
            largest += static_cast<int64_t>(p.tensor.nbytes());
        }
      };
      if (whole.has_policy()) count(whole.policy());
      if (whole.companion()) count(*whole.companion());
      if (whole.algorithm().models().critic == CriticKind::kSeparate || !whole.has_policy())
        count(whole.scalar().backbone);
      int64_t gradients = 0;
      for (const UnitMeter& meter : meters) {
        gradients = std::max(gradients, meter.peak_gradient_bytes);
        CHECK(meter.units == 0);
        CHECK(meter.bytes == 0);
        CHECK(meter.peak_units >= 1 + prefetch);
        CHECK(meter.peak_units <= 2 + prefetch);
        CHECK(meter.peak_bytes > 0);
        CHECK(meter.peak_bytes < all * (1 + prefetch) / 4);
        CHECK(meter.part_bytes >= all / world);
        CHECK(meter.part_bytes < all / world + all / 8);  // units round up to whole sixteens
        CHECK(meter.peak_gradient_bytes <= (prefetch > 0 ? 2 * largest + largest / 4 : largest));
      }
      CHECK(gradients > 0);
    }
  }
}

TEST_CASE("stage 2 keeps whole gradients of a layer at a time", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const CaseOptions options{.stage = 2, .tied = false, .layers = 6, .prefetch = 0};
  CaseOptions beside = options;
  beside.prefetch = 1;
  const Trained group = train("sft", 2, 0, 1, options), overlapped = train("sft", 2, 0, 1, beside);
  REQUIRE(group.errors == none(2));
  REQUIRE(overlapped.errors == none(2));
  const Learner whole = make_case("sft", nullptr, options);
  int64_t layer = 0;
  for (const NamedTensor& p : whole.policy().parameters()) {
    if (p.name.starts_with("model.layers.0.")) layer += static_cast<int64_t>(p.tensor.nbytes());
  }
  for (const UnitMeter& meter : group.meters) {
    CHECK(meter.peak_gradient_bytes == layer);
    CHECK(meter.part_bytes == 0);  // all weights are here
  }
  for (const UnitMeter& meter : overlapped.meters) {
    CHECK(meter.peak_gradient_bytes > layer);  // one is summed while the next one comes to be
    CHECK(meter.peak_gradient_bytes <= 2 * layer + layer / 4);
  }
}

TEST_CASE("exchanges beside the computation move no bit", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : learner_cases()) {
    for (const int64_t stage : {2, 3}) {
      const int32_t world = stage == 2 ? 2 : 3;
      for (const bool tied : {true, false}) {
        const Trained wanted =
            train(name, world, 0, 2, {.stage = stage, .tied = tied, .prefetch = 0});
        REQUIRE(wanted.errors == none(world));
        for (const int64_t prefetch : {1, 2, 9}) {
          INFO(name << ", stage " << stage << ", tied " << tied << ", prefetch " << prefetch);
          const Trained got =
              train(name, world, 0, 2, {.stage = stage, .tied = tied, .prefetch = prefetch});
          CHECK(got.errors == none(world));
          CHECK(got.weights == wanted.weights);
          CHECK(got.state_json == wanted.state_json);
          for (size_t r = 0; r < got.last.size(); ++r) {
            CHECK(got.last[r].loss_digest == wanted.last[r].loss_digest);
            CHECK(got.last[r].gradient_digest == wanted.last[r].gradient_digest);
          }
        }
      }
    }
  }
}

TEST_CASE("a state saved at one stage by some ranks loads at any other on any number",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name :
       std::vector<std::string>{"sft", "ppo", "ppo_shared", "reward_model", "attribute_gate"}) {
    for (const auto& [old_stage, old_world] :
         std::vector<std::pair<int64_t, int32_t>>{{1, 3}, {2, 4}, {3, 2}, {3, 3}}) {
      const Trained saved = train(name, old_world, 0, 2, {.stage = old_stage});
      REQUIRE(saved.errors == none(old_world));
      const at::Tensor whole = flat_state(joined(name, saved));
      for (const int64_t stage : {1, 2, 3}) {
        for (const int32_t world : {1, 2, 4}) {
          INFO(name << " from stage " << old_stage << " on " << old_world << " to " << stage
                    << " on " << world);
          const Trained loaded =
              train(name, world, 0, 0, {.seed = 9, .stage = stage}, [&](Learner& learner) {
                learner.load_state(saved.shards, saved.state_json[0]);
              });
          CHECK(loaded.errors == none(world));
          CHECK(at::equal(flat_state(joined(name, loaded)), whole));
          if (name == "attribute_gate") continue;  // its frozen model is not part of the state
          CHECK(loaded.weights == std::vector<std::string>(size_t(world), saved.weights[0]));
        }
      }
    }
  }
}

TEST_CASE("stage 3 that is saved and loaded goes on as if it had not stopped", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : std::vector<std::string>{"sft", "ppo"}) {
    const CaseOptions options{.stage = 3};
    const Trained first = train(name, 3, 0, 2, options), straight = train(name, 3, 0, 4, options);
    const Trained resumed = train(name, 3, 2, 4, options, [&](Learner& learner) {
      learner.load_state(first.shards, first.state_json[0]);
    });
    CHECK(resumed.errors == none(3));
    CHECK(resumed.weights == straight.weights);
    CHECK(resumed.last[0].gradient_digest == straight.last[0].gradient_digest);
    CHECK(resumed.last[0].metrics == straight.last[0].metrics);
  }
}

TEST_CASE("weights in parts are visited unit by unit on the first rank", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const std::string wanted = make_case("dpo", nullptr).policy().digest();
  for (const int64_t stage : {1, 3}) {
    std::vector<std::string> digests(3), thrown(3);
    std::vector<int64_t> most(3);
    size_t calls = 0;
    const auto errors = run_ranks(3, [&](Collective& ranks) {
      const auto r = static_cast<size_t>(ranks.rank());
      Learner learner = make_case("dpo", &ranks, {.stage = stage});
      Transformer copy = make_case("dpo", nullptr).policy().clone();
      const at::NoGradGuard no_grad;
      for (const NamedTensor& t : copy.parameters()) t.tensor.zero_();
      const auto& parameters = learner.policy().parameters();
      learner.visit_weights(parameters, [&](std::span<const NamedTensor> some) {
        ++calls;
        for (const NamedTensor& t : some) {
          const auto to = std::ranges::find(copy.parameters(), t.name, &NamedTensor::name)->tensor;
          if (to.count_nonzero().item<int64_t>() != 0) throw InternalError(t.name, " came twice");
          to.copy_(t.tensor);
        }
      });
      digests[r] = copy.digest();
      most[r] = learner.unit_meter().peak_units;
      // A visitor that fails leaves the ranks in step, and the next visit works.
      try {
        learner.visit_weights(parameters, [&](auto) { throw IoError("no room"); });
      } catch (const IoError& failure) {
        thrown[r] = failure.what();
      }
      int64_t elements = 0, expected = 0;
      learner.visit_weights(parameters, [&](std::span<const NamedTensor> some) {
        for (const NamedTensor& t : some) elements += t.tensor.numel();
      });
      for (const NamedTensor& t : parameters) expected += t.tensor.numel();
      if (elements != (r == 0 ? expected : 0)) throw InternalError("elements ", elements);
    });
    CHECK(errors == std::vector<std::string>(3));
    CHECK(digests[0] == wanted);
    CHECK(thrown == std::vector<std::string>{"no room", "", ""});
    if (stage == 3) {
      CHECK(calls > 2);
      CHECK(most == std::vector<int64_t>(3, 1));
    }
  }
}

TEST_CASE("weights in parts are read where they are brought together", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const std::string wanted = make_case("dpo", nullptr).policy().digest();
  std::vector<std::string> first(3), every(3), alone(3);
  std::vector<int> empty(3);
  const auto errors = run_ranks(3, [&](Collective& ranks) {
    const auto r = static_cast<size_t>(ranks.rank());
    Learner learner = make_case("dpo", &ranks, {.stage = 3});
    {
      const auto whole = learner.gather_weights({&learner.policy(), learner.companion(), nullptr});
      if (r == 0) first[r] = learner.policy().digest() + learner.companion()->digest();
      empty[r] = held_bytes(learner.policy()) == 0;
    }
    {
      const auto whole = learner.gather_weights({&learner.policy()}, true);
      every[r] = learner.policy().digest();
      const at::NoGradGuard no_grad;
      learner.policy().hidden(pack({{1, 2, 3}}));  // no pass: no other rank is asked
      if (held_bytes(*learner.companion()) > 0) throw InternalError("not asked for");
    }
    try {
      learner.policy().hidden(pack({{1, 2, 3}}));
    } catch (const InternalError& error) {
      alone[r] = error.what();
    }
  });
  CHECK(errors == none(3));
  CHECK(first == std::vector<std::string>{wanted + wanted, "", ""});
  CHECK(empty == std::vector<int>{0, 1, 1});
  CHECK(every == std::vector<std::string>(3, wanted));
  CHECK_THAT(alone[1], Catch::Contains("weights are in parts"));
}

TEST_CASE("forwards without gradient have the bits of one rank at stage 3", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const Learner alone = make_case("ppo", nullptr);
  const Experience e = testing::make_experience(testing::mixed_rolls(), alone.policy());
  const at::Tensor logprob = alone.policy_logprobs(e), reference = alone.reference_logprobs(e);
  const Metrics text = alone.evaluate(testing::example_pairs());
  std::vector<int> same(4);
  CHECK(run_ranks(4, [&](Collective& ranks) {
          const Learner mine = make_case("ppo", &ranks, {.stage = 3});
          same[static_cast<size_t>(ranks.rank())] =
              at::equal(mine.policy_logprobs(e), logprob) &&
              at::equal(mine.reference_logprobs(e), reference) &&
              mine.evaluate(testing::example_pairs()) == text;
        }) == none(4));
  CHECK(same == std::vector<int>(4, 1));
}

TEST_CASE("what fails on one rank in a pass is the same error on all, and the group stays whole",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const int64_t stage : {2, 3}) {
    auto pairs = testing::example_pairs();
    pairs[8].margin = std::nan("");  // of the last pair, which the last rank takes
    std::vector<int> kept(3);
    std::vector<std::string> next(3), tokens(3);
    const auto errors = run_ranks(3, [&](Collective& ranks) {
      const auto r = static_cast<size_t>(ranks.rank());
      Learner learner = make_case("reward_model", &ranks, {.stage = stage});
      const std::string before = testing::weights_digest(learner);
      try {
        learner.update(pairs);
      } catch (const DataError&) {
        kept[r] = testing::weights_digest(learner) == before;
        auto wrong = testing::example_pairs();
        wrong[3].tokens[0] = 99;  // met by one rank, before its first layer
        try {
          learner.update(wrong);
        } catch (const DataError& error) {
          tokens[r] = error.what();
        }
        learner.update(testing::example_pairs());
        next[r] = testing::weights_digest(learner);
        throw;
      }
    });
    CHECK(kept == std::vector<int>(3, 1));
    CHECK_THAT(errors[0], Catch::Contains("the loss is") && Catch::Contains("sequences 8 to 9"));
    CHECK(errors == Errors(3, errors[0]));
    CHECK_THAT(tokens[0], Catch::Contains("99"));
    CHECK(tokens == Errors(3, tokens[0]));
    const Trained clean = train("reward_model", 3, 0, 1, {.stage = stage});
    CHECK(next == clean.weights);
  }
}

TEST_CASE("ranks that get nothing take part at stages 2 and 3 all the same", "[learners][cpu]") {
  const testing::OneThread one_thread;
  std::vector<std::string> wanted;
  for (const int64_t stage : {1, 2, 3}) {
    std::vector<std::string> digests(4);
    CHECK(run_ranks(4, [&](Collective& ranks) {
            Learner learner = make_case("sft", &ranks, {.stage = stage});
            learner.update({testing::make_example({1, 2}, {3, 4, 5})});
            if (learner.update({testing::make_example({1, 2}, {})}).optimizer_steps != 0)
              throw InternalError("a step on no targets");
            learner.update(std::vector<Example>{});
            digests[static_cast<size_t>(ranks.rank())] = testing::weights_digest(learner);
          }) == none(4));
    if (wanted.empty()) wanted = digests;
    CHECK(digests == wanted);
  }
}

TEST_CASE("ranks of different stages are refused", "[learners][cpu]") {
  const auto errors = run_ranks(
      2, [](Collective& ranks) { make_case("sft", &ranks, {.stage = 1 + ranks.rank()}); });
  CHECK_THAT(errors[0], Catch::Contains("sharding stage differs"));
  CHECK(errors[1] == errors[0]);
}

TEST_CASE("a sharding stage is 1, 2 or 3", "[learners][cpu]") {
  const auto stage_of = [](const std::string& text, std::vector<std::string>* errors = nullptr) {
    const auto document = YamlDocument::parse(text, "run.yaml");
    const LearnerConfig config = LearnerConfig::from_yaml(document->root());
    if (errors) *errors = document->errors();
    return config.sharding.stage;
  };
  CHECK(stage_of("{}") == 1);
  CHECK(stage_of("sharding: {stage: 3}") == 3);
  std::vector<std::string> errors;
  stage_of("sharding: {stage: 4}", &errors);
  REQUIRE(errors.size() == 1);
  CHECK_THAT(errors[0], Catch::Contains("run.yaml:1:19: sharding.stage: 4 is outside [1, 3]"));
  stage_of("sharding: {prefetch: -1}", &errors);
  REQUIRE(errors.size() == 1);
  CHECK_THAT(errors[0], Catch::Contains("run.yaml:1:22: sharding.prefetch: -1 is"));
  stage_of("activation_checkpointing: blocks", &errors);
  REQUIRE(errors.size() == 1);
  CHECK_THAT(errors[0], Catch::Contains("did you mean \"block\""));
  stage_of("sharding: {stages: 3}", &errors);
  REQUIRE(errors.size() == 1);
  CHECK_THAT(errors[0], Catch::Contains("did you mean \"stage\""));
}

}  // namespace praetor
