// Networks that are read from their folder as they are cut.
#include <ATen/ATen.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/model/tensor_split.h"
#include "learners/algorithms/dpo.h"
#include "tests/learners/sharding/cases.h"
#include "tests/learners/sharding/train_group.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/live_bytes.h"
#include "tests/support/ranks.h"
#include "tests/support/shared_data.h"

namespace praetor {

using testing::CaseOptions;
using testing::make_case;
using testing::run_ranks;
using testing::train;
using testing::Trained;

namespace {

std::vector<std::string> none(int32_t world) {
  return std::vector<std::string>(static_cast<size_t>(world));
}

/// The folder of what a case's networks begin as.
void save_network(const CaseOptions& options, const std::filesystem::path& folder) {
  save_hf(make_case("sft", nullptr, options).policy(), folder);
}

/// A case trains from networks that were loaded and from those of `folder`, read as they are cut.
void check_read(const std::string& name,
                int32_t world,
                CaseOptions options,
                const std::filesystem::path& folder) {
  const Trained loaded = train(name, world, 0, 2, options);
  REQUIRE(loaded.errors == none(world));
  options.folder = folder;
  testing::check_same(train(name, world, 0, 2, options), loaded);
}

/// The most bytes that each rank held while the learner of a case was made.
std::vector<int64_t> peaks(const std::string& name, int32_t world, const CaseOptions& options) {
  std::vector<int64_t> out(static_cast<size_t>(world));
  CHECK(run_ranks(world, [&](Collective& ranks) {
          const testing::LiveBytes bytes;
          const Learner learner = make_case(name, &ranks, options);
          out[static_cast<size_t>(ranks.rank())] = bytes.peak();
        }) == none(world));
  return out;
}

}  // namespace

TEST_CASE("networks that are read as they are cut train as those that were loaded",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  LoraConfig lora;
  lora.rank = 2;
  for (const bool tied : {true, false}) {
    const testing::TempDir dir;
    save_network({.tied = tied}, dir / "model");
    for (const std::string& name :
         std::vector<std::string>{"sft", "dpo", "ppo", "ppo_shared", "reward_model"}) {
      for (const auto& [world, stage, group] : std::vector<std::tuple<int32_t, int64_t, int64_t>>{
               {1, 3, 0}, {2, 1, 0}, {2, 3, 0}, {3, 3, 0}, {4, 3, 2}, {2, 3, 1}}) {
        for (const bool adapted : {false, true}) {
          CaseOptions options{.stage = stage, .tied = tied, .group = group};
          if (adapted) options.lora = lora;
          INFO(name << ", " << world << " ranks, stage " << stage << ", group " << group);
          check_read(name, world, options, dir / "model");
        }
      }
    }
  }
}

TEST_CASE("copies in bfloat16 are made of what is read, part by part", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const testing::TempDir dir;
  save_network({.tied = false}, dir / "model");
  for (const std::string& name : std::vector<std::string>{"sft", "dpo", "ppo"}) {
    for (const int64_t stage : {2, 3}) {
      CaseOptions options{.stage = stage, .tied = false, .group = 2, .precision = at::kBFloat16};
      check_read(name, 4, options, dir / "model");
    }
  }
}

TEST_CASE("no rank holds a network that it starts from", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const CaseOptions shape{.tied = false, .layers = 24};
  const testing::TempDir dir;
  save_network(shape, dir / "model");
  const Transformer model = Transformer::load(dir / "model");
  int64_t all = 0, layer = 0;
  for (const NamedTensor& p : model.parameters()) {
    all += static_cast<int64_t>(p.tensor.nbytes());
    if (p.name.starts_with("model.layers.0.")) layer += static_cast<int64_t>(p.tensor.nbytes());
  }
  // Policy, reference and critic; of the policy and the critic moments, too.
  for (const auto& [name, networks, trained] :
       std::vector<std::tuple<std::string, int64_t, int64_t>>{
           {"sft", 1, 1}, {"dpo", 2, 1}, {"ppo", 3, 2}}) {
    for (const auto& [world, group] : std::vector<std::pair<int32_t, int64_t>>{{4, 0}, {4, 2}}) {
      CaseOptions options = shape;
      options.stage = 3;
      options.group = group;
      const std::vector<int64_t> loaded = peaks(name, world, options);
      options.folder = dir / "model";
      const std::vector<int64_t> peak = peaks(name, world, options);
      const int64_t parts = group == 0 ? world : group;
      const int64_t kept = (networks + 2 * trained) * all / parts;
      INFO(name << ", group " << group << ": a network is " << all << ", a rank keeps " << kept);
      for (size_t r = 0; r < peak.size(); ++r) {
        CHECK(peak[r] < kept + 2 * layer + all / 10);
        CHECK(loaded[r] > networks * all);  // or this would show nothing
      }
    }
  }
}

TEST_CASE("ranks that split layers read their parts, and train as with loaded networks",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  LoraConfig lora;
  lora.rank = 2;
  for (const bool tied : {true, false}) {
    const testing::TempDir dir;
    save_network({.tied = tied}, dir / "model");
    for (const std::string& name :
         std::vector<std::string>{"sft", "dpo", "ppo", "ppo_shared", "reward_model"}) {
      for (const auto& [world, tensor, stage, precision] :
           std::vector<std::tuple<int32_t, int64_t, int64_t, at::ScalarType>>{
               {2, 2, 1, at::kFloat},
               {4, 4, 1, at::kFloat},
               {4, 2, 3, at::kFloat},
               {2, 2, 1, at::kBFloat16},
               {4, 2, 3, at::kBFloat16}}) {
        for (const bool adapted : {false, true}) {
          CaseOptions options{.stage = stage, .tied = tied, .precision = precision};
          options.tensor = tensor;
          if (adapted) options.lora = lora;
          INFO(name << ", " << world << " ranks, tensor " << tensor << ", stage " << stage
                    << (precision == at::kFloat ? "" : ", bfloat16"));
          check_read(name, world, options, dir / "model");
        }
      }
    }
  }
}

TEST_CASE("no rank that splits layers holds a network that it starts from", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const CaseOptions shape{.tied = false, .layers = 24};
  const testing::TempDir dir;
  save_network(shape, dir / "model");
  const Transformer model = Transformer::load(dir / "model");
  int64_t all = 0, largest = 0;
  for (const NamedTensor& p : model.parameters()) {
    const auto bytes = static_cast<int64_t>(p.tensor.nbytes());
    all += bytes;
    largest = std::max(largest, bytes);
  }
  // Policy, reference and critic; of the policy and the critic moments, too.
  for (const auto& [name, networks, trained] :
       std::vector<std::tuple<std::string, int64_t, int64_t>>{
           {"sft", 1, 1}, {"dpo", 2, 1}, {"ppo", 3, 2}}) {
    for (const auto& [world, tensor, stage] :
         std::vector<std::tuple<int32_t, int64_t, int64_t>>{{2, 2, 1}, {4, 4, 1}, {4, 2, 3}}) {
      CaseOptions options = shape;
      options.tensor = tensor;
      options.stage = stage;
      const std::vector<int64_t> loaded = peaks(name, world, options);
      options.folder = dir / "model";
      const std::vector<int64_t> peak = peaks(name, world, options);
      INFO(name << ", tensor " << tensor << ", stage " << stage << ": a network is " << all);
      for (size_t r = 0; r < peak.size(); ++r) {
        int64_t part = 0;  // with norms, and keys and values of more ranks than heads, whole
        for (const NamedTensor& p : model.parameters()) {
          const auto rank = static_cast<int64_t>(r) % tensor;
          const TensorPart place = tensor_part(model.config(), p.name, rank, tensor);
          part += static_cast<int64_t>(place.of(p.tensor).nbytes());
        }
        const int64_t kept = (networks + 2 * trained) * part * tensor / world;
        INFO("rank " << r << " keeps " << kept << " bytes");
        CHECK(peak[r] < kept + largest + all / 20);
        CHECK(loaded[r] > networks * all);  // or this would show nothing
      }
    }
  }
}

TEST_CASE("ranks that read different weights are refused", "[learners][cpu]") {
  const testing::OneThread one_thread;
  const testing::TempDir dir;
  save_network({}, dir / "one");
  save_network({.seed = 2}, dir / "other");
  for (const auto& [world, stage, tensor] : std::vector<std::tuple<int32_t, int64_t, int64_t>>{
           {3, 1, 1}, {3, 3, 1}, {4, 1, 2}, {4, 3, 2}}) {
    const auto errors = run_ranks(world, [&](Collective& ranks) {
      CaseOptions options{.stage = stage};
      options.tensor = tensor;
      options.folder = dir / (ranks.rank() == 2 ? "other" : "one");
      make_case("dpo", &ranks, options);
    });
    CHECK_THAT(errors[0],
               Catch::Contains("rank 2 does not start from what rank 0 starts from: policy/model"));
    CHECK(errors == std::vector<std::string>(static_cast<size_t>(world), errors[0]));
  }
}

TEST_CASE("weights that one rank cannot read are the same error on all", "[learners][cpu]") {
  const testing::OneThread one_thread;
  /// A disk that fails.
  class Broken final : public ModelWeights {
   public:
    explicit Broken(std::shared_ptr<const ModelWeights> good) : good_(std::move(good)) {}
    Transformer shell() const override { return good_->shell(); }

   private:
    void read_own(std::span<const NamedTensor> parameters) const override {
      if (parameters.front().name.find("layers.1") != std::string::npos)
        throw IoError("layers.1: input/output error");
      good_->read(parameters);
    }
    at::ScalarType dtype() const override { return at::kFloat; }

    std::shared_ptr<const ModelWeights> good_;
  };
  const testing::TempDir dir;
  save_network({}, dir / "model");
  for (const std::string& error : run_ranks(3, [&](Collective& ranks) {
         LearnerModels models;
         models.policy_weights = open_model(dir / "model");
         models.policy = std::make_unique<Transformer>(models.policy_weights->shell());
         if (ranks.rank() == 1)
           models.policy_weights = std::make_shared<Broken>(models.policy_weights);
         LearnerConfig config;
         config.sharding.stage = 3;
         Learner(config, make_dpo({.beta = 1}), std::move(models), &ranks);
       })) {
    CHECK(error == "layers.1: input/output error");
  }
}

}  // namespace praetor
