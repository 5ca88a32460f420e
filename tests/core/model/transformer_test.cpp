#include "core/model/transformer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/model/safetensors.h"
#include "core/model/sequence_logprobs.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

using nlohmann::json;
using testing::golden;
using testing::tiny_config;
using testing::tiny_model;
using Sequences = std::vector<std::vector<int64_t>>;

namespace {

// transformers' float32 results; ours differ by the order of sums, about 1e-6 for logits of a few
// nats.
constexpr double kTolerance = 1e-4;

double distance(const std::vector<double>& wanted, const at::Tensor& found) {
  REQUIRE(static_cast<int64_t>(wanted.size()) == found.numel());
  return (at::tensor(wanted, at::kDouble) - found.to(at::kDouble).flatten())
      .abs()
      .max()
      .item<double>();
}

json read_golden(const std::string& name) {
  return json::parse(read_file(golden(name)));
}

}  // namespace

TEST_CASE("log-probabilities and logits are those of transformers, for every kind of folder",
          "[core][cpu]") {
  const std::string names[] = {"models/tied_mha",
                               "models/untied_gqa",
                               "models/untied_gqa_old_keys",
                               "models/mqa_wide_heads",
                               "models/rope_linear",
                               "models/rope_linear_old_keys",
                               "models/rope_dynamic",
                               "models/rope_llama3",
                               "models/rope_yarn",
                               "models/rope_llama3_old_keys",
                               "models/rope_yarn_old_keys",
                               "models/rope_yarn_mscale",
                               "models/biases",
                               "models/qwen2",
                               "models/mistral",
                               "models/sharded",
                               "models/half",
                               "models/bfloat"};
  for (const auto& name : names) {
    INFO(name);
    const Transformer model = Transformer::load(golden(name));
    const json wanted = read_golden(name + ".json");
    const auto sequences = wanted["sequences"].get<Sequences>();
    const auto logprobs = sequence_logprobs(model, sequences);
    const PackedTokens batch = pack(sequences);
    const at::Tensor hidden = model.hidden(batch);
    for (size_t s = 0; s < sequences.size(); ++s) {
      const auto expected = wanted["logprobs"][s].get<std::vector<double>>();
      REQUIRE(logprobs[s].size() == sequences[s].size() - 1);
      if (!expected.empty()) CHECK(distance(expected, at::tensor(logprobs[s])) < kTolerance);
      const at::Tensor last = hidden.slice(0, batch.offsets[s + 1] - 1, batch.offsets[s + 1]);
      CHECK(distance(wanted["last_logits"][s].get<std::vector<double>>(), model.logits(last)) <
            kTolerance);
      CHECK(distance(wanted["last_logits"][s].get<std::vector<double>>(),
                     model.logits(testing::hidden_by_steps(model, sequences[s], 3)).slice(0, -1)) <
            kTolerance);
    }
  }
}

TEST_CASE("the pretrained story model gives the reference's log-probabilities and stories",
          "[core][cpu]") {
  PRAETOR_REQUIRE_SHARED(shared);
  const auto folder = shared / "data" / "stories260K";
  const Transformer model = Transformer::load(folder);
  CHECK(model.config().eos_tokens == std::vector<int64_t>{1});  // generation_config.json's
  CHECK(model.config().parameter_count() == 260032);
  std::ifstream lines(folder / "golden.jsonl");
  int stories = 0;
  for (std::string line; std::getline(lines, line);) {
    const json row = json::parse(line);
    const auto prompt = row["prompt_ids"].get<std::vector<int64_t>>();
    if (row.contains("prompt_token_logprobs")) {
      const auto logprobs = sequence_logprobs(model, {prompt});
      CHECK(distance(row["prompt_token_logprobs"].get<std::vector<double>>(),
                     at::tensor(logprobs[0])) < kTolerance);
      const at::Tensor logits = model.logits(model.hidden(pack({prompt})).slice(0, -1));
      CHECK(distance(row["last_logits_first8"].get<std::vector<double>>(), logits.slice(1, 0, 8)) <
            kTolerance);
    }
    for (const char* key : {"greedy_48_ids", "greedy_255_ids"}) {
      if (!row.contains(key)) continue;
      const auto story = row[key].get<std::vector<int64_t>>();
      CHECK(testing::greedy(model, prompt, static_cast<int64_t>(story.size() - prompt.size())) ==
            story);
      ++stories;
    }
  }
  CHECK(stories == 5);
}

