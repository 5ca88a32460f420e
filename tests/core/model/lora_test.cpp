#include "core/model/lora.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/threads.h"
#include "core/model/peft_folder.h"
#include "core/model/safetensors.h"
#include "core/model/sequence_logprobs.h"
#include "core/model/transformer.h"
#include "tests/support/catch.h"
#include "tests/support/live_bytes.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

/// Adapters of tests/golden/lora, written by peft, against what peft computes with them.
namespace praetor {

using nlohmann::json;
using testing::golden;
using testing::TempDir;
using Sequences = std::vector<std::vector<int64_t>>;

namespace {

const std::string kNames[] = {"llama3", "qwen2", "gpt2", "phi3", "gemma3"};

json read_golden(const std::string& name) {
  return json::parse(read_file(golden("lora/" + name)));
}

/// Largest distance of the sequences' log-probabilities from those of a golden file.
double distance(const json& wanted, const Transformer& model) {
  const auto sequences = wanted["sequences"].get<Sequences>();
  const auto found = sequence_logprobs(model, sequences);
  double out = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const auto expected = wanted["logprobs"][s].get<std::vector<float>>();
    REQUIRE(expected.size() == found[s].size());
    for (size_t i = 0; i < expected.size(); ++i)
      out = std::max(out, std::abs(static_cast<double>(expected[i] - found[s][i])));
  }
  return out;
}

void set_requires_grad(const LoraAdapter& adapter) {
  for (const NamedTensor& p : adapter.parameters()) p.tensor.set_requires_grad(true);
}

/// An adapter whose B is not 0.
LoraAdapter busy_adapter(const ModelConfig& config,
                         const LoraConfig& lora,
                         at::ScalarType dtype = at::kFloat) {
  LoraAdapter out = LoraAdapter::make(config, lora, {.job_seed = 3}, dtype);
  RandomStream stream = testing::stream(7);
  for (const LoraAdapter::Module& module : out.modules()) {
    at::Tensor values = at::empty(module.b.sizes(), at::dtype(at::kFloat));
    for (int64_t i = 0; i < values.numel(); ++i)
      values.mutable_data_ptr<float>()[i] = static_cast<float>(0.3 * stream.normal());
    module.b.copy_(values);
  }
  return out;
}

LoraConfig small(std::vector<std::string> targets = {kAllLinear}) {
  return {.rank = 3, .alpha = 5, .targets = std::move(targets)};
}

}  // namespace

TEST_CASE("with an adapter of peft's the log-probabilities are peft's, beside and merged",
          "[core][cpu]") {
  for (const std::string& name : kNames) {
    INFO(name);
    const json wanted = read_golden(name + ".json");
    const Transformer base =
        Transformer::load(golden("families/" + wanted["base"].get<std::string>()));
    const std::string before = base.digest();
    const LoraAdapter adapter = load_peft(golden("lora/" + name), base.config());
    CHECK(distance(wanted, base) > 0.1);
    {
      const AdapterScope scope(base, &adapter);
      CHECK(distance(wanted, base) < 1e-5);
      const AdapterScope without(base, nullptr);
      CHECK(distance(wanted, base) > 0.1);
    }
    CHECK(distance(wanted, base) > 0.1);
    const Transformer merged = adapter.merged(base);
    CHECK(distance(wanted, merged) < 1e-5);
    CHECK(base.digest() == before);
  }
}

