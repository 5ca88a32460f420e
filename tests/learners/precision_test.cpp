// Learners whose forwards and backwards are in bfloat16, against float32.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "core/base/error.h"
#include "learners/algorithms/sft.h"
#include "learners/learner.h"
#include "tests/learners/sharding/cases.h"
#include "tests/learners/sharding/train_group.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"

namespace praetor {

using namespace testing;

namespace {

CaseOptions coarse(CaseOptions options = {}) {
  options.precision = at::kBFloat16;
  return options;
}

const char* norm_of(const std::string& name) {
  return name == "reward_model" ? "rm/grad_norm" : "policy/grad_norm";
}

}  // namespace

TEST_CASE("ten steps in bfloat16 follow float32", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string name : {"sft", "ppo", "ppo_shared", "grpo", "dpo", "reward_model"}) {
    CAPTURE(name);
    Learner fine = make_case(name, nullptr), half = make_case(name, nullptr, coarse());
    for (int step = 0; step < 10; ++step) {
      CAPTURE(step);
      const StepReport wanted = update_case(name, fine, step), got = update_case(name, half, step);
      // bfloat16 has 8 bits: activations are off by 0.4 % each, losses and norms by a few of those.
      CHECK(loss_of(name, got) == Approx(loss_of(name, wanted)).epsilon(0.03).margin(0.03));
      CHECK(metric(got, norm_of(name)) ==
            Approx(metric(wanted, norm_of(name))).epsilon(0.08).margin(0.02));
      // At dpo's first step both are log 2.
      if (step > 0) CHECK(got.loss_digest != wanted.loss_digest);
    }
    // Weights stay float32, and go the same way.
    CHECK(relative_distance(flat_state(half, true), flat_state(fine, true)) < 0.02);
    for (const NamedTensor& t : half.state()) CHECK(t.tensor.scalar_type() == at::kFloat);
  }
}

TEST_CASE("in bfloat16 stages have the bits of each other, and ranks the numbers of one",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : learner_cases()) {
    CAPTURE(name);
    const CaseOptions options = coarse({.micro_batch_tokens = 8192, .tied = name != "sft"});
    Learner alone = make_case(name, nullptr, options);
    for (int step = 0; step < 2; ++step) update_case(name, alone, step);
    for (const int32_t world : {2, 3}) {
      Trained first;
      for (const int64_t stage : {1, 2, 3}) {
        CAPTURE(world, stage);
        CaseOptions staged = options;
        staged.stage = stage;
        const Trained got = train(name, world, 0, 2, staged);
        REQUIRE(got.errors == std::vector<std::string>(static_cast<size_t>(world)));
        if (stage == 1) first = got;
        CHECK(got.weights == first.weights);
        for (const std::string& digest : got.weights) CHECK(digest == got.weights[0]);
        CHECK(got.last[0].loss_digest == first.last[0].loss_digest);
        const Learner whole = joined(name, got, options);
        CHECK(relative_distance(flat_state(whole, true), flat_state(alone, true)) < 1e-3);
      }
    }
  }
}

TEST_CASE("adapters learn beside bfloat16 copies of the weights", "[learners][cpu]") {
  const testing::OneThread one_thread;
  CaseOptions options{.micro_batch_tokens = 8192, .lora = LoraConfig{.rank = 4}};
  for (const std::string name : {"sft", "ppo", "ppo_shared", "dpo", "reward_model"}) {
    CAPTURE(name);
    Learner fine = make_case(name, nullptr, options),
            half = make_case(name, nullptr, coarse(options));
    for (int step = 0; step < 5; ++step) {
      const StepReport wanted = update_case(name, fine, step), got = update_case(name, half, step);
      CHECK(loss_of(name, got) == Approx(loss_of(name, wanted)).epsilon(0.03).margin(0.03));
      CHECK(metric(got, norm_of(name)) ==
            Approx(metric(wanted, norm_of(name))).epsilon(0.08).margin(0.02));
      if (step > 0) CHECK(got.loss_digest != wanted.loss_digest);
    }
    for (const NamedTensor& t : half.state()) CHECK(t.tensor.scalar_type() == at::kFloat);
    Trained first;
    for (const int64_t stage : {1, 3}) {
      CAPTURE(stage);
      options.stage = stage;
      const Trained got = train(name, 2, 0, 2, coarse(options));
      REQUIRE(got.errors == std::vector<std::string>(2));
      if (stage == 1) first = got;
      CHECK(got.weights == first.weights);
      CHECK(got.last[0].loss_digest == first.last[0].loss_digest);
    }
    options.stage = 1;
  }
}