TEST_CASE("gradients of the whole model are those of transformers", "[core][cpu]") {
  for (const std::string name : {"biases", "tied_mha"}) {
    INFO(name);
    Transformer model = Transformer::load(golden("models/" + name));
    model.set_requires_grad(true);
    testing::mean_nll(model, read_golden("models/" + name + ".json")["sequences"].get<Sequences>())
        .backward();
    const SafetensorsFile wanted(golden("models/" + name + ".gradients.safetensors"));
    CHECK(wanted.names().size() == model.parameters().size());
    for (const NamedTensor& named : model.parameters()) {
      INFO(named.name);
      const at::Tensor expected = wanted.tensor(named.name);
      REQUIRE(named.tensor.grad().defined());
      CHECK((named.tensor.grad() - expected).abs().max().item<float>() < 1e-5);
      CHECK(expected.abs().max().item<float>() > 1e-4);  // so that a gradient of zeros would show
    }
  }
}

TEST_CASE("gradients in float64 agree with finite differences", "[core][cpu]") {
  ModelConfig config = tiny_config();
  config.attention_bias = config.output_bias = config.mlp_bias = true;
  config.num_layers = 1;
  Transformer model(config, testing::stream(3), at::kDouble);
  model.set_requires_grad(true);
  const Sequences sequences = {testing::random_tokens(7, 40, 1), testing::random_tokens(3, 40, 2)};
  testing::mean_nll(model, sequences).backward();
  const c10::NoGradGuard no_grad;
  for (const NamedTensor& named : model.parameters()) {
    INFO(named.name);
    at::Tensor flat = named.tensor.detach().flatten();  // shares storage
    const at::Tensor gradient = named.tensor.grad().flatten();
    for (int64_t i = 0; i < flat.numel(); i += std::max<int64_t>(1, flat.numel() / 2)) {
      const double at = flat[i].item<double>();
      const double step = 1e-5;
      flat[i].fill_(at + step);
      const double above = testing::mean_nll(model, sequences).item<double>();
      flat[i].fill_(at - step);
      const double below = testing::mean_nll(model, sequences).item<double>();
      flat[i].fill_(at);
      CHECK(gradient[i].item<double>() ==
            Approx((above - below) / (2 * step)).epsilon(1e-5).margin(1e-9));
    }
  }
}

TEST_CASE("an update in place is seen by the next forward", "[core][cpu]") {
  Transformer model = tiny_model();
  model.set_requires_grad(true);
  const PackedTokens batch = pack({testing::random_tokens(9, 40, 5)});
  for (const NamedTensor& named : model.parameters()) {
    INFO(named.name);
    const at::Tensor before = model.logits(model.hidden(batch)).detach().clone();
    {
      const c10::NoGradGuard no_grad;
      named.tensor.add_(0.05);
    }
    const at::Tensor after = model.logits(model.hidden(batch)).detach();
    CHECK_FALSE(at::equal(before, after));
    const Transformer fresh = model.clone();
    CHECK(at::equal(fresh.logits(fresh.hidden(batch)), after));
  }
}

TEST_CASE("a clone stands alone, a copy takes the values, a digest tells models apart",
          "[core][cpu]") {
  Transformer model = tiny_model(1);
  model.set_requires_grad(true);
  Transformer copy = model.clone();
  CHECK(copy.digest() == model.digest());
  CHECK(copy.digest().size() == 64);
  for (const NamedTensor& named : copy.parameters()) CHECK_FALSE(named.tensor.requires_grad());
  for (const NamedTensor& named : model.parameters())
    CHECK((named.tensor.requires_grad() && named.tensor.is_leaf()));
  {
    const c10::NoGradGuard no_grad;
    model.parameters()[3].tensor[0].add_(1.0);
  }
  CHECK(copy.digest() != model.digest());
  copy.copy_from(model);
  CHECK(copy.digest() == model.digest());
  CHECK(tiny_model(2).digest() != tiny_model(1).digest());
  CHECK(tiny_model(2).digest() == tiny_model(2).digest());
  ModelConfig other = tiny_config();
  other.vocab_size = 41;
  CHECK_THROWS_AS(copy.copy_from(Transformer(other, testing::stream(1))), ShapeError);
  other.attention_bias = true;
  CHECK_THROWS_AS(copy.copy_from(Transformer(other, testing::stream(1))), ShapeError);
}

