// Learners of several ranks against a learner of one.
#include "tests/support/ranks.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "learners/algorithms/reward_model.h"
#include "learners/algorithms/sft.h"
#include "learners/learner.h"
#include "tests/learners/sharding/cases.h"
#include "tests/learners/sharding/train_group.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using namespace testing;

TEST_CASE("all ranks report the same and hold the same weights", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : learner_cases()) {
    for (const int32_t world : {2, 3, 4}) {
      const Trained group = train(name, world, 0, 2);
      check_ranks_agree(group);
      // And again, bit for bit.
      const Trained again = train(name, world, 0, 2);
      CHECK(again.weights == group.weights);
      CHECK(again.last[0].gradient_digest == group.last[0].gradient_digest);
    }
  }
}

TEST_CASE("the manifest says which rank took which sequences", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const Trained group = train("ppo", 3, 0, 1);
  const auto epochs = nlohmann::json::parse(group.last[0].manifest).at("epochs");
  const auto alone = nlohmann::json::parse(train("ppo", 1, 0, 1).last[0].manifest).at("epochs");
  REQUIRE(epochs.size() == 1);
  REQUIRE(epochs[0].size() == 2);
  for (size_t m = 0; m < 2; ++m) {
    CHECK(epochs[0][m].size() == 3);
    std::vector<int64_t> taken, wanted;
    for (const auto& micro : alone[0][m][0])
      wanted.insert(wanted.end(), micro.begin(), micro.end());
    // The same permutation, each rank some of it in order.
    for (const auto& rank : epochs[0][m]) {
      auto from = wanted.begin();
      for (const auto& micro : rank) {
        for (const int64_t sequence : micro) {
          from = std::find(from, wanted.end(), sequence);
          CHECK(from != wanted.end());
          taken.push_back(sequence);
        }
      }
    }
    std::ranges::sort(taken);
    std::ranges::sort(wanted);
    CHECK(taken == wanted);
  }
}

TEST_CASE("forwards without gradient are bitwise those of one rank", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const Learner alone = make_case("ppo", nullptr);
  const Learner rm = make_case("reward_model", nullptr);
  Experience e = testing::make_experience(testing::mixed_rolls(), alone.policy());
  const at::Tensor logprob = alone.policy_logprobs(e), reference = alone.reference_logprobs(e);
  const Metrics text = alone.evaluate(testing::example_pairs());
  const Metrics pairs = rm.evaluate(testing::example_pairs());
  Experience updated = e;
  make_case("ppo", nullptr).update(updated);
  for (const int32_t world : {2, 3, 4}) {
    std::vector<bool> same(static_cast<size_t>(world));
    const auto errors = run_ranks(world, [&](Collective& ranks) {
      Learner mine = make_case("ppo", &ranks);
      const Learner my_rm = make_case("reward_model", &ranks);
      bool all = at::equal(mine.policy_logprobs(e), logprob) &&
                 at::equal(mine.reference_logprobs(e), reference) &&
                 mine.evaluate(testing::example_pairs()) == text &&
                 my_rm.evaluate(testing::example_pairs()) == pairs;
      Experience filled = e;
      mine.update(filled);
      all = all && at::equal(filled.proximal_logprob, updated.proximal_logprob) &&
            at::equal(filled.value, updated.value) &&
            at::equal(filled.advantage, updated.advantage) &&
            at::equal(filled.returns, updated.returns);
      same[static_cast<size_t>(ranks.rank())] = all;
    });
    CHECK(errors == std::vector<std::string>(static_cast<size_t>(world)));
    CHECK(same == std::vector<bool>(static_cast<size_t>(world), true));
  }
}

TEST_CASE("ranks that get nothing take part all the same", "[learners][cpu]") {
  const testing::OneThread one_thread;
  std::vector<std::string> digests(4);
  const auto errors = run_ranks(4, [&](Collective& ranks) {
    Learner learner = make_case("sft", &ranks);
    learner.update({testing::make_example({1, 2}, {3, 4, 5})});
    // Nothing to learn from, and not even a sequence.
    if (learner.update({testing::make_example({1, 2}, {})}).optimizer_steps != 0)
      throw InternalError("a step on no targets");
    learner.update(std::vector<Example>{});
    digests[static_cast<size_t>(ranks.rank())] = testing::weights_digest(learner);
  });
  CHECK(errors == std::vector<std::string>(4));
  CHECK(digests == std::vector<std::string>(4, digests[0]));
  CHECK(digests[0] != testing::weights_digest(make_case("sft", nullptr)));
}

