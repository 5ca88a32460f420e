// Learners on another device than the CPU (tests/support/emulated_device.h), against the CPU's.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "learners/algorithms/sft.h"
#include "learners/learner.h"
#include "tests/learners/sharding/cases.h"
#include "tests/learners/sharding/train_group.h"
#include "tests/learners/support/published.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/emulated_device.h"
#include "tests/support/live_bytes.h"
#include "tests/support/ranks.h"
#include "tests/support/shared_data.h"

namespace praetor {

using namespace testing;

namespace {

const std::vector<std::string> kAll{
    "ppo", "ppo_shared", "grpo", "nash_ema", "sft", "dpo", "reward_model", "attribute_gate"};

CaseOptions there(CaseOptions options = {}) {
  options.emulated = true;
  return options;
}

/// A group of ranks on a device each, or with a world of one a learner on one.
Learner trained(const std::string& name, int32_t world, int updates, const CaseOptions& options) {
  if (world == 1) {
    Learner out = make_case(name, nullptr, options);
    for (int step = 0; step < updates; ++step) update_case(name, out, step);
    return out;
  }
  const Trained group = train(name, world, 0, updates, options);
  INFO(name << ": " << group.errors[0] << ", " << group.errors[1]);
  REQUIRE(group.errors == std::vector<std::string>(static_cast<size_t>(world)));
  check_ranks_agree(group);
  return joined(name, group, of_one(options));
}

struct Closeness {
  double first = 1e-5;  ///< loss and gradient of the first step, relative
  double later = 1e-4;  ///< weights after ten steps, in L2
};

/// Holds a learner of these options on a device to that of one rank on the CPU.
void check_follows_the_cpu(const std::string& name,
                           int32_t world,
                           CaseOptions options,
                           const Closeness& close = {}) {
  CAPTURE(name, world, options.stage);
  const bool momentum = options.optimizer != "adafactor";
  CaseOptions first = options;
  first.max_grad_norm = 0;
  first.minibatches = 1;
  const std::string kind = options.optimizer == "sgd" ? "/momentum/" : "/exp_avg/";
  if (momentum) {
    // The first moment after one step from zeros is the gradient, scaled.
    Learner cpu = make_case(name, nullptr, of_one(first));
    const StepReport wanted = update_case(name, cpu, 0);
    const double loss = loss_of(name, wanted);
    Learner own = make_case(name, nullptr, of_one(there(first)));
    const StepReport got = update_case(name, own, 0);
    CHECK(std::abs(loss_of(name, got) - loss) <= close.first * std::abs(loss));
    CHECK(got.optimizer_steps == wanted.optimizer_steps);
    const at::Tensor gradient = part_of_state(trained(name, world, 1, there(first)), kind);
    CHECK(relative_distance(gradient, part_of_state(cpu, kind)) < close.first);
  }
  const int updates = ten_steps_of(name);
  const CaseOptions alone = of_one(options);
  const at::Tensor before = flat_state(make_case(name, nullptr, alone), true);
  const at::Tensor wanted = flat_state(trained(name, 1, updates, alone), true);
  const at::Tensor got = flat_state(trained(name, world, updates, there(options)), true);
  CHECK(relative_distance(got, wanted) < close.later);
  CHECK(relative_distance(got, before) > 10 * close.later);  // it did train
}

}  // namespace

TEST_CASE("tensors of two devices do not meet", "[learners][cpu][device]") {
  const at::Tensor cpu = at::ones({3}), here = cpu.to(emulated_device(0));
  CHECK(at::equal((here + here).cpu(), cpu + cpu));
  CHECK((here * 2).sum().item<double>() == 6);
  CHECK(here.device() == emulated_device(0));
  CHECK_THROWS_WITH(here + cpu, Catch::Contains("on the same device"));
  CHECK_THROWS_WITH(here + cpu.to(emulated_device(1)), Catch::Contains("on the same device"));
  CHECK_THROWS(at::index_select(here, 0, at::tensor({0, 1})));
  CHECK(at::equal(here.cpu(), here.to(emulated_device(2)).cpu()));
  const at::Tensor weight = at::ones({2, 3}).to(emulated_device(3)).requires_grad_(true);
  at::mm(weight, weight.t()).sum().cpu().backward();
  CHECK(weight.grad().device() == emulated_device(3));
  CHECK(at::allclose(weight.grad().cpu(), at::full({2, 3}, 4.0f)));
}

TEST_CASE("a learner on a device follows that of the CPU", "[learners][cpu][device]") {
  const OneThread one_thread;
  for (const std::string& name : kAll) check_follows_the_cpu(name, 1, {});
}

TEST_CASE("ranks on a device each, at every stage of sharding, follow one rank on the CPU",
          "[learners][cpu][device]") {
  const OneThread one_thread;
  for (const std::string& name : kAll) {
    for (const int64_t stage : {1, 2, 3})
      check_follows_the_cpu(
          name, 2, {.stage = stage, .tied = name != "sft", .prefetch = stage == 2 ? 0 : 1});
  }
}

TEST_CASE("copies in groups follow one rank on the CPU from devices, too",
          "[learners][cpu][device]") {
  const OneThread one_thread;
  for (const int64_t stage : {1, 3}) check_follows_the_cpu("ppo", 4, {.stage = stage, .group = 2});
}

TEST_CASE("layers that are split over devices follow one rank on the CPU",
          "[learners][cpu][device]") {
  const OneThread one_thread;
  for (const std::string& name : kAll) {
    CaseOptions options{.tied = name != "sft"};
    options.tensor = 2;
    check_follows_the_cpu(name, 2, options);
  }
  for (const std::string name : {"ppo", "sft"}) {
    CaseOptions options{.stage = 3};
    options.tensor = 2;
    check_follows_the_cpu(name, 4, options);
    options.lora = LoraConfig{.rank = 3, .alpha = 6};
    check_follows_the_cpu(name, 4, options);
  }
}

TEST_CASE("adapters, recomputed layers and offloaded moments follow the CPU from a device",
          "[learners][cpu][device]") {
  const OneThread one_thread;
  const LoraConfig lora{.rank = 3, .alpha = 6};
  for (const std::string name : {"ppo", "ppo_shared", "sft", "dpo", "reward_model", "nash_ema"}) {
    check_follows_the_cpu(name, 1, {.lora = lora});
    for (const auto kind : {ActivationCheckpointing::kSelective, ActivationCheckpointing::kBlock})
      check_follows_the_cpu(name, 1, {.checkpointing = kind});
  }
  for (const std::string name : {"ppo", "sft"}) {
    check_follows_the_cpu(name, 2, {.stage = 3, .lora = lora});
    check_follows_the_cpu(name, 2, {.stage = 3, .checkpointing = ActivationCheckpointing::kBlock});
    for (const int32_t world : {1, 2}) {
      CaseOptions cpu;  // which has nothing to offload
      CaseOptions device = there({.offload = true});
      const int updates = ten_steps_of(name);
      const at::Tensor wanted = flat_state(trained(name, 1, updates, cpu));
      CHECK(relative_distance(flat_state(trained(name, world, updates, device)), wanted) < 1e-4);
    }
  }
}

TEST_CASE("every optimizer follows the CPU's from a device", "[learners][cpu][device]") {
  const OneThread one_thread;
  for (const std::string kind : {"adamw", "sgd", "adafactor"}) {
    CAPTURE(kind);
    const double rate = kind == "sgd" ? 0.05 : 1e-3;
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      if (kind == "adafactor" && dtype == at::kBFloat16) continue;  // of which it keeps none here
      CAPTURE(dtype);
      // In bfloat16 a moment is rounded to 1 in 256 by the same chances.
      const Closeness close{.first = dtype == at::kFloat ? 1e-5 : 5e-3, .later = 1e-4};
      const CaseOptions options{.optimizer = kind, .state_dtype = dtype, .learning_rate = rate};
      check_follows_the_cpu("sft", 1, options, close);
      check_follows_the_cpu("sft", 2, options, close);
    }
  }
}

