#include "core/model/model_config.h"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/model/families.h"
#include "core/model/rope.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

using nlohmann::json;
using testing::golden;
using testing::TempDir;

namespace {

json good() {
  return json::parse(read_file(golden("models/tied_mha/config.json")));
}

ModelConfig load(const TempDir& dir, const json& config) {
  write_file_atomic(dir / "config.json", config.dump());
  return ModelConfig::load(dir.path());
}

std::string error_of(const TempDir& dir, const json& config) {
  try {
    load(dir, config);
  } catch (const DataError& failure) {
    return failure.what();
  }
  return "no DataError";
}

}  // namespace

TEST_CASE("config.json gives the model's sizes, and generation_config.json overrules the tokens",
          "[core][cpu]") {
  const ModelConfig config = ModelConfig::load(golden("models/mqa_wide_heads"));
  CHECK(config.architecture == "llama");
  CHECK(config.vocab_size == 48);
  CHECK(config.hidden_size == 32);
  CHECK(config.num_kv_heads == 1);
  CHECK(config.head_dim == 12);
  CHECK(config.norm_eps == 1e-5);
  CHECK_FALSE(config.tie_embeddings);
  CHECK(config.eos_tokens == std::vector<int64_t>{2});
  // Embedding and head 2 * 48 * 32; q, o 2 * 48 * 32; k, v 2 * 12 * 32; mlp 3 * 40 * 32; three
  // norms of 32.
  CHECK(config.parameter_count() == 3072 + 3072 + 768 + 3840 + 96);

  const TempDir dir;
  write_file_atomic(dir / "generation_config.json",
                    R"({"eos_token_id": [7, 8], "bos_token_id": 5})");
  const ModelConfig overruled = load(dir, good());
  CHECK(overruled.eos_tokens == std::vector<int64_t>{7, 8});
  CHECK(overruled.bos_token == 5);
  CHECK(overruled.pad_token == 0);
}

TEST_CASE("old and new keys mean the same", "[core][cpu]") {
  for (const std::string name : {"untied_gqa", "rope_linear", "rope_llama3", "rope_yarn"}) {
    INFO(name);
    CHECK(ModelConfig::load(golden("models/" + name)).to_json() ==
          ModelConfig::load(golden("models/" + name + "_old_keys")).to_json());
  }
}

TEST_CASE("what to_json writes is read back unchanged", "[core][cpu]") {
  const TempDir dir;
  for (const std::string name : {"tied_mha",
                                 "rope_linear",
                                 "rope_dynamic",
                                 "rope_llama3",
                                 "rope_yarn_mscale",
                                 "biases",
                                 "qwen2",
                                 "mistral"}) {
    INFO(name);
    const std::string text = ModelConfig::load(golden("models/" + name)).to_json();
    write_file_atomic(dir / "config.json", text);
    CHECK(ModelConfig::load(dir.path()).to_json() == text);
  }
  ModelConfig config = testing::tiny_config();
  config.num_labels = 3;
  write_file_atomic(dir / "config.json", config.to_json("sequence_classification"));
  CHECK(ModelConfig::load(dir.path()).num_labels == 3);
  CHECK_THROWS_AS(config.to_json("token_classification"), InvalidArgument);
}

TEST_CASE("a family decides what an absent key means", "[core][cpu]") {
  const TempDir dir;
  json config = good();
  config.erase("num_key_value_heads");
  config.erase("head_dim");
  config.erase("rms_norm_eps");
  const ModelConfig plain = load(dir, config);
  CHECK(plain.num_kv_heads == 4);
  CHECK(plain.head_dim == 8);
  CHECK(plain.norm_eps == 1e-6);
  config.erase("architectures");
  CHECK(load(dir, config).architecture == "llama");
  config["architectures"] = {"Qwen2ForCausalLM"};
  config["num_key_value_heads"] = nullptr;
  CHECK(load(dir, config).attention_bias);
  CHECK_FALSE(load(dir, config).output_bias);
  config["sliding_window"] = 8;  // not used unless use_sliding_window says so
  CHECK_NOTHROW(load(dir, config));
}

