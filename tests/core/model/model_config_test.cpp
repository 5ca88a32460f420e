#include "core/model/model_config.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

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
                                 "mistral",
                                 "../families/mistral_window",
                                 "../families/qwen2_window",
                                 "../families/gpt2_odd",
                                 "../families/qwen3_biases",
                                 "../families/phi3_longrope",
                                 "../families/phi3_partial",
                                 "../families/gemma2_uncapped",
                                 "../families/gemma3"}) {
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
      {{{"architectures", {"GPTJForCausalLM"}}},
       "architectures: \"GPTJForCausalLM\" is not supported; known are LlamaForCausalLM"},
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
       "partial_rotary_factor: 0.5 is not supported for llama; 1.0 is"},
      {{{"architectures", {"MistralForCausalLM"}}, {"sliding_window", 0}},
       "sliding_window: 0 is not a whole number from 1"},
      {{{"architectures", {"MistralForCausalLM"}},
        {"sliding_window", 8},
        {"layer_types", {"full_attention"}}},
       "layer_types: \"full_attention\" is not supported for mistral with a sliding_window"},
      {{{"architectures", {"Qwen2ForCausalLM"}},
        {"use_sliding_window", true},
        {"layer_types", {"sliding_attention", "full_attention"}}},
       "layer_types: names 2 layers, num_hidden_layers is 1"},
      {{{"architectures", {"Qwen2ForCausalLM"}}, {"layer_types", {"sliding_attention"}}},
       "sliding_window: is missing, and layers of sliding_attention need it"},
      {{{"layer_types", {"sliding_attention"}}},
       "layer_types: \"sliding_attention\" is not supported for llama; full_attention is"},
      {{{"layer_types", {"chunked_attention"}}},
       "layer_types: \"chunked_attention\" is not supported; full_attention and"},
      {{{"attn_logit_softcapping", 50.0}},
       "attn_logit_softcapping: 50.0 is not supported for llama; null is"},
      {{{"num_local_experts", 8}}, "num_local_experts: 8 is not supported for llama; 0 is"},
      {{{"logit_scale", 0.0625}}, "logit_scale: 0.0625 is not supported for llama; 1.0 is"},
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

TEST_CASE("what another family's config.json says and we do not compute is refused",
          "[core][cpu]") {
  const TempDir dir;
  const std::tuple<std::string, json, std::string> patches[] = {
      {"gpt2",
       {{"activation_function", "gelu"}},
       "activation_function: \"gelu\" is not supported; gelu_new is"},
      {"gpt2",
       {{"scale_attn_by_inverse_layer_idx", true}},
       "scale_attn_by_inverse_layer_idx: true is not supported for gpt2; false is"},
      {"gpt2", {{"n_head", 5}}, "n_head: 5 does not divide n_embd 24"},
      {"gpt2", {{"n_embd", nullptr}}, "n_embd: is missing"},
      {"gemma2",
       {{"hidden_activation", "relu"}},
       "hidden_activation: \"relu\" is not supported; gelu_pytorch_tanh is"},
      {"gemma2", {{"sliding_window", nullptr}}, "sliding_window: is missing, and layers of"},
      {"gemma3",
       {{"attn_logit_softcapping", 50.0}},
       "attn_logit_softcapping: 50.0 is not supported for gemma3_text; null is"},
      {"gemma3",
       {{"use_bidirectional_attention", true}},
       "use_bidirectional_attention: true is not supported for gemma3_text; false is"},
      {"gemma3",
       {{"rope_parameters", {{"rope_type", "default"}}}},
       "rope_parameters.full_attention: is missing"},
      {"phi3_longrope",
       {{"rope_scaling", {{"type", "longrope"}, {"short_factor", {1}}, {"long_factor", {1}}}}},
       "rope_scaling.short_factor: is not a list of 3 numbers"},
      {"phi3_longrope",
       {{"rope_scaling",
         {{"type", "longrope"}, {"short_factor", {1, 1, 1}}, {"long_factor", {1, 0, 1}}}}},
       "rope_scaling.long_factor: 0 is not a number above 0"},
      {"phi3_longrope",
       {{"rope_scaling", {{"type", "mrope"}}}},
       "rope_scaling.type: \"mrope\" is not one of default, linear, dynamic, llama3, yarn, "
       "longrope"},
      {"phi3_longrope",
       {{"rope_parameters", {{"partial_rotary_factor", 0.6}}}},
       "rope_parameters.partial_rotary_factor: 0.6 of head_dim 6 is not an even number"},
  };
  for (const auto& [name, patch, message] : patches) {
    json config = json::parse(read_file(golden("families/" + name + "/config.json")));
    config.update(patch);
    CHECK_THAT(error_of(dir, config), Catch::Contains("config.json: ") && Catch::Contains(message));
  }
}

