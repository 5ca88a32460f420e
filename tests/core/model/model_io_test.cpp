#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/model/safetensors.h"
#include "core/model/sequence_logprobs.h"
#include "core/model/transformer.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::golden;
using testing::TempDir;
using testing::tiny_model;
using Sequences = std::vector<std::vector<int64_t>>;

namespace {

/// A folder of `config.json` and the tensors of `source` after `edit`.
void write_folder(const TempDir& dir,
                  const fs::path& source,
                  const std::function<void(std::vector<NamedTensor>&)>& edit) {
  fs::copy_file(source / "config.json", dir / "config.json", fs::copy_options::overwrite_existing);
  const SafetensorsFolder files(source);
  std::vector<NamedTensor> tensors;
  for (const auto& name : files.names()) tensors.push_back({name, files.tensor(name)});
  edit(tensors);
  write_safetensors(dir / "model.safetensors", tensors);
}

NamedTensor& find(std::vector<NamedTensor>& tensors, const std::string& name) {
  return *std::find_if(
      tensors.begin(), tensors.end(), [&](const NamedTensor& t) { return t.name == name; });
}

std::string load_error(const fs::path& folder) {
  try {
    Transformer::load(folder);
  } catch (const DataError& failure) {
    return failure.what();
  }
  return "no DataError";
}

}  // namespace

TEST_CASE("a saved folder loads as the same model, in one file or in shards", "[core][cpu]") {
  const TempDir dir;
  const Transformer model = tiny_model();
  save_hf(model, dir / "one");
  CHECK(Transformer::load(dir / "one").digest() == model.digest());
  save_hf(model, dir / "many", 5000);
  CHECK(fs::exists(dir / "many" / "model.safetensors.index.json"));
  CHECK(std::distance(fs::directory_iterator(dir / "many"), {}) > 6);
  CHECK_FALSE(fs::exists(dir / "many" / "model.safetensors"));
  CHECK(Transformer::load(dir / "many").digest() == model.digest());
  CHECK(Transformer::load(dir / "many").config().to_json() == model.config().to_json());
  CHECK(Transformer::load(dir / "many").config().eos_tokens == std::vector<int64_t>{2});

  // A later save leaves nothing of the earlier one behind.
  const Transformer other = tiny_model(2);
  save_hf(other, dir / "many");
  CHECK(Transformer::load(dir / "many").digest() == other.digest());
  CHECK(std::distance(fs::directory_iterator(dir / "many"), {}) == 3);
  save_hf(model, dir / "many", 5000);
  CHECK(Transformer::load(dir / "many").digest() == model.digest());
  CHECK_FALSE(fs::exists(dir / "many" / "model.safetensors"));

  save_hf(model, dir / "again");
  CHECK(read_file(dir / "again" / "model.safetensors") ==
        read_file(dir / "one" / "model.safetensors"));
  CHECK_THROWS_AS(save_hf(model, dir / "one" / "config.json" / "x"), IoError);
  CHECK_THROWS_AS(save_hf(model, dir / "x", 0), InvalidArgument);
}

TEST_CASE("every golden folder survives load, save and load", "[core][cpu]") {
  const TempDir dir;
  for (const std::string name :
       {"tied_mha", "untied_gqa", "biases", "qwen2", "mistral", "sharded", "rope_yarn_mscale"}) {
    INFO(name);
    const Transformer model = Transformer::load(golden("models/" + name));
    save_hf(model, dir / name);
    CHECK(Transformer::load(dir / name).digest() == model.digest());
  }
}

