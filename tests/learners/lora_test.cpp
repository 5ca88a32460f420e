// Learners whose networks keep their weights under low-rank adapters.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "core/base/error.h"
#include "core/config/yaml_reader.h"
#include "learners/algorithms/dpo.h"
#include "learners/algorithms/sft.h"
#include "learners/lora_config.h"
#include "tests/learners/sharding/cases.h"
#include "tests/learners/sharding/train_group.h"
#include "tests/learners/support/groups.h"
#include "tests/learners/support/published.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"
#include "tests/support/shared_data.h"

namespace praetor {

using testing::CaseOptions;
using testing::digest_at_worker;
using testing::flat_state;
using testing::joined;
using testing::make_case;
using testing::make_experience;
using testing::metric;
using testing::network_digest;
using testing::relative_distance;
using testing::tiny_policy;
using testing::train;
using testing::Trained;
using testing::update_case;
using testing::weights_digest;
using testing::write_network;

namespace {

const std::vector<std::string> kCases{
    "ppo", "ppo_shared", "grpo", "sft", "dpo", "reward_model", "attribute_model"};

LoraConfig small(double dropout = 0) {
  return {.rank = 3, .alpha = 6, .dropout = dropout};
}

CaseOptions adapted(double dropout = 0) {
  return {.lora = small(dropout)};
}

/// A learner of the tiny policy with an adapter, and the policy that it was given.
struct Made {
  const Transformer* base;
  Learner learner;
};

Made make(std::unique_ptr<Algorithm> algorithm, LoraConfig lora = small()) {
  LearnerConfig config;
  config.optimizer.learning_rate = 1e-2;
  config.lora = std::move(lora);
  config.max_new_tokens = 8;
  LearnerModels models;
  models.policy = tiny_policy();
  const Transformer* const base = models.policy.get();
  return {base, Learner(config, std::move(algorithm), std::move(models))};
}

/// The policy as an engine would get it.
const Transformer& merged(const Learner& learner) {
  const auto ready = learner.gather_weights({&learner.policy(), learner.companion()});
  return learner.policy();
}

}  // namespace

TEST_CASE("with an adapter training changes it and the heads alone", "[learners][cpu]") {
  const testing::OneThread one_thread;
  Made made = make(make_sft(SftConfig{}));
  const std::string before = made.base->digest();
  CHECK(merged(made.learner).digest() == before);  // B is 0
  for (int step = 0; step < 3; ++step) made.learner.update(testing::example_pairs());
  CHECK(made.base->digest() == before);
  for (const NamedTensor& p : made.base->parameters()) CHECK_FALSE(p.tensor.grad().defined());
  CHECK(merged(made.learner).digest() != before);

  for (const std::string& name : kCases) {
    INFO(name);
    const Learner learner = make_case(name, nullptr, adapted());
    std::vector<std::string> plain;
    for (const NamedTensor& t : learner.state()) {
      if (t.name.find(".lora_A.") == t.name.npos && t.name.find(".lora_B.") == t.name.npos)
        plain.push_back(t.name);
    }
    const auto headed = [](const std::string& network) {
      return std::vector<std::string>{
          network == "policy" ? "value_head/score.weight" : network + "/score.weight",
          "optimizer/" + network + "/exp_avg/score.weight",
          "optimizer/" + network + "/exp_avg_sq/score.weight"};
    };
    std::vector<std::string> wanted;
    if (name == "ppo") wanted = headed("critic");
    if (name == "ppo_shared") wanted = headed("policy");
    if (name == "reward_model" || name == "attribute_model") wanted = headed("reward_model");
    CHECK(plain == wanted);
  }
}

TEST_CASE("merged weights say what the policy with its adapter says", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string name : {"ppo", "ppo_shared", "grpo"}) {
    INFO(name);
    Learner learner = make_case(name, nullptr, adapted());
    for (int step = 0; step < 4; ++step) update_case(name, learner, step);
    const Transformer& policy = merged(learner);
    const Experience experience = make_experience(testing::mixed_rolls(), policy);
    const at::Tensor beside = learner.policy_logprobs(experience);
    CHECK((beside - experience.behavior_logprob).abs().max().item<double>() < 1e-5);
    CHECK((beside - make_experience(testing::mixed_rolls(), *tiny_policy()).behavior_logprob)
              .abs()
              .max()
              .item<double>() > 1e-3);
  }
}