TEST_CASE("an unusable config.json is refused with the key and what would be right",
          "[core][cpu]") {
  const TempDir dir;
  CHECK_THROWS_AS(ModelConfig::load(dir.path()), MissingInput);
  const std::pair<json, std::string> patches[] = {
      {{{"architectures", {"GPT2LMHeadModel"}}},
       "architectures: \"GPT2LMHeadModel\" is not supported; known are LlamaForCausalLM"},
      {{{"architectures", 3}}, "architectures: is not a list"},
      {{{"architectures", nullptr}, {"model_type", "mamba"}}, "model_type \"mamba\" is not known"},
      {{{"hidden_size", -32}}, "hidden_size: -32 is not a whole number from 1"},
      {{{"hidden_size", 32.5}}, "hidden_size: 32.5 is not a whole number"},
      {{{"hidden_size", "32"}}, "hidden_size: \"32\" is not a whole number"},
      {{{"hidden_size", nullptr}}, "hidden_size: is missing"},
      {{{"vocab_size", 18446744073709551615u}}, "vocab_size: 18446744073709551615 is not"},
      {{{"num_hidden_layers", 0}}, "num_hidden_layers: 0 is not"},
      {{{"num_key_value_heads", 3}},
       "num_key_value_heads: 3 does not divide num_attention_heads 4"},
      {{{"num_attention_heads", 5}, {"num_key_value_heads", 5}, {"head_dim", nullptr}},
       "num_attention_heads: 5 does not divide hidden_size 32"},
      {{{"head_dim", 7}}, "head_dim: 7 is odd"},
      {{{"max_position_embeddings", 1000000000}}, "max_position_embeddings: 1000000000 is not"},
      {{{"rms_norm_eps", 0}}, "rms_norm_eps: 0 is not a number above 0"},
      {{{"tie_word_embeddings", "yes"}}, "tie_word_embeddings: \"yes\" is neither true nor false"},
      {{{"hidden_act", "gelu"}}, "hidden_act: \"gelu\" is not supported; silu is"},
      {{{"quantization_config", {{"bits", 4}}}}, "quantization_config: quantized weights"},
      {{{"eos_token_id", "</s>"}}, "eos_token_id: \"</s>\" is not a token id"},
      {{{"rope_parameters", {{"rope_type", "longrope"}}}},
       "rope_parameters.rope_type: \"longrope\" is not one of default, linear"},
      {{{"rope_scaling", {{"type", "linear"}}}}, "rope_scaling.factor: is missing"},
      {{{"rope_scaling", {{"type", "linear"}, {"factor", -1}}}},
       "rope_scaling.factor: -1 is not a number above 0"},
      {{{"rope_scaling", "linear"}}, "rope_scaling: \"linear\" is not an object"},
      {{{"rope_parameters", {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}}},
       "partial_rotary_factor: only 1.0"},
      {{{"architectures", {"MistralForCausalLM"}}, {"sliding_window", 32}},
       "sliding_window: 32 is below max_position_embeddings 64"},
      {{{"architectures", {"MistralForCausalLM"}}, {"max_position_embeddings", 8192}},
       "sliding_window: 4096 is below"},
      {{{"architectures", {"Qwen2ForCausalLM"}},
        {"use_sliding_window", true},
        {"sliding_window", 32}},
       "sliding_window: 32 is below"},
      {{{"layer_types", {"sliding_attention"}}},
       "layer_types: \"sliding_attention\" is not supported"},
  };
  for (const auto& [patch, message] : patches) {
    json config = good();
    config.update(patch);
    CHECK_THAT(error_of(dir, config), Catch::Contains("config.json: ") && Catch::Contains(message));
  }
  CHECK_THAT(error_of(dir, json::array()), Catch::Contains("must be a JSON object"));
  write_file_atomic(dir / "config.json", "{\"vocab_size\": 1,");
  CHECK_THROWS_WITH(ModelConfig::load(dir.path()), Catch::Contains("config.json: not valid JSON"));
  write_file_atomic(dir / "config.json", R"({"vocab_size": 1, "vocab_size": 2})");
  CHECK_THROWS_WITH(ModelConfig::load(dir.path()),
                    Catch::Contains("key \"vocab_size\" appears twice"));
}

TEST_CASE("a model of impossible sizes is refused by field", "[core][cpu]") {
  const auto broken = [](int64_t ModelConfig::*field, int64_t value) {
    ModelConfig config = testing::tiny_config();
    config.*field = value;
    parameter_layout(config);
  };
  CHECK_THROWS_WITH(broken(&ModelConfig::num_kv_heads, 3),
                    Catch::Contains("num_heads 4 is not a multiple of num_kv_heads 3"));
  CHECK_THROWS_WITH(broken(&ModelConfig::head_dim, 5), Catch::Contains("head_dim 5 is odd"));
  CHECK_THROWS_WITH(broken(&ModelConfig::vocab_size, 0),
                    Catch::Contains("vocab_size 0 is outside [1,"));
  ModelConfig config = testing::tiny_config();
  config.rope.scaling = "longrope";
  CHECK_THROWS_AS(inverse_frequencies(config), InvalidArgument);
}

TEST_CASE("rotary frequencies follow the formulas", "[core][cpu]") {
  // theta^(-2i/d) with d = 4: 1 and 1/100.
  ModelConfig config = testing::tiny_config();
  config.head_dim = 4;
  CHECK(inverse_frequencies(config)[0] == 1.0f);
  CHECK(inverse_frequencies(config)[1] == Approx(0.01));
  config.rope.scaling = "linear";
  config.rope.factor = 4;
  CHECK(inverse_frequencies(config)[1] == Approx(0.0025));
  // Llama 3.1 with context 64: wavelengths 2 pi (below 64/4 = 16: kept) and 200 pi (above 64/1:
  // divided).
  config.rope.scaling = "llama3";
  config.rope.original_max_positions = 64;
  CHECK(inverse_frequencies(config)[0] == 1.0f);
  CHECK(inverse_frequencies(config)[1] == Approx(0.0025));
  config.rope = {};
  const RopeTables tables = rope_tables(config, at::kDouble);
  CHECK(tables.cos.size(0) == config.max_positions);
  CHECK(tables.cos[0][1].item<double>() == 1.0);
  CHECK(tables.sin[3][0].item<double>() == Approx(std::sin(3.0)));
  CHECK(tables.cos[50][1].item<double>() == Approx(std::cos(0.5)));
}

}  // namespace praetor