TEST_CASE(
    "half and bfloat16 folders convert exactly to float32, and a bfloat16 model is saved as it is",
    "[core][cpu]") {
  for (const std::string name : {"half", "bfloat"}) {
    const Transformer model = Transformer::load(golden("models/" + name));
    const SafetensorsFolder stored(golden("models/" + name));
    for (const NamedTensor& named : model.parameters()) {
      CHECK(named.tensor.scalar_type() == at::kFloat);
      CHECK(stored.tensor(named.name).scalar_type() != at::kFloat);
      CHECK(at::equal(named.tensor, stored.tensor(named.name).to(at::kFloat)));
    }
  }
  const TempDir dir;
  save_hf(Transformer::load(golden("models/bfloat"), at::kBFloat16), dir.path());
  CHECK(json::parse(read_file(dir / "config.json"))["dtype"] == "bfloat16");
  CHECK(Transformer::load(dir.path()).digest() ==
        Transformer::load(golden("models/bfloat")).digest());
}

TEST_CASE("transformers computes from our folders what we do", "[core][cpu]") {
  // exported/NAME was written by save_hf (the hidden case below), exported/NAME.json by
  // make_models.py --exported.
  for (const std::string name : {"llama",
                                 "qwen2",
                                 "yarn",
                                 "gpt2",
                                 "phi3",
                                 "gemma2",
                                 "gemma3",
                                 "mistral",
                                 "qwen2_window",
                                 "qwen3"}) {
    INFO(name);
    const Transformer model = Transformer::load(golden("exported/" + name));
    const json wanted = json::parse(read_file(golden("exported/" + name + ".json")));
    const auto sequences = wanted["sequences"].get<Sequences>();
    const auto logprobs = sequence_logprobs(model, sequences);
    for (size_t s = 0; s < sequences.size(); ++s) {
      const auto expected = wanted["logprobs"][s].get<std::vector<float>>();
      CHECK(at::allclose(at::tensor(logprobs[s]), at::tensor(expected), 0, 1e-4));
    }
    const TempDir dir;
    save_hf(model, dir.path());
    CHECK(read_file(dir / "config.json") == read_file(golden("exported/" + name + "/config.json")));
    CHECK(read_file(dir / "model.safetensors") ==
          read_file(golden("exported/" + name + "/model.safetensors")));
  }
  const json wanted = json::parse(read_file(golden("exported/scalar.json")));
  const ScalarModel model = ScalarModel::load(golden("exported/scalar"), testing::stream(0));
  const at::Tensor scores = model.score(pack(wanted["sequences"].get<Sequences>()));
  CHECK(at::allclose(scores, at::tensor(wanted["scores"].get<std::vector<float>>()), 0, 1e-4));
}

TEST_CASE("write the folders of tests/golden/exported", "[.][golden]") {
  ModelConfig config = testing::tiny_config();
  config.num_layers = 1;
  save_hf(Transformer(config, testing::stream(21)), golden("exported/llama"));
  ModelConfig yarn = config;
  yarn.tie_embeddings = true;
  yarn.rope = {.theta = 500,
               .scaling = "yarn",
               .factor = 4,
               .original_max_positions = 24,
               .attention_factor = 1.1};
  save_hf(Transformer(yarn, testing::stream(22)), golden("exported/yarn"));
  ModelConfig qwen = config;
  qwen.architecture = "qwen2";
  qwen.attention_bias = true;
  qwen.head_dim = 6;
  Transformer biased(qwen, testing::stream(23));
  for (const NamedTensor& named : biased.parameters()) {
    if (named.name.ends_with(".bias")) named.tensor.copy_(at::arange(named.tensor.numel()) * 0.02);
  }
  save_hf(biased, golden("exported/qwen2"));
  for (const auto& [from, to] : {std::pair{"gpt2_odd", "gpt2"},
                                 std::pair{"phi3_partial", "phi3"},
                                 std::pair{"gemma2", "gemma2"},
                                 std::pair{"gemma3", "gemma3"},
                                 std::pair{"mistral_window", "mistral"},
                                 std::pair{"qwen2_window", "qwen2_window"},
                                 std::pair{"qwen3_biases", "qwen3"}}) {
    const ModelConfig family = ModelConfig::load(golden(std::string("families/") + from));
    Transformer model(family, testing::stream(26));
    for (const NamedTensor& named : model.parameters()) {
      // 0.02, the usual deviation, would hide what the layers do.
      if (named.tensor.dim() == 2) named.tensor.mul_(15);
      if (named.name.ends_with(".bias"))
        named.tensor.copy_(at::arange(named.tensor.numel()) * 0.02);
    }
    save_hf(model, golden(std::string("exported/") + to));
  }
  const ScalarModel scalar{Transformer(config, testing::stream(24)),
                           ScalarHead::make(24, testing::stream(25))};
  save_hf(scalar, golden("exported/scalar"));
}

