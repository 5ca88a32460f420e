// Learners whose layers are split over ranks, against those of one rank.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "learners/algorithms/sft.h"
#include "learners/sharding/agreement.h"
#include "learners/sharding/flat_layout.h"
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

/// Ranks, how many share the layers, and the stage of sharding over the others. The tiny model has
/// four heads, two key/value heads and eleven tokens, which no number of ranks shares evenly.
struct Layout {
  int32_t world;
  int64_t tensor, stage;
};

}  // namespace

TEST_CASE("adapters over tensor ranks merge to what one rank's do", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name :
       std::vector<std::string>{"sft", "dpo", "ppo", "nash_md", "reward_model"}) {
    const double dropout = name == "sft" || name == "ppo" ? 0.25 : 0.0;
    CaseOptions options;
    options.lora = LoraConfig{.rank = 3, .alpha = 6, .dropout = dropout};
    const auto merged_of = [](const Learner& learner) {
      const Transformer& model =
          learner.has_policy() ? learner.policy() : learner.scalar().backbone;
      std::vector<at::Tensor> out;
      learner.visit_weights(model, model.parameters(), [&](std::span<const NamedTensor> some) {
        for (const NamedTensor& t : some) {
          if (t.name.find("q_proj") != std::string::npos)
            out.push_back(t.tensor.detach().flatten().to(at::kDouble));
        }
      });
      return out.empty() ? at::Tensor() : at::cat(out);
    };
    Learner one = make_case(name, nullptr, options);
    for (int step = 0; step < 5; ++step) update_case(name, one, step);
    const at::Tensor merged = merged_of(one);
    for (const Layout layout : {Layout{2, 2, 1}, {4, 4, 1}, {4, 2, 3}}) {
      options.tensor = layout.tensor;
      options.stage = layout.stage;
      const Trained group = train(name, layout.world, 0, 5, options);
      CAPTURE(name, dropout, layout.world, layout.tensor, layout.stage);
      REQUIRE(group.errors == none(layout.world));
      for (const std::string& weights : group.weights) CHECK(weights == group.weights[0]);
      std::vector<at::Tensor> seen(static_cast<size_t>(layout.world));
      const auto errors = run_ranks(layout.world, [&](Collective& ranks) {
        Learner learner = make_case(name, &ranks, options);
        learner.load_state(group.shards, group.state_json[0]);
        seen[static_cast<size_t>(ranks.rank())] = merged_of(learner);
      });
      REQUIRE(errors == none(layout.world));
      CHECK(relative_distance(seen[0], merged) < 1e-5);
      CHECK_FALSE(seen[1].defined());
    }
  }
}

TEST_CASE("copies whose layers lie over ranks learn what one rank does", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : std::vector<std::string>{"sft", "ppo"}) {
    const int updates = ten_steps_of(name);
    const Alone one = train_alone(name, 0, updates);
    struct Copies {
      int32_t world;
      int64_t stage, group;
    };
    for (const Copies layout : {Copies{8, 1, 2}, {8, 3, 2}}) {
      const CaseOptions options{.stage = layout.stage, .group = layout.group, .tensor = 2};
      std::atomic<int32_t> shards{0};
      const Trained group = train(name, layout.world, 0, updates, options, [&](Learner& learner) {
        shards += learner.state_shards();  // the same on every rank
      });
      CAPTURE(name, layout.world, layout.stage, layout.group);
      REQUIRE(group.errors == none(layout.world));
      CHECK(shards == layout.world * 2 * layout.group);
      // The state is that of one copy, and of nothing twice.
      check_ten_steps(name, group, one, options);
    }
  }
}

TEST_CASE("bfloat16 and other optimizers go over tensor ranks", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : std::vector<std::string>{"sft", "ppo"}) {
    for (const Layout layout : {Layout{2, 2, 1}, {4, 2, 3}}) {
      CaseOptions options{.stage = layout.stage,
                          .optimizer = "sgd",
                          .state_dtype = at::kBFloat16,
                          .precision = at::kBFloat16,
                          .tensor = layout.tensor};
      Learner one = make_case(name, nullptr, of_one(options));
      const StepReport wanted = update_case(name, one, 0);
      const Trained group = train(name, layout.world, 0, 1, options);
      CAPTURE(name, layout.world, layout.stage);
      REQUIRE(group.errors == none(layout.world));
      for (const std::string& weights : group.weights) CHECK(weights == group.weights[0]);
      // Sums of bfloat16 parts are rounded once more: 2^-8 of what goes between layers.
      CHECK(loss_of(name, group.last[0]) ==
            Approx(loss_of(name, wanted)).epsilon(0.02).margin(0.01));
      CHECK(relative_distance(flat_state(joined(name, group, of_one(options)), true),
                              flat_state(one, true)) < 1e-3);
      // What is saved is float32, or rounded states, under any layout.
      const Trained loaded =
          train(name, 3, 0, 0, {.seed = 9, .optimizer = "sgd"}, [&](Learner& to) {
            to.load_state(group.shards, group.state_json[0]);
          });
      CHECK(loaded.errors == none(3));
    }
  }
}