TEST_CASE("in bfloat16 a learner on a device goes the way of float32", "[learners][cpu][device]") {
  const OneThread one_thread;
  for (const std::string name : {"sft", "ppo", "ppo_shared", "dpo", "reward_model"}) {
    for (const int64_t stage : {1, 3}) {
      CAPTURE(name, stage);
      const CaseOptions coarse = there({.stage = stage, .precision = at::kBFloat16});
      const int updates = ten_steps_of(name);
      const at::Tensor wanted = flat_state(trained(name, 1, updates, {}), true);
      const Learner got = trained(name, stage == 3 ? 2 : 1, updates, coarse);
      CHECK(relative_distance(flat_state(got, true), wanted) < 0.02);
      for (const NamedTensor& t : got.state()) CHECK(t.tensor.scalar_type() == at::kFloat);
    }
  }
}

TEST_CASE("a state saved on a device goes on on the CPU, and the other way round",
          "[learners][cpu][device]") {
  const OneThread one_thread;
  const auto copy_of = [](const Learner& learner) {
    std::vector<NamedTensor> out;
    for (const NamedTensor& t : learner.state())
      out.push_back({t.name, t.tensor.detach().cpu().clone()});
    return out;
  };
  for (const std::string name : {"ppo", "sft", "nash_ema"}) {
    CAPTURE(name);
    const at::Tensor wanted = flat_state(trained(name, 1, 4, {}));
    for (const bool from_device : {true, false}) {
      CAPTURE(from_device);
      Learner first = make_case(name, nullptr, from_device ? there() : CaseOptions{});
      Learner second = make_case(name, nullptr, from_device ? CaseOptions{} : there());
      for (int step = 0; step < 2; ++step) update_case(name, first, step);
      const auto state = copy_of(first);
      second.load_state(state, first.state_json());
      CHECK(at::equal(flat_state(second), flat_state(first)));
      for (int step = 2; step < 4; ++step) update_case(name, second, step);
      CHECK(relative_distance(flat_state(second), wanted) < 1e-4);
    }
  }
}