TEST_CASE("a classifier folder scores as transformers does and keeps its head", "[core][cpu]") {
  const json wanted = json::parse(read_file(golden("models/classifier.json")));
  const ScalarModel model = ScalarModel::load(golden("models/classifier"), testing::stream(0));
  const PackedTokens batch = pack(wanted["sequences"].get<Sequences>());
  const at::Tensor scores = model.score(batch);
  CHECK(at::allclose(scores, at::tensor(wanted["scores"].get<std::vector<float>>()), 0, 1e-4));
  const at::Tensor values = model.values(batch);
  CHECK(values.sizes().vec() == std::vector<int64_t>{batch.total()});
  CHECK(at::allclose(values[batch.offsets[1] - 1], scores[0], 1e-5, 1e-6));
  CHECK(model.parameters().back().name == "score.weight");
  CHECK_FALSE(model.backbone.has_head());
  CHECK_THROWS_WITH(model.backbone.logits(at::zeros({1, 32})), Catch::Contains("no language head"));

  const TempDir dir;
  save_hf(model, dir.path());
  const ScalarModel again = ScalarModel::load(dir.path(), testing::stream(0));
  CHECK(again.backbone.digest() == model.backbone.digest());
  CHECK(at::equal(again.head.weight, model.head.weight));
  CHECK_THROWS_WITH(save_hf(model.backbone, dir / "x"), Catch::Contains("no language head"));
  CHECK_THROWS_AS(model.score(pack({{1}, {}})), InvalidArgument);
}

TEST_CASE("a model of several numbers keeps their names", "[core][cpu]") {
  const TempDir dir;
  ScalarModel model =
      ScalarModel::load(golden("models/untied_gqa"), testing::stream(4), at::kFloat, 3);
  CHECK(model.head.weight.sizes().vec() == std::vector<int64_t>{3, 32});
  model.labels = {"helpfulness", "correctness", "verbosity"};
  save_hf(model, dir.path());
  CHECK(json::parse(read_file(dir / "config.json"))["id2label"]["2"] == "verbosity");
  const ScalarModel again = ScalarModel::load(dir.path(), testing::stream(0), at::kFloat, 3);
  CHECK(again.labels == model.labels);
  CHECK(again.config().num_labels == 3);
  const PackedTokens batch = pack({{1, 2, 3}, {4}});
  const at::Tensor scores = model.score(batch);
  CHECK(scores.sizes().vec() == std::vector<int64_t>{2, 3});
  CHECK(at::equal(again.score(batch), scores));
  CHECK(model.values(batch).sizes().vec() == std::vector<int64_t>{4, 3});
  CHECK_THROWS_WITH(ScalarModel::load(dir.path(), testing::stream(0), at::kFloat, 2),
                    Catch::Contains("num_labels: 3, but 2 are wanted"));
  CHECK_THROWS_WITH(ScalarModel::load(dir.path(), testing::stream(0)),
                    Catch::Contains("num_labels: 3, a scalar head has 1"));
}