TEST_CASE("ranks that share layers report the same and hold the same weights", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : learner_cases()) {
    for (const Layout layout : {Layout{2, 2, 1}, {4, 2, 3}}) {
      const CaseOptions options{.stage = layout.stage, .tied = false, .tensor = layout.tensor};
      const Trained group = train(name, layout.world, 0, 2, options);
      CAPTURE(name, layout.world, layout.tensor, layout.stage);
      REQUIRE(group.errors == none(layout.world));
      check_ranks_agree(group);
      // The batch is divided over ranks that do not share layers alone.
      if (name != "attribute_model") {
        const auto epochs = nlohmann::json::parse(group.last[0].manifest).at("epochs");
        CHECK(epochs[0][0].size() == size_t(layout.world) / size_t(layout.tensor));
      }
      // And again, bit for bit; a layer that is computed again has the same ones.
      CaseOptions block = options;
      block.checkpointing = ActivationCheckpointing::kBlock;
      testing::check_same(train(name, layout.world, 0, 2, block), group);
    }
  }
}

TEST_CASE("forwards without gradient over tensor ranks are those of one rank", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const Learner ppo = make_case("ppo", nullptr), rm = make_case("reward_model", nullptr);
  Experience e = testing::make_experience(testing::mixed_rolls(), ppo.policy());
  const at::Tensor logprob = ppo.policy_logprobs(e), reference = ppo.reference_logprobs(e);
  const Metrics text = ppo.evaluate(testing::example_pairs());
  const Metrics pairs = rm.evaluate(testing::example_pairs());
  Experience updated = e;
  make_case("ppo", nullptr).update(updated);
  std::vector<double> error(4);
  const auto errors = run_ranks(4, [&](Collective& ranks) {
    const CaseOptions options{.tensor = 2};
    Learner mine = make_case("ppo", &ranks, options);
    const Learner my_rm = make_case("reward_model", &ranks, options);
    double& off = error[static_cast<size_t>(ranks.rank())];
    const auto compare = [&](const at::Tensor& a, const at::Tensor& b) {
      off = std::max(off, (a - b).abs().max().item<double>());
    };
    const auto compare_all = [&](const Metrics& a, const Metrics& b) {
      for (size_t i = 0; i < b.size(); ++i)
        off = std::max(off, std::abs(a[i].second - b[i].second));
    };
    compare(mine.policy_logprobs(e), logprob);
    compare(mine.reference_logprobs(e), reference);
    compare_all(mine.evaluate(testing::example_pairs()), text);
    compare_all(my_rm.evaluate(testing::example_pairs()), pairs);
    Experience filled = e;
    mine.update(filled);
    compare(filled.value, updated.value);
    compare(filled.returns, updated.returns);
  });
  CHECK(errors == none(4));
  for (const double off : error) CHECK(off < 1e-5);
}

TEST_CASE("a state of any layout loads in any other", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const std::vector<Layout> layouts{
      {1, 1, 1}, {2, 2, 1}, {4, 4, 1}, {3, 1, 3}, {4, 2, 2}, {4, 2, 3}};
  for (const std::string& name : std::vector<std::string>{"sft", "ppo", "attribute_gate"}) {
    for (const Layout from : layouts) {
      const Trained saved = train(
          name, from.world, 0, 2, {.stage = from.stage, .tied = false, .tensor = from.tensor});
      REQUIRE(saved.errors == none(from.world));
      const at::Tensor whole = flat_state(joined(name, saved, {.tied = false}));
      for (const Layout to : layouts) {
        CAPTURE(name, from.world, from.tensor, from.stage, to.world, to.tensor, to.stage);
        const CaseOptions options{.seed = 9, .stage = to.stage, .tied = false, .tensor = to.tensor};
        const Trained loaded = train(name, to.world, 0, 0, options, [&](Learner& learner) {
          learner.load_state(saved.shards, saved.state_json[0]);
        });
        CHECK(loaded.errors == none(to.world));
        CHECK(loaded.state_json[0] == saved.state_json[0]);
        CHECK(at::equal(flat_state(joined(name, loaded, {.tied = false})), whole));
      }
    }
  }
}