TEST_CASE("the reference of an adapted policy is its base, which is held once", "[learners][cpu]") {
  const testing::OneThread one_thread;
  Made made = make(testing::algorithm_from("ppo", "{critic: {shared: true}, epochs: 1}"));
  CHECK(made.learner.companion() == made.base);
  const auto rolls = testing::mixed_rolls();
  const at::Tensor wanted = make_experience(rolls, *made.base).behavior_logprob;
  for (int step = 0; step < 3; ++step) {
    Experience experience = make_experience(rolls, merged(made.learner));
    const StepReport report = made.learner.update(experience);
    CHECK(at::equal(experience.reference_logprob, wanted));
    if (step == 0) CHECK(metric(report, "objective/kl") == 0);
    if (step == 2) CHECK(metric(report, "objective/kl") != 0);
  }
  Made dpo = make(make_dpo({.beta = 1}));
  CHECK(metric(dpo.learner.update(testing::example_pairs()), "dpo/loss") ==
        Approx(std::log(2)).epsilon(1e-6));
  CHECK(metric(dpo.learner.update(testing::example_pairs()), "dpo/loss") < std::log(2));
}

TEST_CASE("an anchor follows as an adapter of its own", "[learners][cpu]") {
  const testing::OneThread one_thread;
  Made made = make(testing::algorithm_from("nash_ema", "{decay: 0.75}"));
  Learner& learner = made.learner;
  const auto tensor = [&](const std::string& name) {
    const auto state = learner.state();
    const auto found = std::ranges::find(state, name, &NamedTensor::name);
    REQUIRE(found != state.end());
    return found->tensor.detach().clone();
  };
  const std::string of = "model.layers.0.self_attn.v_proj.lora_B.weight";
  CHECK_FALSE(tensor("anchor/" + of).any().item<bool>());
  for (int step = 0; step < 2; ++step) {
    const at::Tensor before = tensor("anchor/" + of);
    (void)merged(learner);
    Experience experience =
        testing::make_groups(testing::group_rolls(), 4, learner.policy(), learner.algorithm());
    learner.update(experience);
    CHECK(at::allclose(
        tensor("anchor/" + of), 0.75 * before + 0.25 * tensor("policy/" + of), 1e-5, 1e-8));
  }
  CHECK(learner.companion() != made.base);
  (void)merged(learner);
  CHECK(learner.companion()->digest() != made.base->digest());
  CHECK(learner.companion()->digest() != learner.policy().digest());
}

TEST_CASE("a resumed learner with adapters repeats the straight one bit for bit",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : kCases) {
    INFO(name);
    const CaseOptions options = adapted(0.2);
    Learner straight = make_case(name, nullptr, options);
    for (int step = 0; step < 2; ++step) update_case(name, straight, step);
    std::vector<NamedTensor> saved;
    for (const NamedTensor& t : straight.state())
      saved.push_back({t.name, t.tensor.detach().clone()});
    const std::string json = straight.state_json();
    Learner resumed = make_case(name, nullptr, options);
    resumed.load_state(saved, json);
    for (int step = 2; step < 4; ++step) {
      const StepReport a = update_case(name, straight, step), b = update_case(name, resumed, step);
      CHECK(a.loss_digest == b.loss_digest);
      CHECK(a.gradient_digest == b.gradient_digest);
    }
    CHECK(at::equal(flat_state(straight), flat_state(resumed)));
    CHECK(weights_digest(straight) == weights_digest(resumed));

    CaseOptions other = options;
    other.lora->alpha = 7;
    Learner louder = make_case(name, nullptr, other);
    CHECK_THROWS_WITH(louder.load_state(saved, json),
                      Catch::Contains("learner state: lora is") && Catch::Contains("\"alpha\":7"));
    Learner whole = make_case(name, nullptr);
    CHECK_THROWS_AS(whole.load_state(saved, json), CheckpointError);
  }
}

TEST_CASE("the cut into micro-batches changes rounding alone, dropout or not", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const double dropout : {0.0, 0.3}) {
    for (const std::string name : {"sft", "ppo", "dpo"}) {
      const double error = testing::cut_error([&](int64_t tokens) {
        CaseOptions options = adapted(dropout);
        options.micro_batch_tokens = tokens;
        Learner learner = make_case(name, nullptr, options);
        for (int step = 0; step < 3; ++step) update_case(name, learner, step);
        return flat_state(learner, true);
      });
      CAPTURE(name, dropout, error);
      CHECK(error < 1e-5);
    }
  }
}

TEST_CASE("dropout changes what is learnt, and another update leaves out other inputs",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  Learner plain = make_case("sft", nullptr, adapted()),
          dropped = make_case("sft", nullptr, adapted(0.5));
  std::vector<std::string> losses;
  for (int step = 0; step < 3; ++step) {
    update_case("sft", plain, step);
    losses.push_back(update_case("sft", dropped, step).loss_digest);
  }
  CHECK(relative_distance(flat_state(plain, true), flat_state(dropped, true)) > 1e-3);
  const auto rows = testing::example_pairs();
  CHECK(at::equal(dropped.policy_logprobs(rows), dropped.policy_logprobs(rows)));
}