TEST_CASE("a causal folder gets a fresh scalar head, without its language head", "[core][cpu]") {
  const ScalarModel one = ScalarModel::load(golden("models/untied_gqa"), testing::stream(4));
  const ScalarModel two = ScalarModel::load(golden("models/untied_gqa"), testing::stream(4));
  CHECK(at::equal(one.head.weight, two.head.weight));
  CHECK(one.head.weight.sizes().vec() == std::vector<int64_t>{1, 32});
  for (const NamedTensor& named : one.parameters()) CHECK(named.name != "lm_head.weight");
  // Deviation 1 / sqrt(1025), so about 0.0312; over 1024 values it is known to 2 percent.
  CHECK(ScalarHead::make(1024, testing::stream(5)).weight.std().item<double>() ==
        Approx(0.0312).epsilon(0.1));
  CHECK_THROWS_AS(ScalarHead::make(0, testing::stream(5)), InvalidArgument);
  const ScalarModel made{tiny_model(), ScalarHead::make(24, testing::stream(6))};
  CHECK(made.parameters().size() == made.backbone.parameters().size());  // less lm_head, plus score
}

TEST_CASE("a tied model may be stored with the embedding, the head, or both alike", "[core][cpu]") {
  const TempDir dir;
  const fs::path source = golden("models/tied_mha");
  const std::string digest = Transformer::load(source).digest();
  write_folder(dir, source, [](auto& tensors) {
    tensors.push_back({"lm_head.weight", find(tensors, "model.embed_tokens.weight").tensor});
  });
  CHECK(Transformer::load(dir.path()).digest() == digest);
  write_folder(dir, source, [](auto& tensors) {
    find(tensors, "model.embed_tokens.weight").name = "lm_head.weight";
  });
  CHECK(Transformer::load(dir.path()).digest() == digest);
  write_folder(dir, source, [](auto& tensors) {
    tensors.push_back({"lm_head.weight", find(tensors, "model.embed_tokens.weight").tensor + 1});
  });
  CHECK_THAT(load_error(dir.path()),
             Catch::Contains("lm_head.weight is not model.embed_tokens.weight"));
  // Buffers that old writers kept are no weights.
  write_folder(dir, source, [](auto& tensors) {
    tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", at::ones({4})});
  });
  CHECK(Transformer::load(dir.path()).digest() == digest);
}

TEST_CASE("weights that do not fit config.json are listed with found and wanted", "[core][cpu]") {
  const TempDir dir;
  const fs::path source = golden("models/untied_gqa");
  const std::string key = "model.layers.1.mlp.up_proj.weight";
  write_folder(dir, source, [&](auto& tensors) {
    find(tensors, "lm_head.weight").name = "head.weight";
    find(tensors, key).tensor = at::zeros({32, 40});
    find(tensors, "model.norm.weight").tensor = at::zeros({32}, at::kInt);
  });
  CHECK_THAT(
      load_error(dir.path()),
      Catch::Contains("the weights do not fit config.json") &&
          Catch::Contains("missing: lm_head.weight") &&
          Catch::Contains("unexpected: head.weight") &&
          Catch::Contains(key + " (model.safetensors) is [32, 40], config.json wants [40, 32]") &&
          Catch::Contains("model.norm.weight (model.safetensors) is I32"));
  write_folder(dir, source, [](auto& tensors) { tensors.resize(1); });
  CHECK_THAT(load_error(dir.path()), Catch::Contains("and 12 more"));

  fs::remove(dir / "model.safetensors");
  CHECK_THROWS_AS(Transformer::load(dir.path()), MissingInput);
  CHECK_THROWS_AS(Transformer::load(dir / "none"), MissingInput);
  CHECK_THAT(load_error(golden("models/classifier")), Catch::Contains("has no language head"));

  // A header whose tensor is cut off, and a score head of two labels.
  const std::string whole = read_file(source / "model.safetensors");
  write_file_atomic(dir / "model.safetensors", whole.substr(0, whole.size() / 2));
  CHECK_THAT(load_error(dir.path()), Catch::Contains("do not lie in the file's"));
  json config = json::parse(read_file(golden("models/classifier/config.json")));
  config["num_labels"] = 2;
  write_file_atomic(dir / "config.json", config.dump());
  CHECK_THROWS_WITH(ScalarModel::load(dir.path(), testing::stream(0)),
                    Catch::Contains("num_labels: 2, a scalar head has 1"));
}

}  // namespace praetor