TEST_CASE("gradients of A and B are peft's, and the base has none", "[core][cpu]") {
  for (const std::string& name : kNames) {
    INFO(name);
    const json wanted = read_golden(name + ".json");
    const Transformer base =
        Transformer::load(golden("families/" + wanted["base"].get<std::string>()));
    const LoraAdapter adapter = load_peft(golden("lora/" + name), base.config());
    set_requires_grad(adapter);
    const AdapterScope scope(base, &adapter);
    testing::mean_nll(base, wanted["sequences"].get<Sequences>()).backward();
    const SafetensorsFile gradients(golden("lora/" + name + ".gradients.safetensors"));
    CHECK(gradients.names().size() == adapter.parameters().size());
    for (const NamedTensor& p : adapter.parameters()) {
      INFO(p.name);
      REQUIRE(p.tensor.grad().defined());
      const at::Tensor expected = gradients.tensor("base_model.model." + p.name);
      CHECK(expected.norm().item<double>() > 1e-3);
      CHECK((p.tensor.grad() - expected).abs().max().item<double>() < 1e-5);
    }
    for (const NamedTensor& p : base.parameters()) CHECK_FALSE(p.tensor.grad().defined());
  }
}

TEST_CASE("gradients of A and B agree with finite differences in float64, dropout and all",
          "[core][cpu]") {
  for (const std::string name : {"llama3", "gpt2", "phi3"}) {
    INFO(name);
    const Transformer base = Transformer::load(golden("families/" + name), at::kDouble);
    LoraConfig lora = small();
    lora.dropout = 0.3;
    LoraAdapter adapter = busy_adapter(base.config(), lora, at::kDouble);
    adapter.set_dropout_key(17);
    set_requires_grad(adapter);
    const AdapterScope scope(base, &adapter);
    const Sequences sequences = {testing::random_tokens(9, 64, 1),
                                 testing::random_tokens(3, 64, 2)};
    testing::mean_nll(base, sequences).backward();
    testing::check_middle_gradients(adapter.parameters(),
                                    [&] { return testing::mean_nll(base, sequences); });
  }
}

TEST_CASE("a new adapter adds nothing, and is drawn alike from the same key", "[core][cpu]") {
  const Transformer base = testing::tiny_model();
  const LoraAdapter adapter = LoraAdapter::make(base.config(), small(), {.job_seed = 3});
  const LoraAdapter again = LoraAdapter::make(base.config(), small({"v_proj"}), {.job_seed = 3});
  const LoraAdapter other = LoraAdapter::make(base.config(), small(), {.job_seed = 4});
  REQUIRE(adapter.modules().size() == 14);
  REQUIRE(again.modules().size() == 2);
  CHECK(again.modules()[0].name == adapter.modules()[2].name);
  // A layer's numbers do not depend on which others have an adapter.
  CHECK(at::equal(again.modules()[0].a, adapter.modules()[2].a));
  CHECK_FALSE(at::equal(other.modules()[0].a, adapter.modules()[0].a));
  for (const LoraAdapter::Module& module : adapter.modules()) {
    const double bound = 1 / std::sqrt(static_cast<double>(module.a.size(1)));
    CHECK(module.a.abs().max().item<double>() <= bound);
    CHECK(module.a.abs().mean().item<double>() == Approx(bound / 2).epsilon(0.25));
    CHECK_FALSE(module.b.any().item<bool>());
  }
  const PackedTokens batch = pack({testing::random_tokens(12, 40, 5)});
  const at::Tensor wanted = base.hidden(batch);
  const AdapterScope scope(base, &adapter);
  CHECK(at::equal(base.hidden(batch), wanted));
}

TEST_CASE("merged weights share what no target changes, and have the same bits on any threads",
          "[core][cpu]") {
  const Transformer base = testing::tiny_model();
  LoraAdapter adapter = busy_adapter(base.config(), small({"q_proj", "mlp.down_proj"}));
  Transformer merged = adapter.merged(base);
  int64_t changed = 0, own = 0;
  for (size_t i = 0; i < base.parameters().size(); ++i) {
    const at::Tensor &from = base.parameters()[i].tensor, &to = merged.parameters()[i].tensor;
    if (to.is_same(from)) continue;
    CHECK_FALSE(at::equal(from, to));
    changed += to.numel();
    ++own;
  }
  CHECK(own == 4);
  const LoraSize size = lora_size(base.config(), adapter.config());
  CHECK(size.changed == changed);
  int64_t parameters = 0;
  for (const NamedTensor& p : adapter.parameters()) parameters += p.tensor.numel();
  CHECK(size.parameters == parameters);

  const std::string digest = merged.digest();
  const int before = threads();
  set_threads(before == 1 ? 2 : 1);
  CHECK(adapter.merged(base).digest() == digest);
  set_threads(before);
  // Of the base each time: merging again and again drifts nowhere.
  const at::Tensor b = adapter.modules()[0].b, kept = b.clone();
  b.add_(1);
  adapter.merge_into(merged, base);
  CHECK(merged.digest() != digest);
  b.copy_(kept);
  adapter.merge_into(merged, base);
  CHECK(merged.digest() == digest);
}