TEST_CASE("each tensor rank saves its part, and what all have is saved once", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const Trained saved = train("sft", 4, 0, 1, {.stage = 1, .tensor = 2});
  REQUIRE(saved.errors == none(4));
  int64_t weights = 0, moments = 0;
  bool columns = false;
  for (const NamedTensor& t : saved.shards) {
    (t.name.starts_with("optimizer/") ? moments : weights) += t.tensor.numel();
    columns = columns || split_columns_name(split_piece_name(t.name).parameter).range.has_value();
  }
  const int64_t all = flat_state(make_case("sft", nullptr), true).numel();
  CHECK(weights == all);
  CHECK(moments == 2 * all);
  CHECK(columns);
}

TEST_CASE("tensor ranks that are saved and loaded go on as if they had not stopped",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : std::vector<std::string>{"sft", "ppo"}) {
    for (const Layout layout : {Layout{2, 2, 1}, {4, 2, 3}}) {
      const CaseOptions options{.stage = layout.stage, .tensor = layout.tensor};
      const Trained first = train(name, layout.world, 0, 2, options);
      const Trained straight = train(name, layout.world, 0, 4, options);
      const auto resume = [&](const CaseOptions& under, int32_t world) {
        return train(name, world, 2, 4, under, [&](Learner& learner) {
          learner.load_state(first.shards, first.state_json[0]);
        });
      };
      const Trained same = resume(options, layout.world);
      CAPTURE(name, layout.world);
      CHECK(same.errors == none(layout.world));
      CHECK(same.weights == straight.weights);
      CHECK(same.last[0].gradient_digest == straight.last[0].gradient_digest);
      CHECK(same.last[0].metrics == straight.last[0].metrics);
      // Under another layout as well, but for the order of sums.
      const Trained other = resume({.stage = 3}, 3);
      CHECK(other.errors == none(3));
      CHECK(relative_distance(flat_state(joined(name, other), true),
                              flat_state(joined(name, straight), true)) < 1e-5);
    }
  }
}

TEST_CASE("weights over tensor ranks are visited whole on the first one", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const Learner one = make_case("dpo", nullptr);
  const std::string wanted = one.policy().digest();
  for (const Layout layout : {Layout{2, 2, 1}, {4, 4, 1}, {4, 2, 3}}) {
    const auto world = static_cast<size_t>(layout.world);
    std::vector<std::string> visited(world), gathered(world), reference(world), thrown(world);
    std::vector<size_t> held(world);
    const auto errors = run_ranks(layout.world, [&](Collective& ranks) {
      const auto r = static_cast<size_t>(ranks.rank());
      const at::NoGradGuard no_grad;
      Learner learner = make_case("dpo", &ranks, {.stage = layout.stage, .tensor = layout.tensor});
      for (const NamedTensor& p : learner.policy().parameters())
        held[r] += p.tensor.storage().nbytes();
      Transformer copy = make_case("dpo", nullptr).policy().clone();
      for (const NamedTensor& t : copy.parameters()) t.tensor.zero_();
      learner.visit_weights(learner.policy().parameters(), [&](std::span<const NamedTensor> some) {
        for (const NamedTensor& t : some) {
          const auto to = std::ranges::find(copy.parameters(), t.name, &NamedTensor::name)->tensor;
          if (to.count_nonzero().item<int64_t>() != 0) throw InternalError(t.name, " came twice");
          to.copy_(t.tensor);
        }
      });
      visited[r] = copy.digest();
      // A visitor that fails leaves the ranks in step.
      try {
        learner.visit_weights(learner.policy().parameters(),
                              [](std::span<const NamedTensor>) { throw IoError("no space"); });
      } catch (const IoError& error) {
        thrown[r] = error.what();
      }
      const auto whole = learner.gather_weights({&learner.policy(), learner.companion()}, true);
      gathered[r] = learner.policy().digest();
      reference[r] = learner.companion()->digest();
    });
    CAPTURE(layout.world, layout.tensor, layout.stage);
    CHECK(errors == none(layout.world));
    CHECK(visited[0] == wanted);
    CHECK(visited[1] != wanted);
    CHECK(thrown[0] == "no space");
    CHECK(thrown[1].empty());
    CHECK(gathered == std::vector<std::string>(world, wanted));
    CHECK(reference == std::vector<std::string>(world, one.companion()->digest()));
    // Norms at most: the rest is in parts.
    size_t all = 0;
    for (const NamedTensor& p : one.policy().parameters()) all += p.tensor.nbytes();
    for (const size_t bytes : held) CHECK(bytes < all / 5);
  }
}

