#include "actors/train/checkpointing.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/checkpoint/checkpoint.h"
#include "core/model/lora.h"
#include "core/model/peft_folder.h"
#include "core/model/safetensors.h"
#include "core/model/transformer.h"
#include "learners/lora_config.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {
namespace {

using testing::golden;
using testing::TempDir;

std::filesystem::path checkpoint_of(const TempDir& run,
                                    const std::string& owner,
                                    std::vector<NamedTensor> tensors,
                                    const std::string& config) {
  for (NamedTensor& named : tensors) named.name = owner + "/" + named.name;
  CheckpointWriter writer(run.path(), "stage", 1);
  writer.add_shard(0, tensors);
  writer.set_state({{"stage", "stage"}, {"step", 1}});
  writer.add_blob("config.json", config);
  return writer.commit();
}

std::set<std::string> names_in(const std::filesystem::path& folder) {
  const auto names = SafetensorsFile(folder / "model.safetensors").names();
  return {names.begin(), names.end()};
}

/// An adapter of gpt2 that changes something.
LoraAdapter busy_adapter(const ModelConfig& config) {
  LoraAdapter out = LoraAdapter::make(config, {.rank = 2, .alpha = 3}, {.job_seed = 1});
  for (const LoraAdapter::Module& module : out.modules())
    module.b.copy_(at::arange(module.b.numel()).view(module.b.sizes()).sin() * 0.1);
  return out;
}

/// The checkpoint of a stage "tuned" that trained `tensors` on the model in `base`.
std::filesystem::path adapted_checkpoint(const TempDir& run,
                                         std::vector<NamedTensor> tensors,
                                         const std::string& config,
                                         const std::string& base,
                                         const std::string& base_adapter = "") {
  CheckpointWriter writer(run.path(), "tuned", 1);
  writer.add_shard(0, tensors);
  nlohmann::json state = {
      {"stage", "tuned"},
      {"step", 1},
      {"base", base},
      {"learner", {{"lora", nlohmann::json::parse(lora_to_json({.rank = 2, .alpha = 3}))}}}};
  if (!base_adapter.empty()) state["base_adapter"] = base_adapter;
  writer.set_state(state);
  writer.add_blob("config.json", config);
  return writer.commit();
}

std::vector<NamedTensor> prefixed(std::vector<NamedTensor> tensors, const std::string& owner) {
  for (NamedTensor& named : tensors) named.name = owner + "/" + named.name;
  return tensors;
}

}  // namespace

TEST_CASE("an adapter's checkpoint is exported merged, or by itself", "[checkpoint]") {
  const TempDir run, out;
  const Transformer base = Transformer::load(golden("families/gpt2"));
  const LoraAdapter adapter = busy_adapter(base.config());
  copy_tokenizer(golden("families/gpt2"), run / "stages" / "sft");  // makes the folder
  save_hf(base, run / "stages" / "sft");
  const auto checkpoint = adapted_checkpoint(run,
                                             prefixed(adapter.parameters(), "policy"),
                                             base.config().to_json("causal_lm"),
                                             "stages/sft");
  export_checkpoint(checkpoint, out / "model");
  const Transformer exported = Transformer::load(out / "model");
  CHECK(exported.digest() == adapter.merged(base).digest());
  CHECK(exported.digest() != base.digest());
  CHECK(names_in(out / "model") == names_in(run / "stages" / "sft"));

  export_adapter(checkpoint, out / "adapter");
  const LoraAdapter again = load_peft(out / "adapter", base.config());
  CHECK(again.merged(base).digest() == exported.digest());
  const auto written = nlohmann::json::parse(read_file(out / "adapter" / "adapter_config.json"));
  CHECK(written.at("fan_in_fan_out") == true);
  CHECK(written.at("target_modules") == nlohmann::json({"c_attn", "c_proj", "c_fc"}));
  CHECK(
      std::filesystem::path(written.at("base_model_name_or_path").get<std::string>()).filename() ==
      "sft");

  std::filesystem::remove_all(run / "stages");
  CHECK_THROWS_WITH(export_checkpoint(checkpoint, out / "again"),
                    Catch::Contains("stages/sft: no such folder; the checkpoint's adapter"));
  export_adapter(checkpoint, out / "still");  // needs no base
  CHECK_THROWS_AS(export_adapter(checkpoint, out / "still"), InvalidArgument);
  const TempDir plain;
  CHECK_THROWS_WITH(
      export_adapter(
          checkpoint_of(plain, "policy", base.parameters(), base.config().to_json("causal_lm")),
          out / "none"),
      Catch::Contains("no learner.lora"));
}