TEST_CASE("what dropout leaves out depends on key and tokens, not on neighbours", "[core][cpu]") {
  const Transformer base = testing::tiny_model();
  LoraConfig lora = small();
  lora.dropout = 0.5;
  LoraAdapter adapter = busy_adapter(base.config(), lora);
  adapter.set_dropout_key(1);
  set_requires_grad(adapter);
  const AdapterScope scope(base, &adapter);
  const auto prompt = testing::random_tokens(6, 40, 1);
  std::vector<int64_t> first = prompt, second = prompt;
  for (const int64_t token : {3, 4, 5}) first.push_back(token);
  for (const int64_t token : {9, 4}) second.push_back(token);
  const at::Tensor alone = base.hidden(pack({second}));
  const at::Tensor both = base.hidden(pack({first, second}));
  CHECK(at::equal(both.slice(0, 9), alone));
  const SharedPack shared = pack_shared({std::span(first), std::span(second)});
  REQUIRE_FALSE(shared.packed.prefix.empty());
  const at::Tensor rows = base.hidden(shared.packed);
  for (int64_t t = 0; t < 8; ++t) CHECK(at::equal(rows[shared.row(1, t)], alone[t]));

  adapter.set_dropout_key(2);
  CHECK_FALSE(at::equal(base.hidden(pack({second})), alone));
  adapter.set_dropout_key(1);
  CHECK(at::equal(base.hidden(pack({second})), alone));
  const at::NoGradGuard no_grad;
  const at::Tensor still = base.hidden(pack({second}));
  CHECK_FALSE(at::equal(still, alone));
  CHECK(at::equal(base.hidden(pack({second})), still));
}

TEST_CASE("dropout leaves out its share of the inputs and keeps their mean", "[core][cpu]") {
  // One layer of ones, A and B ones: the term is the sum of what is left of the inputs.
  const Transformer base = testing::tiny_model();
  LoraConfig lora{.rank = 1, .alpha = 1, .dropout = 0.25, .targets = {"down_proj"}};
  LoraAdapter adapter = LoraAdapter::make(base.config(), lora, {});
  for (const NamedTensor& p : adapter.parameters()) p.tensor.fill_(1);
  const LoraTerm* const term = adapter.find("model.layers.0.mlp.down_proj");
  REQUIRE(term);
  double sum = 0;
  for (uint64_t key = 0; key < 200; ++key) {
    adapter.set_dropout_key(key);
    adapter.begin_forward(pack({{1, 2, 3, 4, 5}}));
    const at::Tensor out = term->add_to(at::zeros({5, 24}), at::ones({5, 36}));
    sum += out.select(1, 0).sum().item<double>();
  }
  // 36000 inputs, each 4/3 with probability 3/4: deviation of the mean 0.003.
  CHECK(sum / 36000 == Approx(1).margin(0.012));
}