TEST_CASE("each family says which layers have a window", "[core][cpu]") {
  const auto windows = [](const std::string& name) {
    const ModelConfig config = ModelConfig::load(golden("families/" + name));
    std::vector<int64_t> out;
    for (int64_t i = 0; i < config.num_layers; ++i) out.push_back(config.window_of(i));
    return out;
  };
  using Windows = std::vector<int64_t>;
  CHECK(windows("mistral_window") == Windows{7, 7});
  CHECK(windows("qwen2_tied") == Windows{0, 0});
  CHECK(windows("qwen2_window") == Windows{0, 11});
  CHECK(windows("gemma2") == Windows{9, 0});
  CHECK(windows("gemma2_uncapped") == Windows{0, 9});
  CHECK(windows("gemma3") == Windows{9, 0, 9});
  CHECK(windows("phi3") == Windows{13, 13});

  // Older folders do not list the layers.
  const TempDir dir;
  json config = json::parse(read_file(golden("families/gemma3/config.json")));
  config.erase("layer_types");
  config["num_hidden_layers"] = 6;
  CHECK(load(dir, config).windowed_layers ==
        std::vector<bool>{true, true, true, true, true, false});
  config["sliding_window_pattern"] = 3;
  CHECK(load(dir, config).windowed_layers ==
        std::vector<bool>{true, true, false, true, true, false});
  config["rope_parameters"] = nullptr;
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  CHECK(load(dir, config).rope.theta == 1e6);
  CHECK(load(dir, config).rope.factor == 8);
  CHECK(load(dir, config).local_rope->theta == 1e4);
  CHECK(load(dir, config).local_rope->scaling == "default");
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
  config.rope.scaling = "mrope";
  CHECK_THROWS_AS(inverse_frequencies(config, config.rope), InvalidArgument);
  config.rope.scaling = "longrope";
  CHECK_THROWS_WITH(inverse_frequencies(config, config.rope),
                    Catch::Contains("longrope has 0 factors, 3 pairs"));
  config.windowed_layers = {true};
  CHECK_THROWS_WITH(parameter_layout(config), Catch::Contains("windowed_layers names 1 layers"));
  config.architecture = "mamba";
  CHECK_THROWS_WITH(parameter_layout(config),
                    Catch::Contains("\"mamba\" is not known; known are llama, mistral"));
}

TEST_CASE("rotary frequencies follow the formulas", "[core][cpu]") {
  // theta^(-2i/d) with d = 4: 1 and 1/100.
  ModelConfig config = testing::tiny_config();
  config.head_dim = 4;
  CHECK(inverse_frequencies(config, config.rope)[0] == 1.0f);
  CHECK(inverse_frequencies(config, config.rope)[1] == Approx(0.01));
  config.rope.scaling = "linear";
  config.rope.factor = 4;
  CHECK(inverse_frequencies(config, config.rope)[1] == Approx(0.0025));
  // Llama 3.1 with context 64: wavelengths 2 pi (below 64/4 = 16: kept) and 200 pi (above 64/1:
  // divided).
  config.rope.scaling = "llama3";
  config.rope.original_max_positions = 64;
  CHECK(inverse_frequencies(config, config.rope)[0] == 1.0f);
  CHECK(inverse_frequencies(config, config.rope)[1] == Approx(0.0025));
  // LongRoPE divides each frequency by its factor: by the short ones up to 16 tokens.
  config.rope = {.scaling = "longrope",
                 .original_max_positions = 16,
                 .short_factor = {1, 2},
                 .long_factor = {4, 5}};
  CHECK(inverse_frequencies(config, config.rope)[1] == Approx(0.005));
  CHECK(inverse_frequencies(config, config.rope, true)[0] == Approx(0.25));
  const RopeTables both = rope_tables(config, config.rope, at::kDouble);
  CHECK(both.cos[both.row(3, 16)][1].item<double>() == Approx(std::cos(3 * 0.005)));
  CHECK(both.cos[both.row(3, 17)][1].item<double>() == Approx(std::cos(3 * 0.002)));
  CHECK(config.switch_length() == 16);
  config.rope = {};
  CHECK(config.switch_length() == 0);
  const RopeTables tables = rope_tables(config, config.rope, at::kDouble);
  CHECK(tables.cos.size(0) == config.max_positions);
  CHECK(tables.cos[0][1].item<double>() == 1.0);
  CHECK(tables.sin[3][0].item<double>() == Approx(std::sin(3.0)));
  CHECK(tables.cos[50][1].item<double>() == Approx(std::cos(0.5)));
}

}  // namespace praetor