TEST_CASE("what a backward computes again in bfloat16 has the bits of what it was",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string name : {"ppo", "dpo"}) {
    for (const int64_t stage : {1, 3}) {
      CAPTURE(name, stage);
      CaseOptions options = coarse({.stage = stage});
      const Trained kept = train(name, 2, 0, 2, options);
      for (const auto kind :
           {ActivationCheckpointing::kSelective, ActivationCheckpointing::kBlock}) {
        options.checkpointing = kind;
        const Trained again = train(name, 2, 0, 2, options);
        CHECK(again.errors == std::vector<std::string>(2));
        CHECK(again.weights == kept.weights);
        CHECK(again.last[0].gradient_digest == kept.last[0].gradient_digest);
      }
    }
  }
}

TEST_CASE("steps below bfloat16's resolution add up in the float32 weights", "[learners][cpu]") {
  const testing::OneThread one_thread;
  CaseOptions options = coarse({.max_grad_norm = 0, .learning_rate = 1e-5});
  for (const int32_t world : {1, 2}) {
    options.stage = world == 1 ? 1 : 3;
    std::vector<double> first(2), last(2), moved(2), seen(2);
    CHECK(run_ranks(world, [&](Collective& ranks) {
            const auto r = static_cast<size_t>(ranks.rank());
            Learner learner = make_case("sft", &ranks, options);
            const at::Tensor start = flat_state(learner, true);
            for (int step = 0; step < 60; ++step) {
              last[r] = loss_of("sft", update_case("sft", learner, step));
              if (step > 0) continue;
              first[r] = last[r];
              const at::Tensor now = flat_state(learner, true);
              // One step shows in few of the numbers that bfloat16 can hold.
              seen[r] = now.to(at::kBFloat16)
                            .ne(start.to(at::kBFloat16))
                            .to(at::kDouble)
                            .mean()
                            .item<double>();
            }
            moved[r] = (flat_state(learner, true) - start).abs().mean().item<double>();
          }) == std::vector<std::string>(static_cast<size_t>(world)));
    CHECK(seen[0] < 0.05);
    CHECK(moved[0] > 30 * 1e-5);  // of at most 60
    CHECK(last[0] < first[0] - 0.005);
  }
}

TEST_CASE("a loss that is not finite leaves weights and their copies as they were",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const int64_t stage : {1, 2, 3}) {
    const CaseOptions options = coarse({.stage = stage});
    auto pairs = testing::example_pairs();
    pairs[8].margin = std::nan("");
    std::vector<std::string> next(3);
    const auto errors = run_ranks(3, [&](Collective& ranks) {
      Learner learner = make_case("reward_model", &ranks, options);
      try {
        learner.update(pairs);
      } catch (const DataError&) {
        learner.update(testing::example_pairs());
        next[static_cast<size_t>(ranks.rank())] = testing::weights_digest(learner);
        throw;
      }
    });
    CHECK_THAT(errors[0], Catch::Contains("the loss is"));
    CHECK(errors == std::vector<std::string>(3, errors[0]));
    CHECK(next == train("reward_model", 3, 0, 1, options).weights);
  }
}