TEST_CASE(
    "what others see of a device's networks is in the processor's memory while it is asked "
    "for",
    "[learners][cpu][device]") {
  const OneThread one_thread;
  const auto bytes = [](const Transformer& model) {
    size_t out = 0;
    for (const NamedTensor& p : model.parameters()) out += p.tensor.storage().nbytes();
    return out;
  };
  for (const bool lora : {false, true}) {
    CaseOptions options;
    if (lora) options.lora = LoraConfig{.rank = 2, .alpha = 4};
    CAPTURE(lora);
    Learner cpu = make_case("ppo", nullptr, options);
    Learner device = make_case("ppo", nullptr, there(options));
    for (int step = 0; step < 2; ++step) {
      update_case("ppo", cpu, step);
      update_case("ppo", device, step);
    }
    const Transformer& policy = device.policy();
    CHECK(bytes(policy) == 0);
    const auto here = cpu.gather_weights({&cpu.policy(), &cpu.scalar().backbone});
    auto whole = device.gather_weights({&policy, &device.scalar().backbone});
    CHECK(bytes(policy) > 0);
    for (size_t i = 0; i < policy.parameters().size(); ++i) {
      const at::Tensor &got = policy.parameters()[i].tensor,
                       &wanted = cpu.policy().parameters()[i].tensor;
      CHECK(got.is_cpu());
      CHECK(at::allclose(got, wanted, 1e-3, 1e-4));
    }
    CHECK(device.scalar().head.weight.is_cpu());
    CHECK(at::allclose(device.scalar().head.weight, cpu.scalar().head.weight, 1e-3, 1e-4));
    // Some at a time, beside an engine that reads all of them.
    std::vector<std::string> seen;
    at::Tensor first;
    device.visit_weights(policy, policy.parameters(), [&](std::span<const NamedTensor> some) {
      for (const NamedTensor& named : some) {
        seen.push_back(named.name);
        CHECK(named.tensor.is_cpu());
        if (!first.defined()) first = named.tensor.clone();
      }
    });
    CHECK(seen.size() == policy.parameters().size());
    CHECK(at::equal(first, policy.parameters().front().tensor));
    whole.reset();
    CHECK(bytes(policy) == 0);
  }
}