TEST_CASE("a backward leaves out what its forward did, whatever has come between", "[core][cpu]") {
  const Transformer base = testing::tiny_model();
  LoraConfig lora = small();
  lora.dropout = 0.5;
  LoraAdapter adapter = busy_adapter(base.config(), lora);
  set_requires_grad(adapter);
  const AdapterScope scope(base, &adapter);
  const PackedTokens batch = pack({testing::random_tokens(12, 40, 5)});
  const auto gradients = [&](bool between) {
    adapter.set_dropout_key(1);
    const at::Tensor loss = base.hidden(batch).square().sum();
    if (between) {
      adapter.set_dropout_key(2);
      base.hidden(pack({testing::random_tokens(7, 40, 6)}));
    }
    loss.backward();
    std::vector<at::Tensor> out;
    for (const NamedTensor& p : adapter.parameters()) {
      out.push_back(p.tensor.grad().clone());
      p.tensor.mutable_grad() = at::Tensor();
    }
    return out;
  };
  const auto wanted = gradients(false), found = gradients(true);
  for (size_t i = 0; i < wanted.size(); ++i) CHECK(at::equal(found[i], wanted[i]));
}

TEST_CASE("of a forward an adapter keeps the rows as they are and its low-rank values alone",
          "[core][cpu]") {
  const ModelConfig config = testing::tiny_config();
  constexpr int64_t kRows = 500;
  for (const double dropout : {0.0, 0.5}) {
    LoraConfig lora = small();
    lora.dropout = dropout;
    LoraAdapter adapter = busy_adapter(config, lora);
    set_requires_grad(adapter);
    adapter.set_dropout_key(7);
    adapter.begin_forward(pack({testing::random_tokens(kRows, 40, 5)}));
    const LoraTerm* const term = adapter.find("model.layers.0.mlp.down_proj");
    REQUIRE(term);
    const at::Tensor x =
        at::arange(kRows * 36, at::kFloat).view({kRows, 36}).sin().to(at::kBFloat16);
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor before = at::arange(kRows * 24, at::kFloat).view({kRows, 24}).cos();
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      INFO("dropout " << dropout << ", " << c10::toString(type));
      const at::Tensor in = type == at::kFloat ? wide : x;
      const at::Tensor out = before.to(type).clone();
      testing::LiveBytes bytes;
      const at::Tensor sum = term->add_to(out, in);
      CHECK(sum.requires_grad());
      CHECK(sum.data_ptr() == out.data_ptr());
      CHECK(bytes.now() == 4 * 3 * kRows);
      // In float32 on what is given, and rounded once.
      const at::NoGradGuard no_grad;
      const at::Tensor term_alone = term->add_to(at::zeros({kRows, 24}), wide);
      CHECK(at::equal(sum, at::add(before.to(type).to(at::kFloat), term_alone).to(type)));
    }
  }
}

TEST_CASE("targets go by the names of the family's folders", "[core][cpu]") {
  const ModelConfig llama = testing::tiny_config();
  const ModelConfig gpt2 = ModelConfig::load(golden("families/gpt2"));
  const ModelConfig phi3 = ModelConfig::load(golden("families/phi3"));
  using Names = std::vector<std::string>;
  CHECK(lora_target_names(gpt2) == Names{"c_attn", "c_proj", "c_fc"});
  CHECK(lora_target_names(phi3) == Names{"qkv_proj", "o_proj", "gate_up_proj", "down_proj"});
  CHECK_FALSE(wrong_lora_target(llama, "all_linear"));
  CHECK_FALSE(wrong_lora_target(gpt2, "mlp.c_proj"));
  CHECK(wrong_lora_target(llama, "q_porj") ==
        "no linear layer of llama's folders is named \"q_porj\", did you mean \"q_proj\"?");
  CHECK(wrong_lora_target(gpt2, "q_proj") ==
        "no linear layer of gpt2's folders is named \"q_proj\"; they hold it as \"c_attn\"");
  CHECK(wrong_lora_target(phi3, "up_proj") ==
        "no linear layer of phi3's folders is named \"up_proj\"; they hold it as \"gate_up_proj\"");
  CHECK(*wrong_lora_target(llama, "attention") ==
        "no linear layer of llama's folders is named \"attention\"; known are q_proj, k_proj, "
        "v_proj, "
        "o_proj, gate_proj, up_proj, down_proj, all_linear");
  CHECK(wrong_lora_target(llama, "proj"));     // the end of a name, but no name
  CHECK(wrong_lora_target(llama, "lm_head"));  // no layer that adapts
  CHECK(LoraAdapter::make(gpt2, small({"mlp.c_proj"}), {}).modules().size() == 2);
  CHECK(LoraAdapter::make(gpt2, small({"c_proj"}), {}).modules().size() == 4);
  CHECK_THROWS_WITH(LoraAdapter::make(gpt2, small({"q_proj"}), {}), Catch::Contains("c_attn"));
}

