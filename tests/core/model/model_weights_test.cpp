#include "core/model/model_weights.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <filesystem>

#include "core/base/error.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

using testing::golden;
using testing::TempDir;
using testing::tiny_model;

namespace {

/// Gives one parameter memory of its own.
void give_memory(const at::Tensor& parameter) {
  parameter.set_data(at::empty(parameter.sizes(), parameter.options()));
}

}  // namespace

TEST_CASE("a shell's weights are read one by one, in any order, as the model is loaded",
          "[core][cpu]") {
  for (const char* family : {"llama3", "gpt2", "phi3", "gemma2", "qwen2_tied"}) {
    const std::filesystem::path folder = golden(std::string("families/") + family);
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
      INFO(family);
      const Transformer loaded = Transformer::load(folder, dtype);
      const auto weights = open_model(folder, dtype);
      const Transformer shell = weights->shell();
      CHECK(shell.dtype() == dtype);
      auto parameters = shell.parameters();
      for (const NamedTensor& p : parameters) CHECK(is_waiting(p.tensor));
      std::reverse(parameters.begin(), parameters.end());
      for (const NamedTensor& p : parameters) {
        give_memory(p.tensor);
        weights->read(std::span(&p, 1));
      }
      CHECK(shell.digest() == loaded.digest());
      CHECK(!is_waiting(shell.parameters().front().tensor));
    }
  }
}

TEST_CASE("a scalar model opens with its head, and its backbone waits", "[core][cpu]") {
  const TempDir dir;
  save_hf(tiny_model(), dir / "causal");
  const RandomStream stream({.job_seed = 4, .purpose = Purpose::kInitialise});
  const ScalarModel fresh = ScalarModel::load(dir / "causal", stream);
  save_hf(fresh, dir / "scalar");
  for (const char* name : {"causal", "scalar"}) {
    const ScalarModel loaded = ScalarModel::load(dir / name, stream);
    OpenedScalar opened = open_scalar(dir / name, stream);
    CHECK(is_waiting(opened.model.backbone.parameters().front().tensor));
    CHECK(at::equal(opened.model.head.weight, loaded.head.weight));
    read_whole(*opened.backbone, opened.model.backbone);
    CHECK(opened.model.backbone.digest() == loaded.backbone.digest());
    CHECK(loaded.backbone.digest() == fresh.backbone.digest());
  }
  CHECK_THROWS_WITH(open_model(dir / "scalar"), Catch::Contains("has no language head"));
  CHECK_THROWS_WITH(open_scalar(dir / "scalar", stream, at::kFloat, 3),
                    Catch::Contains("num_labels: 1, but 3 are wanted"));
  CHECK_THROWS_AS(open_model(dir / "none"), MissingInput);
}

TEST_CASE("an adapter is merged into what is read", "[core][cpu]") {
  const TempDir dir;
  save_hf(tiny_model(), dir / "model");
  const Transformer base = Transformer::load(dir / "model");
  LoraAdapter adapter = LoraAdapter::make(base.config(), {.rank = 2}, {.job_seed = 3});
  for (const LoraAdapter::Module& module : adapter.modules()) {
    const at::NoGradGuard no_grad;
    at::Tensor(module.b).fill_(0.5);
  }
  const auto weights = merged_weights(open_model(dir / "model"), adapter.clone());
  const Transformer shell = weights->shell();
  read_whole(*weights, shell);
  CHECK(shell.digest() == adapter.merged(base).digest());
  CHECK(shell.digest() != base.digest());
}

}  // namespace praetor