TEST_CASE("of base and adapters that a device's learner publishes its merged networks are made",
          "[learners][cpu][device]") {
  const OneThread one_thread;
  struct Layout {
    int32_t world;
    int64_t stage;
    at::ScalarType precision;
  };
  // The reference of PPO is the base; Nash-EMA has an anchor under an adapter of its own.
  for (const std::string name : {"ppo", "nash_ema"}) {
    for (const auto& [world, stage, precision] : std::vector<Layout>{{1, 1, at::kFloat},
                                                                     {1, 1, at::kBFloat16},
                                                                     {2, 1, at::kFloat},
                                                                     {2, 3, at::kFloat},
                                                                     {2, 3, at::kBFloat16}}) {
      CaseOptions options{
          .stage = stage, .lora = LoraConfig{.rank = 3, .alpha = 6}, .precision = precision};
      const TempDir dir;
      const Learner cpu = make_case(name, nullptr, options);
      const WrittenWeights frozen =
          write_network(cpu, *cpu.adapted(cpu.policy()).base, true, dir / "cpu");
      const auto errors = run_ranks(world, [&](Collective& ranks) {
        const bool leads = ranks.rank() == 0;
        Learner learner = make_case(name, &ranks, there(options));
        std::string before;
        for (int step = 0; step < 3; ++step) {
          if (step > 0) update_case(name, learner, step);
          const int64_t operators = emulated_operators();
          const WrittenWeights merged =
              write_network(learner, learner.policy(), leads, dir / "merged");
          // The device's products would round otherwise.
          if (world == 1) CHECK(emulated_operators() == operators);
          const Adapted policy = learner.adapted(learner.policy());
          const Adapted companion = learner.adapted(*learner.companion());
          const WrittenWeights base = write_network(learner, *policy.base, leads, dir / "base");
          const WrittenWeights other =
              write_network(learner, *learner.companion(), leads, dir / "other");
          const auto whole = learner.gather_weights({&learner.policy(), learner.companion()});
          if (!leads) continue;
          // As on the CPU: the frozen weights as they were read, whatever the adapter has learnt.
          CHECK(base.digest == frozen.digest);
          CHECK((base.digest == merged.digest) == (step == 0));
          CHECK(merged.digest != before);
          before = merged.digest;
          // Whoever merges has these bits: a worker, who reads a view and an engine beside it.
          CHECK(digest_at_worker(base, *policy.adapter, dir.path()) == network_digest(merged));
          CHECK(learner.policy().digest() == network_digest(merged));
          CHECK(learner.companion()->digest() == network_digest(other));
          if (name == "ppo") {
            CHECK_FALSE(companion.adapter);
            CHECK(learner.companion() == policy.base);
          } else {
            REQUIRE(companion.adapter);
            CHECK(companion.base == policy.base);
            CHECK(digest_at_worker(base, *companion.adapter, dir.path()) == network_digest(other));
            CHECK((other.digest == merged.digest) == (step == 0));
          }
          const std::vector<NamedTensor> state = learner.state();
          for (const NamedTensor& p : policy.adapter->parameters()) {
            CHECK(p.tensor.is_cpu());
            const auto found = std::ranges::find(state, "policy/" + p.name, &NamedTensor::name);
            REQUIRE(found != state.end());
            CHECK(at::equal(p.tensor, found->tensor.detach().cpu()));
          }
        }
        // A learner that goes on from this one's state publishes the same.
        if (world > 1) return;
        Learner resumed = make_case(name, nullptr, there(options));
        resumed.adapted(resumed.policy());
        resumed.load_state(learner.state(), learner.state_json());
        const Adapted policy = resumed.adapted(resumed.policy());
        CHECK(digest_at_worker(frozen, *policy.adapter, dir.path()) ==
              network_digest(write_network(learner, learner.policy(), true, dir / "merged")));
      });
      INFO(name << ", " << world << " ranks, stage " << stage << ": " << errors.front());
      REQUIRE(errors == std::vector<std::string>(static_cast<size_t>(world)));
    }
  }
}