TEST_CASE("an adapter that was trained on another one is exported merged into both",
          "[checkpoint]") {
  for (const std::string family : {"gpt2", "phi3", "gemma2"}) {
    CAPTURE(family);
    const TempDir run, out;
    const auto original = std::filesystem::absolute(golden("families/" + family));
    const Transformer base = Transformer::load(original);
    const LoraAdapter first = busy_adapter(base.config()), second = busy_adapter(base.config());
    for (const LoraAdapter::Module& module : second.modules()) module.b.mul_(-3);
    save_peft(first, base.config(), {.base = original.string()}, out / "first");
    const auto checkpoint = adapted_checkpoint(run,
                                               prefixed(second.parameters(), "policy"),
                                               base.config().to_json("causal_lm"),
                                               original.string(),
                                               (out / "first").string());
    export_checkpoint(checkpoint, out / "model");
    CHECK(Transformer::load(out / "model").digest() == second.merged(first.merged(base)).digest());
    CHECK(names_in(out / "model") == names_in(original));
    CHECK_THROWS_WITH(export_adapter(checkpoint, out / "adapter"),
                      Catch::Contains("merged into it; leave --adapter out"));
  }
}

TEST_CASE("a reward model's adapter is exported with the head that learnt beside it",
          "[checkpoint]") {
  const TempDir run, out;
  const auto original = golden("families/gpt2");
  ScalarModel model = ScalarModel::load(original, testing::stream(3), at::kFloat, 1);
  const LoraAdapter adapter = busy_adapter(model.backbone.config());
  auto tensors = prefixed(adapter.parameters(), "reward_model");
  tensors.push_back({"reward_model/score.weight", model.head.weight});
  const auto checkpoint = adapted_checkpoint(run,
                                             tensors,
                                             model.config().to_json("sequence_classification"),
                                             std::filesystem::absolute(original).string());
  export_checkpoint(checkpoint, out / "model");
  const ScalarModel exported = ScalarModel::load(out / "model", testing::stream(4));
  CHECK(at::equal(exported.head.weight, model.head.weight));
  CHECK(exported.backbone.digest() == adapter.merged(model.backbone).digest());
  export_adapter(checkpoint, out / "adapter");
  const SafetensorsFile file(out / "adapter" / "adapter_model.safetensors");
  CHECK(at::equal(file.tensor("base_model.model.score.weight"), model.head.weight));
}

TEST_CASE("a checkpoint is exported under the names and shapes of its family", "[checkpoint]") {
  for (const std::string family : {"gpt2", "phi3", "qwen3", "gemma2"}) {
    CAPTURE(family);
    const auto original = golden("families/" + family);
    const Transformer model = Transformer::load(original);
    const TempDir run, out;
    export_checkpoint(
        checkpoint_of(run, "policy", model.parameters(), model.config().to_json("causal_lm")),
        out / "model");
    CHECK(names_in(out / "model") == names_in(original));
    const Transformer exported = Transformer::load(out / "model");
    const auto wanted = model.parameters(), found = exported.parameters();
    REQUIRE(found.size() == wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) CHECK(at::equal(found[i].tensor, wanted[i].tensor));
  }
}

TEST_CASE("a reward model's checkpoint is exported with its head", "[checkpoint]") {
  const auto original = golden("families/gpt2");
  const ScalarModel model = ScalarModel::load(original, testing::stream(3), at::kFloat, 1);
  const TempDir run, out;
  export_checkpoint(checkpoint_of(run,
                                  "reward_model",
                                  model.parameters(),
                                  model.config().to_json("sequence_classification")),
                    out / "model");
  const ScalarModel exported = ScalarModel::load(out / "model", testing::stream(4));
  CHECK(at::equal(exported.head.weight, model.head.weight));
  CHECK_THROWS_AS(export_checkpoint(run / "latest", out / "model"), InvalidArgument);
}

}  // namespace praetor