TEST_CASE("a state saved by some ranks loads on any other number", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : learner_cases()) {
    for (const int32_t old_world : {1, 2, 3, 4}) {
      const Trained saved = train(name, old_world, 0, 2);
      const at::Tensor whole = flat_state(joined(name, saved));
      for (const int32_t new_world : {1, 2, 3, 4}) {
        INFO(name << " from " << old_world << " to " << new_world);
        const Trained loaded = train(name, new_world, 0, 0, {.seed = 9}, [&](Learner& learner) {
          learner.load_state(saved.shards, saved.state_json[0]);
        });
        CHECK(loaded.errors == std::vector<std::string>(static_cast<size_t>(new_world)));
        CHECK(loaded.state_json[0] == saved.state_json[0]);
        CHECK(at::equal(flat_state(joined(name, loaded)), whole));
      }
    }
  }
}

TEST_CASE("a group that is saved and loaded goes on as if it had not stopped", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : learner_cases()) {
    const Trained first = train(name, 3, 0, 2), straight = train(name, 3, 0, 4);
    const Trained resumed = train(name, 3, 2, 4, {}, [&](Learner& learner) {
      learner.load_state(first.shards, first.state_json[0]);
    });
    CHECK(resumed.weights == straight.weights);
    CHECK(resumed.last[0].gradient_digest == straight.last[0].gradient_digest);
    CHECK(resumed.last[0].metrics == straight.last[0].metrics);
  }
}

TEST_CASE("rank 0 gives the weights and each rank its piece of the moments", "[learners][cpu]") {
  const testing::OneThread one_thread;
  std::vector<int64_t> weights(3), moments(3), ranges(3);
  run_ranks(3, [&](Collective& ranks) {
    const auto r = static_cast<size_t>(ranks.rank());
    for (const NamedTensor& t : make_case("ppo", &ranks).state()) {
      const bool moment = t.name.starts_with("optimizer/");
      (moment ? moments : weights)[r] += t.tensor.numel();
      if (t.name.find('@') != std::string::npos) ranges[r] += t.tensor.dim() == 1;
    }
  });
  CHECK(weights[0] > 0);
  CHECK(weights[1] == 0);
  CHECK(weights[2] == 0);
  CHECK(moments[0] == moments[1]);
  CHECK(moments[0] + moments[1] + moments[2] == 2 * weights[0]);
  CHECK(ranges[0] + ranges[1] + ranges[2] > 0);
}

TEST_CASE("a loss that is not a number on one rank is the same error on all", "[learners][cpu]") {
  const testing::OneThread one_thread;
  auto pairs = testing::example_pairs();
  pairs[8].margin = std::nan("");  // of the last pair, which the last rank takes
  std::vector<bool> kept(3), data_error(3);
  const auto errors = run_ranks(3, [&](Collective& ranks) {
    Learner learner = make_case("reward_model", &ranks);
    const std::string before = testing::weights_digest(learner);
    const auto r = static_cast<size_t>(ranks.rank());
    try {
      learner.update(pairs);
    } catch (const DataError&) {
      data_error[r] = true;
      kept[r] = testing::weights_digest(learner) == before;
      learner.update(testing::example_pairs());  // the group is still whole
      throw;
    }
  });
  CHECK(data_error == std::vector<bool>(3, true));
  CHECK(kept == std::vector<bool>(3, true));
  CHECK_THAT(errors[0], Catch::Contains("the loss is") && Catch::Contains("sequences 8 to 9"));
  CHECK(errors == std::vector<std::string>(3, errors[0]));
}

namespace {

/// Finite losses; micro-batches of one response token have gradients that are not finite.
class Steep final : public Algorithm {
 public:
  std::string name() const override { return "steep"; }
  SamplePlan sample_plan() const override { return {.rows = RowForm::kCompletion}; }
  LossResult loss(const MicroBatch& b) const override {
    const bool steep = b.logprob.numel() == 1;
    const at::Tensor zero = b.logprob - b.logprob.detach();
    return {(steep ? zero.abs().sqrt() : zero).sum(), {}};
  }
};

/// Reports a ratio far from 1 at once where there are few sequences: of five, one of two ranks has
/// at most two.
class Drifted final : public Algorithm {
 public:
  std::string name() const override { return "drifted"; }
  LossResult loss(const MicroBatch& b) const override {
    return {b.logprob.sum(), {{"policy/ratio_error", b.sequences <= 2 ? 0.5 : 0.0, 1}}};
  }
};

Learner with(std::unique_ptr<Algorithm> algorithm, Collective& ranks) {
  LearnerModels models;
  models.policy = testing::tiny_policy();
  LearnerConfig config;
  config.optimizer.learning_rate = 1e-3;
  return Learner(config, std::move(algorithm), std::move(models), &ranks);
}

}  // namespace