TEST_CASE("adapters out of range are refused", "[core][cpu]") {
  const ModelConfig config = testing::tiny_config();
  const auto refused = [&](LoraConfig lora, const std::string& why) {
    CHECK_THROWS_WITH(LoraAdapter::make(config, lora, {}), Catch::Contains(why));
  };
  refused({.rank = 0}, "rank 0 is below 1");
  refused({.alpha = 0}, "alpha 0 is not above 0");
  refused({.dropout = 1}, "dropout 1 is outside [0, 1)");
  refused({.targets = {}}, "no targets");
  refused({.rank = 5000},
          "lora: rank: 5000 is above 24, the smaller side of model.layers.0.self_attn.q_proj "
          "[24, 24]; no layer of these targets can use more");
  refused({.rank = 13, .targets = {"k_proj"}}, "13 is above 12");
  // As peft does: more than some of the layers can use.
  CHECK(LoraAdapter::make(config, {.rank = 24, .targets = {"k_proj", "q_proj"}}, {})
            .modules()
            .size() == 4);
  CHECK_THROWS_WITH(LoraAdapter(config, small(), {{"model.layers.9.mlp.up_proj", {}, {}}}),
                    Catch::Contains("no layer model.layers.9.mlp.up_proj"));
  CHECK_THROWS_WITH(
      LoraAdapter(config,
                  small(),
                  {{"model.layers.0.mlp.up_proj", at::zeros({3, 24}), at::zeros({24, 3})}}),
      Catch::Contains("are wanted"));
  const Transformer base = testing::tiny_model();
  const LoraAdapter adapter = LoraAdapter::make(config, small(), {});
  const AdapterScope scope(base, &adapter);
  KvCache cache = base.make_cache(1, 4);
  const std::vector<int32_t> table = {0};
  CachedRows rows{.tokens = {1}, .positions = {0}, .sequence = {0}, .tables = {&table}};
  CHECK_THROWS_WITH(base.hidden_cached(rows, cache), Catch::Contains("merged weights"));
}

TEST_CASE("a folder of peft's comes back as it was", "[core][cpu]") {
  for (const std::string& name : kNames) {
    INFO(name);
    const ModelConfig config = ModelConfig::load(
        golden("families/" + read_golden(name + ".json")["base"].get<std::string>()));
    const LoraAdapter adapter = load_peft(golden("lora/" + name), config);
    const TempDir dir;
    save_peft(adapter, config, {.base = "base"}, dir.path());
    CHECK(read_file(dir / "adapter_model.safetensors") ==
          read_file(golden("lora/" + name + "/adapter_model.safetensors")));
    const json ours = json::parse(read_file(dir / "adapter_config.json")),
               theirs = read_golden(name + "/adapter_config.json");
    for (const char* key :
         {"peft_type", "task_type", "r", "lora_alpha", "use_rslora", "fan_in_fan_out", "bias"})
      CHECK(ours.at(key) == theirs.at(key));
    auto mine = ours.at("target_modules").get<std::vector<std::string>>();
    std::ranges::sort(mine);
    CHECK(json(mine) == theirs.at("target_modules"));
  }
}