TEST_CASE("evaluations and log-probabilities of a device are the CPU's",
          "[learners][cpu][device]") {
  const OneThread one_thread;
  const Learner whole = make_case("ppo", nullptr);
  const Experience experience = make_experience(mixed_rolls(), whole.policy());
  const Learner device = make_case("ppo", nullptr, there());
  CHECK(at::allclose(
      device.policy_logprobs(experience), whole.policy_logprobs(experience), 1e-5, 1e-5));
  CHECK(at::allclose(
      device.reference_logprobs(experience), whole.reference_logprobs(experience), 1e-5, 1e-5));
  for (const std::string name : {"sft", "dpo", "reward_model", "attribute_gate"}) {
    const Metrics wanted = make_case(name, nullptr).evaluate(example_pairs());
    const Metrics got = make_case(name, nullptr, there()).evaluate(example_pairs());
    REQUIRE(got.size() == wanted.size());
    for (size_t i = 0; i < got.size(); ++i)
      CHECK(got[i].second == Approx(wanted[i].second).epsilon(1e-4).margin(1e-5));
  }
}

TEST_CASE(
    "an update has weights, gradients, moments and activations on the device, and rows of "
    "numbers alone in the processor's memory",
    "[learners][cpu][device]") {
  const OneThread one_thread;
  ModelConfig config = tiny_policy()->config();
  config.hidden_size = 128;
  config.intermediate_size = 256;
  config.num_layers = 4;
  config.head_dim = 32;
  config.vocab_size = 200;
  for (const bool offload : {false, true}) {
    CAPTURE(offload);
    LearnerConfig settings;
    settings.device = emulated_device(0);
    settings.optimizer.learning_rate = 1e-4;
    settings.optimizer.offload = offload;
    LearnerModels models;
    const int64_t parameters = config.parameter_count();
    models.policy = std::make_unique<Transformer>(
        config, RandomStream({.job_seed = 1, .purpose = Purpose::kInitialise}));
    const int64_t before = emulated_memory().now;
    Learner learner(settings, make_sft(SftConfig{}), std::move(models));
    std::vector<Example> rows;
    for (int64_t i = 0; i < 40; ++i) {
      Example row = make_example({1}, {2});
      for (int64_t k = 0; k < 28; ++k) {
        row.tokens.push_back((i * 31 + k * 7) % 200);
        row.target.push_back(1);
      }
      rows.push_back(row);
    }
    const int64_t resting = emulated_memory().now - before;
    CHECK(resting >= (offload ? 4 : 12) * parameters);
    CHECK(resting < (offload ? 5 : 13) * parameters);
    restart_emulated_peak();
    const LiveBytes host;
    const int64_t operators = emulated_operators();
    learner.update(rows);
    CHECK(emulated_operators() > operators + 100);
    const int64_t tokens = 40 * 30;
    const int64_t activations = 4 * tokens * 4 * 128 * 4;  // some of them
    CHECK(emulated_memory().peak - before > resting + 4 * parameters + activations);
    // Tokens, places, and per token a few numbers; offloaded, one tensor's weight and gradient.
    const int64_t largest = 4 * 256 * 128;
    CHECK(host.peak() < tokens * 8 * 40 + (offload ? 3 * largest : 0));
    CHECK(emulated_memory().now - before < resting + parameters);
    for (const NamedTensor& t : learner.state()) {
      const bool moment = t.name.starts_with("optimizer/");
      CHECK(t.tensor.is_cpu() == (offload && moment));
    }
  }
}

TEST_CASE("what does not go with a device is refused", "[learners][cpu][device]") {
  const auto on_device = [](const std::function<void(LearnerConfig&)>& change) {
    LearnerConfig config;
    config.device = emulated_device(0);
    change(config);
    LearnerModels models;
    models.policy = tiny_policy();
    return Learner(config, make_sft(SftConfig{}), std::move(models));
  };
  CHECK_THROWS_WITH(on_device([](LearnerConfig& c) { c.exact_rollouts = true; }),
                    Catch::Contains("exact_rollouts"));
  CHECK_THROWS_WITH(on_device([](LearnerConfig& c) {
                      c.device = at::kCPU;
                      c.optimizer.offload = true;
                    }),
                    Catch::Contains("optimizer.offload: model.embed_tokens.weight is on the CPU"));
}

}  // namespace praetor