TEST_CASE("a state of either precision goes on at the other", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const CaseOptions two{.stage = 3};
  const Trained fine = train("ppo", 2, 0, 2, two), half = train("ppo", 2, 0, 2, coarse(two));
  Learner to_half = joined("ppo", fine, coarse()), to_fine = joined("ppo", half);
  CHECK(testing::weights_digest(to_half) == fine.weights[0]);
  CHECK(testing::weights_digest(to_fine) == half.weights[0]);
  // The copies are those of the weights that were loaded.
  const Experience e = testing::make_experience(testing::mixed_rolls(), to_half.policy());
  Learner float32 = joined("ppo", fine);
  const at::Tensor gap = to_half.policy_logprobs(e) - float32.policy_logprobs(e);
  CHECK(gap.abs().max().item<double>() < 0.1);
  CHECK(gap.abs().max().item<double>() > 0);
  update_case("ppo", to_half, 2);
  update_case("ppo", to_fine, 2);
}

TEST_CASE("a run in bfloat16 resumes bit for bit", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const int32_t world : {1, 2}) {
    const CaseOptions options = coarse({.stage = 3});
    const Trained whole = train("ppo", world, 0, 4, options),
                  half = train("ppo", world, 0, 2, options);
    const Trained rest = train("ppo", world, 2, 4, options, [&](Learner& learner) {
      learner.load_state(half.shards, half.state_json[0]);
    });
    CHECK(rest.weights == whole.weights);
    CHECK(rest.last[0].loss_digest == whole.last[0].loss_digest);
    CHECK(rest.last[0].gradient_digest == whole.last[0].gradient_digest);
  }
}

TEST_CASE("at stage 3 a gather moves bfloat16", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const CaseOptions options{.stage = 3, .layers = 4};
  const Trained fine = train("sft", 2, 0, 1, options),
                half = train("sft", 2, 0, 1, coarse(options));
  const auto ratio = static_cast<double>(half.meters[0].peak_bytes) /
                     static_cast<double>(fine.meters[0].peak_bytes);
  CHECK(ratio > 0.45);
  CHECK(ratio < 0.6);  // borders of 32 elements
}

TEST_CASE("log-probabilities in bfloat16 do not depend on the cut", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const Learner whole = make_case("ppo", nullptr, coarse({.micro_batch_tokens = 8192}));
  const Learner cut = make_case("ppo", nullptr, coarse({.micro_batch_tokens = 1}));
  const Experience e = testing::make_experience(testing::mixed_rolls(), whole.policy());
  CHECK(at::equal(whole.policy_logprobs(e), cut.policy_logprobs(e)));
  CHECK(whole.policy_logprobs(e).scalar_type() == at::kFloat);
  // The reference is the policy as it began.
  CHECK(at::equal(whole.reference_logprobs(e), whole.policy_logprobs(e)));
}

TEST_CASE("what bfloat16 does not go with is refused", "[learners][cpu]") {
  LearnerConfig config;
  config.precision = at::kBFloat16;
  const auto sft = [&](at::ScalarType dtype) {
    LearnerModels models;
    models.policy = testing::tiny_policy(1, dtype);
    return Learner(config, make_sft(SftConfig{}), std::move(models));
  };
  CHECK_THROWS_WITH(sft(at::kDouble), Catch::Contains("model.embed_tokens.weight is Double"));
  config.exact_rollouts = true;
  CHECK_THROWS_WITH(sft(at::kFloat), Catch::Contains("exact_rollouts"));
  const auto errors = run_ranks(2, [](Collective& ranks) {
    CaseOptions options;
    if (ranks.rank() == 1) options.precision = at::kBFloat16;
    make_case("sft", &ranks, options);
  });
  CHECK_THAT(errors[0], Catch::Contains("precision differs"));
  const auto document = YamlDocument::parse("precision: half", "run.yaml");
  LearnerConfig::from_yaml(document->root());
  REQUIRE(document->errors().size() == 1);
  CHECK_THAT(document->errors()[0],
             Catch::Contains("run.yaml:1:12: precision: unknown value \"half\""));
}

}  // namespace praetor
