#include "actors/train/checkpointing.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/checkpoint/checkpoint.h"
#include "core/model/safetensors.h"
#include "core/model/transformer.h"
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

}  // namespace

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