TEST_CASE("a folder of peft's that asks for more is refused by key or tensor", "[core][cpu]") {
  const ModelConfig llama = ModelConfig::load(golden("families/llama3"));
  const json config = read_golden("llama3/adapter_config.json");
  const auto refused = [&](const json& changes, const std::string& why) {
    const TempDir dir;
    json changed = config;
    changed.update(changes);
    write_file_atomic(dir / "adapter_config.json", changed.dump());
    write_file_atomic(dir / "adapter_model.safetensors",
                      read_file(golden("lora/llama3/adapter_model.safetensors")));
    CHECK_THROWS_WITH(load_peft(dir.path(), llama), Catch::Contains(why));
  };
  refused({{"peft_type", "IA3"}},
          "adapter_config.json: peft_type: \"IA3\": only \"LORA\" is known");
  refused({{"use_dora", true}}, "use_dora: true: only plain LoRA is computed here");
  refused({{"modules_to_save", {"lm_head"}}}, "modules_to_save: [\"lm_head\"]");
  refused({{"rank_pattern", {{"q_proj", 8}}}}, "rank_pattern");
  refused({{"bias", "all"}}, "bias: \"all\": only \"none\"");
  refused({{"r", 0}}, "r: 0 is not a whole number");
  refused({{"lora_dropout", 1}}, "lora_dropout: 1 is not a number in [0, 1)");
  refused({{"r", 2}}, "down_proj: A is [3, 36] and B [24, 3], but [2, 36] and [24, 2]");
  CHECK_THROWS_WITH(load_peft(golden("lora/gpt2"), llama),
                    Catch::Contains("no layer transformer.h.0"));
  CHECK_THROWS_AS(load_peft(golden("families/llama3"), llama), MissingInput);

  const TempDir dir;
  write_file_atomic(dir / "adapter_config.json", config.dump());
  const auto with = [&](const std::string& name) {
    const std::vector<NamedTensor> tensors = {{name, at::zeros({3, 24})}};
    write_safetensors(dir / "adapter_model.safetensors", tensors);
  };
  with("base_model.model.score.weight");
  CHECK_THROWS_WITH(load_peft(dir.path(), llama), Catch::Contains("neither A nor B"));
  with("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
  CHECK_THROWS_WITH(load_peft(dir.path(), llama), Catch::Contains("A alone"));
}

TEST_CASE("peft computes with our folders what we do", "[core][cpu]") {
  // lora/exported/NAME was written by save_peft (the hidden case below), lora/exported/NAME.json by
  // make_lora.py --exported.
  for (const std::string name : {"llama", "gpt2", "phi3", "gemma2"}) {
    INFO(name);
    const Transformer base = Transformer::load(golden("exported/" + name));
    const LoraAdapter adapter = load_peft(golden("lora/exported/" + name), base.config());
    const AdapterScope scope(base, &adapter);
    CHECK(distance(read_golden("exported/" + name + ".json"), base) < 1e-4);
  }
  const json wanted = read_golden("exported/scalar.json");
  const Transformer base = Transformer::load(golden("exported/llama"));
  const LoraAdapter adapter = busy_adapter(base.config(), small());
  const ScalarModel model{adapter.merged(base), ScalarHead::make(24, testing::stream(25))};
  const at::Tensor scores = model.score(pack(wanted["sequences"].get<Sequences>()));
  CHECK(at::allclose(scores, at::tensor(wanted["scores"].get<std::vector<float>>()), 0, 1e-4));
}

TEST_CASE("write the folders of tests/golden/lora/exported", "[.][golden]") {
  for (const std::string name : {"llama", "gpt2", "phi3", "gemma2"}) {
    const std::string base = "exported/" + name;
    const ModelConfig config = ModelConfig::load(golden(base));
    save_peft(busy_adapter(config, small()),
              config,
              {.base = "tests/golden/" + base},
              golden("lora/exported/" + name));
  }
  const ModelConfig config = ModelConfig::load(golden("exported/llama"));
  save_peft(busy_adapter(config, small()),
            config,
            {.base = "tests/golden/exported/llama",
             .score = ScalarHead::make(24, testing::stream(25)).weight},
            golden("lora/exported/scalar"));
}

}  // namespace praetor