TEST_CASE("what one rank sees, all decide", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const auto steep = run_ranks(2, [](Collective& ranks) {
    with(std::make_unique<Steep>(), ranks)
        .update({testing::make_example({1, 2}, {3, 4, 5}), testing::make_example({1, 2, 4}, {3})});
  });
  CHECK_THAT(steep[0], Catch::Contains("gradient norm of the policy"));
  CHECK(steep[1] == steep[0]);
  const auto drifted = run_ranks(2, [](Collective& ranks) {
    Learner learner = with(std::make_unique<Drifted>(), ranks);
    Experience e = testing::make_experience(testing::mixed_rolls(), learner.policy());
    learner.update(e);
  });
  CHECK_THAT(drifted[0], Catch::Contains("|ratio - 1|"));
  CHECK(drifted[1] == drifted[0]);
  // A sequence that the model cannot take is met by one rank, in its share.
  const auto tokens = run_ranks(2, [](Collective& ranks) {
    make_case("sft", &ranks)
        .evaluate({testing::make_example({1, 2}, {3, 4}), testing::make_example({1, 2}, {3, 99})});
  });
  CHECK_THAT(tokens[0], Catch::Contains("99"));
  CHECK(tokens[1] == tokens[0]);
}

TEST_CASE("ranks that start from other weights or settings are refused", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const auto weights = run_ranks(3, [](Collective& ranks) {
    make_case("sft", &ranks, {.seed = ranks.rank() == 2 ? 8u : 1u});
  });
  CHECK_THAT(weights[0], Catch::Contains("rank 2") && Catch::Contains("policy/model"));
  CHECK(weights == std::vector<std::string>(3, weights[0]));
  const auto settings = run_ranks(2, [](Collective& ranks) {
    LearnerModels models;
    models.policy = testing::tiny_policy();
    LearnerConfig config;
    config.seed = static_cast<uint64_t>(ranks.rank());
    Learner(config, make_sft(SftConfig{}), std::move(models), &ranks);
  });
  CHECK_THAT(settings[0], Catch::Contains("seed differs"));
  CHECK(settings[1] == settings[0]);
}

TEST_CASE("a rank that stops calling is named", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const auto errors = run_ranks(3,
                                [](Collective& ranks) {
                                  Learner learner = make_case("sft", &ranks);
                                  learner.update(testing::example_pairs());
                                  if (ranks.rank() != 1) learner.update(testing::example_pairs());
                                },
                                {.deadline = std::chrono::milliseconds(500)});
  for (const size_t r : {0, 2}) CHECK_THAT(errors[r], Catch::Contains("rank 1 did not come"));
  CHECK(errors[1].empty());
}

TEST_CASE("states that do not fit together are refused on every rank", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const Trained saved = train("sft", 2, 0, 1);
  const auto refused = [&](const std::function<void(std::vector<NamedTensor>&)>& spoil) {
    std::vector<NamedTensor> shards = saved.shards;
    spoil(shards);
    std::vector<bool> kept(3);
    const auto errors = run_ranks(3, [&](Collective& ranks) {
      Learner learner = make_case("sft", &ranks);
      const at::Tensor before = flat_state(learner);
      try {
        learner.load_state(shards, saved.state_json[0]);
      } catch (const CheckpointError&) {
        kept[static_cast<size_t>(ranks.rank())] = at::equal(flat_state(learner), before);
        throw;
      }
    });
    CHECK(kept == std::vector<bool>(3, true));
    CHECK(errors == std::vector<std::string>(3, errors[0]));
    return errors[0];
  };
  size_t piece = 0;
  while (saved.shards[piece].name.find('@') == std::string::npos) ++piece;
  const std::string name = saved.shards[piece].name;

  CHECK_THAT(refused([&](auto& shards) { shards.erase(shards.begin() + int64_t(piece)); }),
             Catch::Contains(name.substr(0, name.find('@'))) && Catch::Contains("missing"));
  CHECK_THAT(refused([&](auto& shards) { shards.erase(shards.begin()); }),
             Catch::Contains("policy/") && Catch::Contains("missing"));
  CHECK_THAT(refused([&](auto& shards) {
               const auto whole = name.substr(0, name.find('@'));
               shards.push_back({whole + "@0-5", at::zeros({5})});
             }),
             Catch::Contains("there twice"));
  CHECK_THAT(refused([&](auto& shards) { shards.push_back(shards[0]); }),
             Catch::Contains("there twice"));
  CHECK_THAT(refused([&](auto& shards) {
               shards.push_back({"critic/x@0-5", at::zeros({5})});
             }),
             Catch::Contains("critic/x@0-5 is not part of this job"));
  CHECK_THAT(refused([&](auto& shards) { shards[piece].tensor = at::zeros({7}); }),
             Catch::Contains(name) && Catch::Contains("[7]"));
}

}  // namespace praetor