TEST_CASE("random weights have the wanted deviation, norms are 1 and biases 0", "[core][cpu]") {
  ModelConfig config = tiny_config();
  config.attention_bias = true;
  config.initializer_range = 0.5;
  const Transformer model(config, testing::stream(9));
  const auto find = [&](const std::string& name) {
    for (const NamedTensor& named : model.parameters()) {
      if (named.name == name) return named.tensor;
    }
    throw InternalError("no parameter ", name);
  };
  // 960 values: the mean has deviation 0.016, the deviation 0.011.
  const at::Tensor embedding = find("model.embed_tokens.weight");
  CHECK(embedding.mean().item<double>() == Approx(0).margin(0.065));
  CHECK(embedding.std().item<double>() == Approx(0.5).margin(0.045));
  CHECK(at::equal(find("model.norm.weight"), at::ones({24})));
  CHECK(at::equal(find("model.layers.1.self_attn.k_proj.bias"), at::zeros({12})));
}

TEST_CASE("only the wanted rows of an engine step come back", "[core][cpu]") {
  const Transformer model = tiny_model();
  const std::vector<int64_t> tokens = testing::random_tokens(6, 40, 8);
  const std::vector<int32_t> table = {0, 1};
  CachedRows rows;
  rows.tables = {&table};
  for (int32_t i = 0; i < 6; ++i) {
    rows.tokens.push_back(tokens[i]);
    rows.positions.push_back(i);
    rows.sequence.push_back(0);
  }
  KvCache one = model.make_cache(2, 4);
  KvCache two = model.make_cache(2, 4);
  const at::Tensor all = model.hidden_cached(rows, one);
  const at::Tensor some = model.hidden_cached(rows, two, {5, 2});
  REQUIRE(some.size(0) == 2);
  CHECK(at::allclose(some[0], all[5], 1e-5, 1e-6));
  CHECK(at::allclose(some[1], all[2], 1e-5, 1e-6));
  CHECK(at::equal(one.layers[1].keys, two.layers[1].keys));
  CHECK_THROWS_AS(model.make_cache(0), InvalidArgument);
}

TEST_CASE("tokens and lengths that the model cannot take are named with their bound",
          "[core][cpu]") {
  const Transformer model = tiny_model();
  CHECK_THROWS_WITH(model.hidden(pack({{1, 40}})),
                    Catch::Contains("token id 40") && Catch::Contains("vocabulary of 40"));
  CHECK_THROWS_AS(model.hidden(pack({{-1}})), DataError);
  CHECK_THROWS_WITH(model.hidden(pack({{1}, std::vector<int64_t>(97, 1)})),
                    Catch::Contains("sequence 1 has 97 tokens, the model takes at most 96"));
  CHECK_NOTHROW(model.hidden(pack({std::vector<int64_t>(96, 1)})));
  PackedTokens torn = pack({{1, 2, 3}});
  torn.offsets = {0, 2};
  CHECK_THROWS_AS(model.hidden(torn), ShapeError);
  torn.offsets = {0, 4, 3};
  CHECK_THROWS_AS(model.hidden(torn), ShapeError);
  KvCache cache = model.make_cache(30, 4);
  const std::vector<int32_t> table = {0};
  CachedRows rows{{1}, {96}, {0}, {&table}};
  CHECK_THROWS_WITH(model.hidden_cached(rows, cache),
                    Catch::Contains("position 96") && Catch::Contains("96 positions"));
  CHECK_THROWS_AS(sequence_logprobs(model, {{1, 2}}, 0), InvalidArgument);
}

TEST_CASE("a batch may hold empty sequences and single tokens", "[core][cpu]") {
  const Transformer model = tiny_model();
  const PackedTokens batch = pack({{}, {3}, {}, {4, 5}});
  CHECK(batch.offsets == std::vector<int64_t>{0, 0, 1, 1, 3});
  const at::Tensor hidden = model.hidden(batch);
  CHECK(hidden.sizes().vec() == std::vector<int64_t>{3, 24});
  CHECK(at::allclose(hidden.slice(0, 0, 1), model.hidden(pack({{3}})), 1e-5, 1e-6));
  const auto logprobs = sequence_logprobs(model, {{}, {3}, {}, {4, 5}});
  CHECK(logprobs[0].empty());
  CHECK(logprobs[1].empty());
  CHECK(logprobs[3].size() == 1);
}

}  // namespace praetor
