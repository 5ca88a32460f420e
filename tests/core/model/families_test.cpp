#include "core/model/families.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
#include <string>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/model/safetensors.h"
#include "core/model/sequence_logprobs.h"
#include "core/model/stored_layout.h"
#include "core/model/transformer.h"
#include "tests/support/catch.h"
#include "tests/support/family_folders.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

/// Folders of tests/golden/families, written by transformers, against what transformers computes.
namespace praetor {

using nlohmann::json;
using testing::golden;
using testing::TempDir;
using Sequences = std::vector<std::vector<int64_t>>;

namespace {

// Ours differ from transformers' float32 results by the order of sums, about 1e-6 for logits of a
// few nats.
constexpr double kTolerance = 1e-4;

json read_golden(const std::string& name) {
  return json::parse(read_file(golden("families/" + name)));
}

double distance(const json& wanted, const at::Tensor& found) {
  const auto values = wanted.get<std::vector<double>>();
  REQUIRE(static_cast<int64_t>(values.size()) == found.numel());
  if (values.empty()) return 0;
  return (at::tensor(values, at::kDouble) - found.to(at::kDouble).flatten())
      .abs()
      .max()
      .item<double>();
}

}  // namespace

TEST_CASE("every family's log-probabilities and logits are those of transformers", "[core][cpu]") {
  for (const std::string& name : testing::kFamilyFolders) {
    INFO(name);
    const Transformer model = Transformer::load(golden("families/" + name));
    const json wanted = read_golden(name + ".json");
    const auto sequences = wanted["sequences"].get<Sequences>();
    const auto logprobs = sequence_logprobs(model, sequences);
    const PackedTokens batch = pack(sequences);
    const at::Tensor hidden = model.hidden(batch);
    for (size_t s = 0; s < sequences.size(); ++s) {
      INFO("sequence " << s);
      CHECK(distance(wanted["logprobs"][s], at::tensor(logprobs[s])) < kTolerance);
      const at::Tensor last = hidden.slice(0, batch.offsets[s + 1] - 1, batch.offsets[s + 1]);
      CHECK(distance(wanted["last_logits"][s], model.logits(last)) < kTolerance);
      const at::Tensor stepped = testing::hidden_by_steps(model, sequences[s], 3);
      CHECK(distance(wanted["last_logits"][s], model.logits(stepped.slice(0, -1))) < kTolerance);
    }
  }
}

TEST_CASE("every family continues greedily as transformers does, past windows and switches",
          "[core][cpu]") {
  for (const std::string& name : testing::kFamilyFolders) {
    INFO(name);
    const Transformer model = Transformer::load(golden("families/" + name));
    const json wanted = read_golden(name + ".json");
    const auto prompt = wanted["prompt"].get<std::vector<int64_t>>();
    const auto whole = wanted["greedy"].get<std::vector<int64_t>>();
    CHECK(testing::greedy(model, prompt, static_cast<int64_t>(whole.size() - prompt.size())) ==
          whole);
  }
}

TEST_CASE("every family's gradients have transformers' norms, tensor by tensor", "[core][cpu]") {
  for (const std::string& name : testing::kFamilyFolders) {
    INFO(name);
    Transformer model = Transformer::load(golden("families/" + name));
    model.set_requires_grad(true);
    testing::mean_nll(model, read_golden(name + ".json")["sequences"].get<Sequences>()).backward();
    std::vector<NamedTensor> gradients;
    for (const NamedTensor& named : model.parameters()) {
      REQUIRE(named.tensor.grad().defined());
      gradients.push_back({named.name, named.tensor.grad()});
    }
    const json wanted = read_golden(name + ".norms.json");
    const testing::TempDir dir;
    save_hf(model.config(), gradients, dir / "gradients");
    const SafetensorsFolder stored(dir / "gradients");
    CHECK(stored.names().size() == wanted.size());
    for (const std::string& stored_name : stored.names()) {
      INFO(stored_name);
      CHECK(stored.tensor(stored_name).to(at::kDouble).norm().item<double>() ==
            Approx(wanted.at(stored_name).get<double>()).epsilon(1e-4));
    }
  }
}

TEST_CASE("gradients of a block with everything agree with finite differences in float64",
          "[core][cpu]") {
  for (const std::string name : {"gpt2_odd", "gemma2", "gemma3", "phi3_partial"}) {
    INFO(name);
    Transformer model = Transformer::load(golden("families/" + name), at::kDouble);
    model.set_requires_grad(true);
    const Sequences sequences = {testing::random_tokens(26, 64, 1),
                                 testing::random_tokens(3, 64, 2)};
    testing::mean_nll(model, sequences).backward();
    const c10::NoGradGuard no_grad;
    testing::check_middle_gradients(model.parameters(),
                                    [&] { return testing::mean_nll(model, sequences); });
  }
}

TEST_CASE("a family's folder is written back byte for byte", "[core][cpu]") {
  for (const std::string& name : testing::kFamilyFolders) {
    INFO(name);
    const TempDir dir;
    const Transformer model = Transformer::load(golden("families/" + name));
    save_hf(model, dir.path());
    CHECK(read_file(dir / "model.safetensors") ==
          read_file(golden("families/" + name + "/model.safetensors")));
    const Transformer again = Transformer::load(dir.path());
    CHECK(again.digest() == model.digest());
    CHECK(again.config().to_json() == model.config().to_json());
    // What transformers wrote into config.json stands in ours too, but for keys of no effect.
    const json theirs = read_golden(name + "/config.json");
    const json ours = json::parse(read_file(dir / "config.json"));
    for (const char* key : {"architectures",
                            "model_type",
                            "layer_types",
                            "rope_parameters",
                            "sliding_window",
                            "tie_word_embeddings",
                            "query_pre_attn_scalar",
                            "attn_logit_softcapping",
                            "final_logit_softcapping",
                            "n_embd",
                            "n_positions"}) {
      if (!theirs.contains(key) || !ours.contains(key)) continue;
      json written = ours[key];
      if (std::string(key) == "rope_parameters") {
        // Phi-3's has these two where they have their usual values.
        written.erase("attention_factor");
        if (theirs[key].contains("partial_rotary_factor") &&
            !written.contains("partial_rotary_factor"))
          written["partial_rotary_factor"] = 1.0;
      }
      INFO(key);
      CHECK(written == theirs[key]);
    }
  }
}

TEST_CASE("GPT-2's weights load without their prefix and with the masks of old writers",
          "[core][cpu]") {
  const TempDir dir;
  const auto source = golden("families/gpt2");
  write_file_atomic(dir / "config.json", read_file(source / "config.json"));
  const SafetensorsFolder files(source);
  std::vector<NamedTensor> tensors;
  for (const auto& name : files.names()) {
    REQUIRE(name.starts_with("transformer."));
    tensors.push_back({name.substr(12), files.tensor(name)});
  }
  tensors.push_back({"h.0.attn.bias", at::ones({1, 1, 96, 96}).tril()});
  tensors.push_back({"h.1.attn.masked_bias", at::full({}, -1e4)});
  write_safetensors(dir / "model.safetensors", tensors);
  CHECK(Transformer::load(dir.path()).digest() == Transformer::load(source).digest());
}

TEST_CASE("a fused tensor of the wrong shape is named as the folder names it", "[core][cpu]") {
  const TempDir dir;
  const auto source = golden("families/phi3");
  write_file_atomic(dir / "config.json", read_file(source / "config.json"));
  const SafetensorsFolder files(source);
  std::vector<NamedTensor> tensors;
  for (const auto& name : files.names()) {
    const bool fused = name == "model.layers.1.self_attn.qkv_proj.weight";
    tensors.push_back({name, fused ? at::zeros({47, 24}) : files.tensor(name)});
  }
  write_safetensors(dir / "model.safetensors", tensors);
  CHECK_THROWS_WITH(Transformer::load(dir.path()),
                    Catch::Contains("model.layers.1.self_attn.qkv_proj.weight "
                                    "(model.safetensors) is [47, 24], config.json wants [48, 24]"));
  const ModelConfig config = ModelConfig::load(source);
  CHECK_THROWS_WITH(
      save_hf(config, {{"model.layers.0.mlp.up_proj.weight", at::zeros({36, 24})}}, dir / "half"),
      Catch::Contains("model.layers.0.mlp.gate_up_proj.weight 1 parts of 2"));
}

TEST_CASE("a new model of any family starts with norms of weight one", "[core][cpu]") {
  for (const std::string& name : testing::kFamilyFolders) {
    INFO(name);
    const Transformer model(ModelConfig::load(golden("families/" + name)), testing::stream(1));
    const bool one_plus = family_of(model.config()).norm == NormKind::kRmsOnePlus;
    for (const NamedTensor& named : model.parameters()) {
      if (named.tensor.dim() != 1) continue;
      INFO(named.name);
      const bool norm = named.name.find("norm") != std::string::npos;
      const double value = norm && named.name.ends_with(".weight") && !one_plus ? 1 : 0;
      CHECK(at::equal(named.tensor, at::full_like(named.tensor, value)));
    }
    CHECK(model.hidden(pack({{1, 2, 3}})).isfinite().all().item<bool>());
  }
}

TEST_CASE("a classifier of each layout keeps its head", "[core][cpu]") {
  for (const std::string name : {"gpt2", "phi3", "gemma3"}) {
    INFO(name);
    const TempDir dir;
    const ScalarModel model = ScalarModel::load(golden("families/" + name), testing::stream(4));
    save_hf(model, dir.path());
    const ScalarModel again = ScalarModel::load(dir.path(), testing::stream(5));
    CHECK(again.backbone.digest() == model.backbone.digest());
    CHECK(at::equal(again.head.weight, model.head.weight));
    const json config = json::parse(read_file(dir / "config.json"));
    CHECK(config["architectures"][0] == family_of(model.backbone.config()).sequence_classification);
  }
}

}  // namespace praetor
