// What saving, loading and exporting take of memory beside the learner itself.
#include <ATen/ATen.h>
#include <malloc.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>

#include "actors/train/checkpoint_saver.h"
#include "actors/train/checkpointing.h"
#include "core/base/fs.h"
#include "core/publication/weight_file.h"
#include "learners/algorithms/sft.h"
#include "tests/actors/rpc/fake_services.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

namespace {

using testing::TempDir;

int64_t status_bytes(const std::string& key) {
  std::istringstream lines(read_file("/proc/self/status"));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(key + ":")) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  return -1;
}

/// By how much `work` raised the memory of this process above what it was before, at its highest;
/// nothing where the kernel does not let the highest be forgotten.
template <typename Work>
std::optional<int64_t> rise_of(const Work& work) {
  ::malloc_trim(0);
  std::ofstream forget("/proc/self/clear_refs");
  forget << "5" << std::flush;
  if (!forget) return std::nullopt;
  const int64_t before = status_bytes("VmRSS");
  if (status_bytes("VmHWM") > before + (8 << 20)) return std::nullopt;
  work();
  return status_bytes("VmHWM") - before;
}

/// 26 million weights in 75 tensors: 103 MB, and twice that of moments.
ModelConfig wide_config() {
  ModelConfig config = testing::tiny_config();
  config.vocab_size = 1000;
  config.hidden_size = 512;
  config.intermediate_size = 1408;
  config.num_layers = 8;
  config.num_heads = config.num_kv_heads = 8;
  config.head_dim = 64;
  return config;
}

Learner wide_learner(uint64_t seed) {
  LearnerModels models;
  models.policy = std::make_unique<Transformer>(wide_config(), testing::stream(seed));
  return Learner({}, make_sft(SftConfig{}), std::move(models));
}

}  // namespace

TEST_CASE("saving, loading, publishing and exporting need no copy of the model in memory",
          "[actors][cpu]") {
  const TempDir dir;
  const auto ranks = make_local_collective();
  testing::FakeServices run;
  std::string digest;
  std::vector<std::pair<std::string, std::optional<int64_t>>> rises;
  int64_t state_bytes = 0;
  {
    const Learner learner = wide_learner(1);
    digest = learner.policy().digest();
    // Allocated, but never written to, moments are no memory yet.
    for (const NamedTensor& t : learner.state()) {
      state_bytes += static_cast<int64_t>(t.tensor.nbytes());
      if (t.name.starts_with("optimizer/")) t.tensor.fill_(0.25);
    }
    CHECK(state_bytes > (300 << 20));
    CheckpointSaver saver(run, *ranks, {});
    const CheckpointContext context{
        .run_dir = dir.path(), .stage_name = "sft", .tokenizer = dir.path()};
    rises.emplace_back("save", rise_of([&] { saver.save(context, learner, 1, {}); }));
    rises.emplace_back("publish", rise_of([&] {
                         write_weight_file(dir / "weights", {}, learner.policy(), {.threads = 1});
                       }));
  }
  {
    Learner learner = wide_learner(2);
    for (const NamedTensor& t : learner.state()) {
      if (t.name.starts_with("optimizer/")) t.tensor.zero_();
    }
    rises.emplace_back("load",
                       rise_of([&] { load_checkpoint(dir / "latest", "sft", *ranks, learner); }));
    CHECK(learner.policy().digest() == digest);
    for (const NamedTensor& t : learner.state()) {
      if (!t.name.starts_with("optimizer/")) continue;
      INFO(t.name);
      CHECK(t.tensor.eq(0.25).all().item<bool>());
    }
  }
  rises.emplace_back("export",
                     rise_of([&] { export_checkpoint(dir / "latest", dir / "exported"); }));
  CHECK(Transformer::load(dir / "exported").digest() == digest);
  for (const auto& [what, rise] : rises) {
    if (!rise) {
      WARN("skipped: this kernel does not let a process forget its highest memory");
      return;
    }
    INFO(what << " took " << (*rise >> 20) << " MB beside " << (state_bytes >> 20) << " MB");
    CHECK(*rise < state_bytes * 15 / 100);
  }
}

TEST_CASE("ranks that keep weights in parts never hold the model that they start from",
          "[actors][cpu]") {
  const TempDir dir;
  save_hf(wide_learner(1).policy(), dir / "model");
  const int64_t model_bytes = 4 * wide_config().parameter_count();
  const auto start = [&](int64_t stage) {
    return rise_of([&] {
      const auto errors = testing::run_ranks(2, [&](Collective& ranks) {
        LearnerModels models;
        models.policy_weights = open_model(dir / "model");
        models.policy = std::make_unique<Transformer>(models.policy_weights->shell());
        LearnerConfig config;
        config.sharding.stage = stage;
        config.lora = LoraConfig{.rank = 2};  // moments would be twice the weights
        const Learner learner(config, make_sft(SftConfig{}), std::move(models), &ranks);
        ranks.barrier();
      });
      CHECK(errors == std::vector<std::string>(2));
    });
  };
  // As units above 32 MB are anyway: mapped each by itself, they leave no holes in the heap.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
  const auto whole = start(1), parts = start(3);
  if (!whole || !parts) {
    WARN("skipped: this kernel does not let a process forget its highest memory");
    return;
  }
  INFO("two ranks took " << (*whole >> 20) << " MB at stage 1 and " << (*parts >> 20)
                         << " MB at stage 3; the model has " << (model_bytes >> 20) << " MB");
  CHECK(*whole > 2 * model_bytes);
  // Together they keep the network once, and for a moment a layer each.
  CHECK(*parts < model_bytes + model_bytes / 2);
}

}  // namespace praetor
