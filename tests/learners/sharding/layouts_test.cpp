// Every layout of one to four ranks against a learner of one: the first step, ten steps, and a
// state that goes from one layout to another.
#include <ATen/ATen.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "tests/learners/sharding/cases.h"
#include "tests/learners/sharding/train_group.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"

namespace praetor {

using namespace testing;

namespace {

/// `tensor` ranks share the layers, `group` of the others keep a copy, in the parts of `stage`.
struct Layout {
  int32_t world;
  int64_t stage, group, tensor;
};

/// All there are: each product of copies, their parts and the parts of a layer that is the world.
std::vector<Layout> all_layouts() {
  std::vector<Layout> out;
  for (int32_t world = 1; world <= 4; ++world) {
    for (int64_t tensor = 1; tensor <= world; ++tensor) {
      for (int64_t group = 1; group * tensor <= world; ++group) {
        if (world % (group * tensor) != 0) continue;
        for (const int64_t stage : {1, 2, 3}) out.push_back({world, stage, group, tensor});
      }
    }
  }
  return out;
}

/// What every layout is held to in every way; other cases take turns.
const std::vector<std::string> kMethods{"sft", "dpo", "ppo", "ppo_shared", "nash_md"};

bool is_method(const std::string& name) {
  return std::ranges::find(kMethods, name) != kMethods.end();
}

CaseOptions in(const Layout& layout, CaseOptions options) {
  options.stage = layout.stage;
  options.group = layout.group;
  options.tensor = layout.tensor;
  return options;
}

/// What is trained: a model whose head is its embedding; one with a head of its own, on so little
/// that ranks get nothing; adapters beside a model that is frozen.
enum class Kind { kTied, kUntied, kAdapters };

CaseOptions options_of(Kind kind) {
  CaseOptions out;
  out.tied = kind != Kind::kUntied;
  out.few = kind == Kind::kUntied;
  if (kind == Kind::kAdapters) out.lora = LoraConfig{.rank = 3, .alpha = 6, .dropout = 0.25};
  return out;
}

/// The gate learns over a frozen model, in which an adapter has no place.
bool has(const std::string& name, Kind kind) {
  return name != "attribute_gate" || kind != Kind::kAdapters;
}

/// Heads that the ranks of a layout can share, and key/value heads that they share, or all have.
CaseOptions with_heads_for(int64_t tensor, CaseOptions options) {
  if (tensor == 3) {
    options.heads = 3;
    options.kv_heads = options.few ? 1 : 3;
  }
  return options;
}

/// A state without moments: of a new learner, or of one whose adapters are not zero any more, so
/// that none of their gradients is.
Trained start_of(const std::string& name, CaseOptions options) {
  options.learning_rate = 0.1;
  Trained out = train(name, 1, 0, options.lora ? 1 : 0, of_one(options));
  for (const NamedTensor& t : out.shards) {
    if (t.name.find("/exp_avg") != std::string::npos) t.tensor.zero_();
  }
  return out;
}

void check_first_steps(Kind kind, at::ScalarType dtype, double bound) {
  const OneThread one_thread;
  for (const std::string& name : learner_cases()) {
    // The engine's log-probabilities and a gate's labels are float32 whatever the networks are.
    if (!has(name, kind) || (dtype == at::kDouble && name.starts_with("attribute"))) continue;
    if (dtype == at::kDouble && kind != Kind::kTied && !is_method(name)) continue;
    for (const int64_t of_three : {1, 3}) {
      CaseOptions options = with_heads_for(of_three, options_of(kind));
      options.max_grad_norm = 0;
      options.minibatches = 1;
      options.weights = dtype;
      const Trained start = start_of(name, options);
      const auto load = [&](Learner& learner) {
        learner.load_state(start.shards, start.state_json[0]);
      };
      const Alone alone = train_alone(name, 1, 2, options, load);
      for (const Layout& layout : all_layouts()) {
        if ((layout.tensor == 3) != (of_three == 3)) continue;
        CAPTURE(name, layout.world, layout.stage, layout.group, layout.tensor);
        const Trained group = train(name, layout.world, 1, 2, in(layout, options), load);
        check_first_step(name, group, alone, options, bound);
      }
    }
  }
}

}  // namespace

TEST_CASE("in every layout the first step is that of one rank", "[learners][cpu]") {
  CHECK(all_layouts().size() == 39);
  check_first_steps(Kind::kTied, at::kFloat, 1e-6);
}

TEST_CASE("in every layout the first step is that of one rank, where ranks get nothing",
          "[learners][cpu]") {
  check_first_steps(Kind::kUntied, at::kFloat, 1e-6);
  for (const std::string name : {"sft", "dpo", "ppo"}) {
    CaseOptions options = options_of(Kind::kUntied);
    options.minibatches = 1;
    const Trained group = train(name, 4, 1, 2, options);
    const auto ranks = nlohmann::json::parse(group.last[0].manifest).at("epochs")[0][0];
    CHECK(std::ranges::any_of(ranks, [](const auto& rank) { return rank.empty(); }));
  }
}

TEST_CASE("in every layout the first step of adapters is that of one rank", "[learners][cpu]") {
  check_first_steps(Kind::kAdapters, at::kFloat, 1e-6);
}

TEST_CASE("in every layout the first step in float64 is that of one rank", "[learners][cpu]") {
  for (const Kind kind : {Kind::kTied, Kind::kUntied, Kind::kAdapters})
    check_first_steps(kind, at::kDouble, 1e-12);
}

TEST_CASE("in every layout ten steps are those of one rank", "[learners][cpu]") {
  const OneThread one_thread;
  const std::vector<Layout> layouts = all_layouts();
  for (size_t n = 0; n < learner_cases().size(); ++n) {
    const std::string& name = learner_cases()[n];
    for (const Kind kind : {Kind::kTied, Kind::kUntied, Kind::kAdapters}) {
      if (!has(name, kind)) continue;
      for (const int64_t of_three : {1, 3}) {
        const CaseOptions options = with_heads_for(of_three, options_of(kind));
        std::optional<Alone> alone;
        for (size_t i = 0; i < layouts.size(); ++i) {
          const Layout& layout = layouts[i];
          if ((layout.tensor == 3) != (of_three == 3)) continue;
          // One kind each, so that methods and kinds meet all layouts, but not at once.
          if ((i + i / 3 + n) % 3 != size_t(kind) || (!is_method(name) && (i / 3 + n) % 3 != 0))
            continue;
          CAPTURE(name, static_cast<int>(kind));
          CAPTURE(layout.world, layout.stage, layout.group, layout.tensor);
          const int updates = ten_steps_of(name);
          if (!alone) alone.emplace(train_alone(name, 0, updates, options));
          check_ten_steps(
              name, train(name, layout.world, 0, updates, in(layout, options)), *alone, options);
        }
      }
    }
  }
}

TEST_CASE("a state goes on in every other layout as one rank does", "[learners][cpu]") {
  const OneThread one_thread;
  const std::vector<Layout> layouts = all_layouts();
  for (size_t n = 0; n < kMethods.size(); ++n) {
    for (const Kind kind : {Kind::kTied, Kind::kUntied, Kind::kAdapters}) {
      const std::string& name = kMethods[n];
      CaseOptions options = options_of(kind);
      options.heads = options.kv_heads = 12;  // which any of them can share
      const int updates = ten_steps_of(name), half = updates / 2;
      std::optional<Alone> alone;
      for (size_t i = n + kMethods.size() * size_t(kind); i < layouts.size();
           i += 3 * kMethods.size()) {
        const Layout &from = layouts[i], &to = layouts[(i + 17) % layouts.size()];
        CAPTURE(name, static_cast<int>(kind));
        CAPTURE(from.world, from.stage, from.group, from.tensor);
        CAPTURE(to.world, to.stage, to.group, to.tensor);
        const Trained saved = train(name, from.world, 0, half, in(from, options));
        REQUIRE(saved.errors == std::vector<std::string>(saved.errors.size()));
        const Trained resumed =
            train(name, to.world, half, updates, in(to, options), [&](Learner& learner) {
              learner.load_state(saved.shards, saved.state_json[0]);
            });
        if (!alone) alone.emplace(train_alone(name, 0, updates, options));
        check_ten_steps(name, resumed, *alone, options);
      }
    }
  }
}

}  // namespace praetor