TEST_CASE("ranks with adapters: every sharding stage has the same bits", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : kCases) {
    for (const int32_t world : {1, 2, 3}) {
      for (const bool tied : {true, false}) {
        CaseOptions options = adapted(world == 2 ? 0.25 : 0);
        options.tied = tied;
        const Trained wanted = train(name, world, 0, 2, options);
        INFO(name << ", " << world << " ranks: " << wanted.errors[0]);
        REQUIRE(std::ranges::all_of(wanted.errors, &std::string::empty));
        for (const int64_t stage : {2, 3}) {
          INFO("stage " << stage);
          options.stage = stage;
          const Trained got = train(name, world, 0, 2, options);
          REQUIRE(got.errors == wanted.errors);
          check_same(got, wanted);
          for (size_t r = 0; r < got.last.size(); ++r) {
            // Two units at most where the head is tied, as without an adapter.
            if (stage == 3 && world > 1) CHECK(got.meters[r].peak_units >= 1);
          }
        }
      }
    }
  }
}

TEST_CASE("ranks with adapters learn what one learns, and each other's states", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : kCases) {
    for (const double dropout : {0.0, 0.25}) {
      const CaseOptions options = adapted(dropout);
      Learner alone = make_case(name, nullptr, options);
      for (int step = 0; step < 4; ++step) update_case(name, alone, step);
      CaseOptions cut = options;
      cut.stage = 3;
      const Trained group = train(name, 2, 0, 4, cut);
      INFO(name << ": " << group.errors[0] << group.errors[1]);
      const Learner together = joined(name, group, options);
      const double error = relative_distance(flat_state(together, true), flat_state(alone, true));
      CAPTURE(dropout, error);
      CHECK(error < 1e-5);
      CHECK(relative_distance(flat_state(alone, true),
                              flat_state(make_case(name, nullptr, options), true)) > 1e-3);
      CHECK(weights_digest(together) == group.weights[0]);
    }
  }
}

TEST_CASE("under adapters activation checkpointing moves no bit", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : kCases) {
    for (const int64_t stage : {1, 3}) {
      CaseOptions options = adapted(0.25);
      options.stage = stage;
      const Trained wanted = train(name, 2, 0, 2, options);
      REQUIRE(std::ranges::all_of(wanted.errors, &std::string::empty));
      for (const auto what :
           {ActivationCheckpointing::kSelective, ActivationCheckpointing::kBlock}) {
        INFO(name << ", stage " << stage << ", kind " << static_cast<int>(what));
        options.checkpointing = what;
        const Trained got = train(name, 2, 0, 2, options);
        REQUIRE(got.errors == wanted.errors);
        CHECK(got.weights == wanted.weights);
        CHECK(got.last[0].gradient_digest == wanted.last[0].gradient_digest);
      }
    }
  }
}

TEST_CASE("a visit hands out merged weights, in parts or whole", "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const int64_t stage : {1, 3}) {
    std::vector<std::string> policies(2), companions(2), merged_ones(2), bases(2);
    const auto errors = testing::run_ranks(2, [&](Collective& ranks) {
      const auto r = static_cast<size_t>(ranks.rank());
      CaseOptions options = adapted();
      options.stage = stage;
      Learner learner = make_case("ppo", &ranks, options);
      for (int step = 0; step < 2; ++step) update_case("ppo", learner, step);
      const at::NoGradGuard no_grad;
      const auto visited = [&](const Transformer& model) {
        Transformer copy = make_case("ppo", nullptr).policy().clone();
        learner.visit_weights(model, model.parameters(), [&](std::span<const NamedTensor> some) {
          for (const NamedTensor& t : some)
            std::ranges::find(copy.parameters(), t.name, &NamedTensor::name)
                ->tensor.copy_(t.tensor);
        });
        return copy.digest();
      };
      policies[r] = visited(learner.policy());
      companions[r] = visited(*learner.companion());
      const auto whole = learner.gather_weights({&learner.policy(), learner.companion()});
      if (r > 0) return;
      merged_ones[r] = learner.policy().digest();
      bases[r] = learner.companion()->digest();
    });
    INFO("stage " << stage << ": " << errors[0] << errors[1]);
    REQUIRE(errors == std::vector<std::string>(2));
    CHECK(policies[0] == merged_ones[0]);
    CHECK(companions[0] == bases[0]);
    CHECK(policies[0] != companions[0]);
  }
}