TEST_CASE("ranks that share layers fail together, by name", "[learners][cpu]") {
  const testing::OneThread one_thread;
  // What all of them meet is said as one rank says it, and the group goes on.
  auto pairs = testing::example_pairs();
  pairs[8].margin = std::nan("");
  std::vector<bool> went_on(4);
  const auto loss = run_ranks(4, [&](Collective& ranks) {
    Learner learner = make_case("reward_model", &ranks, {.stage = 3, .tensor = 2});
    try {
      learner.update(pairs);
    } catch (const DataError&) {
      learner.update(testing::example_pairs());
      went_on[static_cast<size_t>(ranks.rank())] = true;
      throw;
    }
  });
  CHECK_THAT(loss[0], Catch::Contains("the loss is") && Catch::Contains("sequences 8 to 9"));
  CHECK(loss == Errors(4, loss[0]));
  CHECK(went_on == std::vector<bool>(4, true));
  // One that stops calling is named by all that wait for it.
  const auto gone = run_ranks(4,
                              [](Collective& ranks) {
                                Learner learner = make_case("sft", &ranks, {.tensor = 2});
                                learner.update(testing::example_pairs());
                                if (ranks.rank() != 3) learner.update(testing::example_pairs());
                              },
                              {.deadline = std::chrono::milliseconds(1000)});
  CHECK_THAT(gone[2], Catch::Contains("rank 3"));
  for (const size_t r : {0, 1}) CHECK_FALSE(gone[r].empty());
  // One that fails where the others go on tells why.
  const auto apart = run_ranks(2,
                               [](Collective& ranks) {
                                 std::vector<float> sum(2);
                                 run_in_step(ranks, [&] {
                                   if (ranks.rank() == 1) throw DataError("no memory left");
                                   ranks.all_reduce<float>(sum);
                                 });
                               },
                               {.deadline = std::chrono::milliseconds(1000)});
  CHECK_THAT(apart[1], Catch::Contains("no memory left") && Catch::Contains("went on"));
  CHECK_THAT(apart[0], Catch::Contains("rank 1"));
}

TEST_CASE("layers that cannot be split are refused on every rank", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const auto refused = [](int32_t world, const CaseOptions& options) {
    const auto errors =
        run_ranks(world, [&](Collective& ranks) { make_case("sft", &ranks, options); });
    CHECK(errors == Errors(static_cast<size_t>(world), errors[0]));
    return errors[0];
  };
  CHECK_THAT(refused(3, {.tensor = 2}),
             Catch::Contains("sharding.tensor is 2, but must divide the 3 learner ranks"));
  CHECK_THAT(refused(1, {.tensor = 2}), Catch::Contains("must divide the 1 learner rank"));
  CHECK_THAT(refused(2, {.optimizer = "adafactor", .tensor = 2}),
             Catch::Contains("adafactor keeps sums over whole rows and columns"));
  CHECK_THAT(refused(3, {.tensor = 3}),
             Catch::Contains("sharding.tensor: the policy: a model of 4 heads and 2 key/value") &&
                 Catch::Contains("possible are 1, 2, 4"));
  const auto exact = run_ranks(2, [](Collective& ranks) {
    LearnerConfig config;
    config.sharding.tensor = 2;
    config.exact_rollouts = true;
    LearnerModels models;
    models.policy = testing::tiny_policy();
    Learner(config, make_sft(SftConfig{}), std::move(models), &ranks);
  });
  CHECK_THAT(exact[1], Catch::Contains("exact_rollouts"));
  const auto differ = run_ranks(2, [](Collective& ranks) {
    make_case("sft", &ranks, {.seed = ranks.rank() == 1 ? 8u : 1u, .tensor = 2});
  });
  CHECK_THAT(differ[0], Catch::Contains("rank 1 does not start from"));
}

}  // namespace praetor