TEST_CASE("what is published of base and adapters makes the learner's merged networks",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  struct Layout {
    int64_t stage, tensor;
    at::ScalarType precision;
  };
  for (const auto& [stage, tensor, precision] : std::vector<Layout>{
           {1, 1, at::kFloat}, {3, 1, at::kFloat}, {1, 2, at::kFloat}, {3, 1, at::kBFloat16}}) {
    const testing::TempDir dir;
    const auto errors = testing::run_ranks(2, [&](Collective& ranks) {
      CaseOptions options = adapted();
      options.stage = stage;
      options.tensor = tensor;
      options.precision = precision;
      Learner learner = make_case("nash_ema", &ranks, options);
      for (int step = 0; step < 2; ++step) update_case("nash_ema", learner, step);
      const Adapted policy = learner.adapted(learner.policy());
      const Adapted anchor = learner.adapted(*learner.companion());
      REQUIRE(policy.adapter);
      REQUIRE(anchor.adapter);
      REQUIRE(anchor.base == policy.base);
      CHECK_FALSE(learner.adapted(*policy.base).adapter);
      const auto written = [&](const Transformer& model, const char* name) {
        return write_network(learner, model, ranks.rank() == 0, dir / name);
      };
      const WrittenWeights base = written(*policy.base, "base");
      for (const auto& [model, made] :
           {std::pair(&learner.policy(), policy), std::pair(learner.companion(), anchor)}) {
        const WrittenWeights merged = written(*model, "merged");
        if (ranks.rank() > 0) continue;
        CHECK(digest_at_worker(base, *made.adapter, dir.path()) == network_digest(merged));
        CHECK(merged.digest != base.digest);
      }
    });
    INFO("stage " << stage << ", tensor " << tensor << ": " << errors[0] << errors[1]);
    REQUIRE(errors == std::vector<std::string>(2));
  }
}

TEST_CASE("where an adapter has no place it is refused", "[learners][cpu]") {
  CHECK_THROWS_WITH(make_case("attribute_gate", nullptr, adapted()),
                    Catch::Contains("attribute_gate") && Catch::Contains("without lora"));
  LoraConfig wrong = small();
  wrong.targets = {"c_attn"};
  CHECK_THROWS_WITH(make(make_sft(SftConfig{}), wrong), Catch::Contains("\"c_attn\""));
  LearnerConfig config;
  config.lora = small();
  config.exact_rollouts = true;
  LearnerModels models;
  models.policy = tiny_policy();
  CHECK_THROWS_WITH(Learner(config, testing::algorithm_from("ppo"), std::move(models)),
                    Catch::Contains("exact_rollouts"));
  config.exact_rollouts = false;
  LearnerModels anchored;
  anchored.policy = tiny_policy();
  anchored.anchor = tiny_policy();
  CHECK_THROWS_WITH(Learner(config, testing::algorithm_from("nash_ema"), std::move(anchored)),
                    Catch::Contains("anchor"));
}

TEST_CASE("section lora reads names as a list or as a word", "[learners][cpu]") {
  const auto read = [](const std::string& text) {
    const auto document = YamlDocument::parse(text, "job.yaml");
    LoraConfig out = lora_from_yaml(document->root());
    document->throw_if_errors();
    return out;
  };
  CHECK(read("{}") == LoraConfig{});
  CHECK(read("targets: all_linear") == LoraConfig{});
  const LoraConfig full =
      read("rank: 8\nalpha: 4\ndropout: 0.1\nrslora: true\ntargets: [q_proj, v_proj]");
  CHECK(full == LoraConfig{8, 4, 0.1, true, {"q_proj", "v_proj"}});
  CHECK(full.scale() == Approx(4 / std::sqrt(8.0)));
  CHECK(read("{rank: 8, alpha: 4}").scale() == 0.5);
  CHECK(lora_from_json(lora_to_json(full)) == full);
  CHECK_THROWS_AS(lora_from_json("{}"), CheckpointError);
  for (const auto& [text, why] : std::vector<std::pair<std::string, std::string>>{
           {"rank: 0", "job.yaml:1:7: rank: 0 is outside [1, 65536]"},
           {"alpha: 0", "job.yaml:1:8: alpha: 0 is not > 0"},
           {"dropout: 1", "job.yaml:1:10: dropout: 1 is outside [0, 1)"},
           {"targets: []", "targets: names no layer; all_linear means each of them"},
           {"targets: [3]", "targets: 3 is not the name of a linear layer"},
           {"rnk: 3", "unknown key \"rnk\", did you mean \"rank\"?"}}) {
    CHECK_THROWS_WITH(read(text), Catch::Contains(why));
  }
}

}  // namespace praetor
