#include "core/model/tensor_split.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "core/base/error.h"
#include "core/collective/collective.h"
#include "core/model/checkpointing.h"
#include "core/model/lora.h"
#include "core/model/packed.h"
#include "core/model/transformer.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

/// Parts of models over ranks as threads, against the whole model.
namespace praetor {

using testing::golden;
using testing::run_ranks;

namespace {

// Folders of tests/golden/families: every family, with fused tensors, biases, caps, norms of
// queries and keys, windows, partial rotations, tied heads.
const std::string kFamilies[] = {"llama3",
                                 "mistral_window",
                                 "qwen2_tied",
                                 "qwen2_window",
                                 "gpt2",
                                 "gpt2_odd",
                                 "qwen3",
                                 "qwen3_biases",
                                 "phi3",
                                 "phi3_longrope",
                                 "phi3_partial",
                                 "gemma2",
                                 "gemma2_uncapped",
                                 "gemma3"};

/// What a forward and a backward of a model give.
struct Outcome {
  at::Tensor hidden, logprob, entropy;
  std::map<std::string, at::Tensor> gradients;
};

Outcome outcome_of(Transformer& model) {
  // The third sequence goes on where the first one ends.
  PackedTokens batch = pack({{3, 9, 60, 2, 41, 7, 7}, {5, 63, 0, 33}, {12, 8, 1, 20, 31}});
  batch.prefix = {-1, -1, 0};
  model.set_requires_grad(true);
  Outcome out;
  const at::Tensor hidden = model.hidden(batch);
  const at::Tensor targets =
      at::tensor({9, 60, 2, 41, 7, 7, 63, 0, 33, 5, 8, 1, 20, 31, 62, 21}, at::kLong);
  const auto tokens = ops::token_logprobs(hidden, model.head(), targets, 0.7, true);
  const at::Tensor wave = at::arange(hidden.numel(), hidden.options().requires_grad(false));
  // Of log-probabilities, of the entropy, and of the hidden states themselves, as a value head has.
  const at::Tensor loss = (tokens.logprob * wave.slice(0, 0, 16).sin()).sum() +
                          (tokens.entropy * wave.slice(0, 0, 16).cos()).sum() +
                          (hidden * wave.view(hidden.sizes()).cos()).sum() / 10;
  loss.backward();
  out.hidden = hidden.detach();
  out.logprob = tokens.logprob.detach();
  out.entropy = tokens.entropy.detach();
  for (const NamedTensor& p : model.parameters()) out.gradients[p.name] = p.tensor.grad();
  return out;
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

/// Of a part's gradients from the whole model's, over the norm of all of these.
double gradient_error(const Outcome& whole,
                      const Outcome& part,
                      const ModelConfig& config,
                      int32_t rank,
                      int32_t ranks) {
  double off = 0, all = 0;
  for (const auto& [name, gradient] : whole.gradients) {
    const at::Tensor wanted = tensor_part(config, name, rank, ranks).of(gradient);
    off += (part.gradients.at(name) - wanted).square().sum().item<double>();
    all += gradient.square().sum().item<double>();
  }
  return std::sqrt(off / all);
}

}  // namespace

TEST_CASE("the parts of every family say and learn what the whole model does", "[core][cpu]") {
  for (const std::string& name : kFamilies) {
    for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
      const double tolerance = dtype == at::kDouble ? 1e-12 : 1e-6;
      const Transformer model = Transformer::load(golden("families/" + name), dtype);
      Transformer alone = model.clone();
      const Outcome wanted = outcome_of(alone);
      const double scale = std::max(1.0, wanted.hidden.abs().max().item<double>());
      int tried = 0;
      for (const int32_t ranks : {2, 3, 4}) {
        if (wrong_tensor_ranks(model.config(), ranks)) continue;
        ++tried;
        std::vector<Outcome> parts(static_cast<size_t>(ranks));
        const auto errors = run_ranks(ranks, [&](Collective& mine) {
          const TensorGroup group(mine);
          // Tensors that are whole are the model's own, and each rank has its model.
          const Transformer own = model.clone();
          Transformer part = split_model(own, group);
          parts[static_cast<size_t>(mine.rank())] = outcome_of(part);
        });
        REQUIRE(errors == std::vector<std::string>(static_cast<size_t>(ranks)));
        for (int32_t r = 0; r < ranks; ++r) {
          const Outcome& part = parts[static_cast<size_t>(r)];
          CAPTURE(name, dtype, ranks, r);
          CHECK(largest_difference(part.hidden, wanted.hidden) < tolerance * 10 * scale);
          CHECK(largest_difference(part.logprob, wanted.logprob) < tolerance * 10);
          CHECK(largest_difference(part.entropy, wanted.entropy) < tolerance * 10);
          // Logits of tens (gemma2_uncapped) cost float32 some of its last digits.
          CHECK(gradient_error(wanted, part, model.config(), r, ranks) < tolerance * 3);
          // What all have stays the same on all of them, bit for bit.
          CHECK(at::equal(part.hidden, parts[0].hidden));
          CHECK(at::equal(part.logprob, parts[0].logprob));
          for (const auto& [parameter, gradient] : part.gradients) {
            if (!tensor_part(model.config(), parameter, r, ranks).everywhere()) continue;
            CAPTURE(parameter);
            CHECK(at::equal(gradient, parts[0].gradients.at(parameter)));
          }
        }
      }
      CHECK(tried > 0);
    }
  }
}

TEST_CASE("adapters of parts add and learn what those of the whole model do", "[core][cpu]") {
  for (const std::string name : {"gpt2", "phi3_partial", "qwen3_biases", "gemma3"}) {
    const Transformer model = Transformer::load(golden("families/" + name), at::kDouble);
    const LoraConfig lora{.rank = 3, .alpha = 6, .dropout = 0.25};
    const LoraAdapter adapter =
        LoraAdapter::make(model.config(), lora, {.job_seed = 4}, at::kDouble);
    RandomStream stream({.job_seed = 5});
    for (const NamedTensor& p : adapter.parameters()) {
      double* const values = p.tensor.mutable_data_ptr<double>();
      for (int64_t i = 0; i < p.tensor.numel(); ++i) values[i] = 0.3 * stream.normal();
    }
    const auto outcome_with = [](Transformer& network, LoraAdapter& its) {
      const AdapterScope scope(network, &its);
      its.set_dropout_key(7);
      for (const NamedTensor& p : its.parameters()) p.tensor.set_requires_grad(true);
      Outcome out = outcome_of(network);
      for (const NamedTensor& p : its.parameters()) out.gradients[p.name] = p.tensor.grad();
      return out;
    };
    Transformer alone = model.clone();
    LoraAdapter its = adapter.clone();
    const Outcome wanted = outcome_with(alone, its);
    for (const int32_t ranks : {2, 4}) {
      std::vector<Outcome> parts(static_cast<size_t>(ranks));
      const auto errors = run_ranks(ranks, [&](Collective& mine) {
        const TensorGroup group(mine);
        const Transformer own = model.clone();
        Transformer part = split_model(own, group);
        LoraAdapter own_adapter = adapter.clone();
        parts[static_cast<size_t>(mine.rank())] = outcome_with(part, own_adapter);
      });
      REQUIRE(errors == std::vector<std::string>(static_cast<size_t>(ranks)));
      for (const Outcome& part : parts) {
        CAPTURE(name, ranks);
        CHECK(largest_difference(part.logprob, wanted.logprob) < 1e-11);
        for (const NamedTensor& p : adapter.parameters()) {
          const at::Tensor& gradient = wanted.gradients.at(p.name);
          CAPTURE(p.name);
          CHECK(largest_difference(part.gradients.at(p.name), gradient) <
                1e-11 * std::max(1.0, gradient.abs().max().item<double>()));
          CHECK(at::equal(part.gradients.at(p.name), parts[0].gradients.at(p.name)));
        }
      }
    }
  }
}

TEST_CASE("parts that compute layers again have the bits of those that keep them", "[core][cpu]") {
  const Transformer model = Transformer::load(golden("families/qwen3_biases"));
  std::map<ActivationCheckpointing, std::vector<Outcome>> all;
  for (const auto kind : {ActivationCheckpointing::kNone,
                          ActivationCheckpointing::kSelective,
                          ActivationCheckpointing::kBlock}) {
    all[kind].resize(2);
    const auto errors = run_ranks(2, [&](Collective& mine) {
      const TensorGroup group(mine);
      const Transformer own = model.clone();
      Transformer part = split_model(own, group);
      set_activation_checkpointing(part, kind);
      all[kind][static_cast<size_t>(mine.rank())] = outcome_of(part);
    });
    REQUIRE(errors == std::vector<std::string>(2));
    for (size_t r = 0; r < 2; ++r) {
      const Outcome& kept = all[ActivationCheckpointing::kNone][r];
      CHECK(at::equal(all[kind][r].logprob, kept.logprob));
      for (const auto& [name, gradient] : kept.gradients) {
        CAPTURE(name);
        CHECK(at::equal(all[kind][r].gradients.at(name), gradient));
      }
    }
  }
}

TEST_CASE("parts of things differ by one at most and leave nothing out", "[core][cpu]") {
  for (const int64_t count : {4, 7, 64, 101}) {
    for (const int64_t ranks : {1, 2, 3, 4}) {
      int64_t reached = 0;
      for (int64_t r = 0; r < ranks; ++r) {
        const Share share = share_of(count, r, ranks);
        CHECK(share.begin == reached);
        CHECK((share.size() == count / ranks || share.size() == count / ranks + 1));
        reached = share.end;
      }
      CHECK(reached == count);
    }
  }
}

TEST_CASE("a model that cannot be split says over how many ranks it can be", "[core][cpu]") {
  ModelConfig config;
  config.vocab_size = 100;
  config.intermediate_size = 64;
  config.num_heads = 12;
  config.num_kv_heads = 4;
  for (const int64_t good : {1, 2, 4, 12}) CHECK_FALSE(wrong_tensor_ranks(config, good));
  // Three ranks would cut through key/value heads, six would leave each two thirds of one.
  CHECK_THAT(wrong_tensor_ranks(config, 3).value_or(""),
             Catch::Contains("12 heads and 4 key/value heads cannot be split over 3 ranks") &&
                 Catch::Contains("possible are 1, 2, 4, 12"));
  CHECK(wrong_tensor_ranks(config, 6));
  CHECK(wrong_tensor_ranks(config, 5));
  config.intermediate_size = 8;
  CHECK_THAT(wrong_tensor_ranks(config, 12).value_or(""),
             Catch::Contains("a vocabulary of 100 and an MLP of width 8"));
  const Transformer model = Transformer::load(golden("families/gpt2_odd"));
  const auto errors = run_ranks(2, [&](Collective& mine) {
    const TensorGroup group(mine);
    (void)split_model(model, group);
  });
  CHECK_THAT(errors[1],
             Catch::Contains("3 heads and 3 key/value heads") && Catch::Contains("1, 3"));
}

TEST_CASE("more ranks than key/value heads share the heads' projections", "[core][cpu]") {
  const ModelConfig config = Transformer::load(golden("families/qwen2_tied")).config();
  REQUIRE(config.num_kv_heads == 2);
  CHECK(tensor_part(config, "model.layers.0.self_attn.k_proj.weight", 1, 4).everywhere());
  CHECK(tensor_part(config, "model.layers.0.self_attn.k_proj.bias", 1, 2).dim == 0);
  for (int64_t r = 0; r < 4; ++r) {
    CHECK(shared_key_rows(config, r, 4)->begin == r / 2 * config.head_dim);
    CHECK(shared_key_rows(config, r, 4)->size() == config.head_dim);
  }
  CHECK_FALSE(shared_key_rows(config, 1, 2));
  CHECK_THROWS_WITH(tensor_part(config, "model.layers.0.mlp.router.weight", 0, 2),
                    Catch::Contains("nobody has said how model.layers.0.mlp.router.weight"));
}

TEST_CASE("a part decodes nothing, and its head gives no logits", "[core][cpu]") {
  const Transformer model = Transformer::load(golden("families/llama3"));
  std::vector<std::string> decoded(2);
  const auto logits = run_ranks(2, [&](Collective& mine) {
    const TensorGroup group(mine);
    const Transformer part = split_model(model, group);
    KvCache cache = part.make_cache(1);
    try {
      (void)part.hidden_cached({.tokens = {1}, .positions = {0}, .sequence = {0}, .tables = {}},
                               cache);
    } catch (const InternalError& error) {
      decoded[static_cast<size_t>(mine.rank())] = error.what();
    }
    (void)part.logits(at::zeros({1, model.config().hidden_size}));
  });
  for (size_t r = 0; r < 2; ++r) {
    CHECK_THAT(decoded[r], Catch::Contains("one rank's part of a model"));
    CHECK_THAT(logits[r], Catch::Contains("one rank's part of a vocabulary"));
  }
}

TEST_CASE("a rank that leaves a forward is named to those beside it", "[core][cpu]") {
  const Transformer model = Transformer::load(golden("families/llama3"));
  const auto errors = run_ranks(2,
                                [&](Collective& mine) {
                                  const TensorGroup group(mine);
                                  const Transformer part = split_model(model, group);
                                  if (mine.rank() == 0) (void)part.hidden(pack({{1, 2, 3}}));
                                },
                                {.deadline = std::chrono::milliseconds(500)});
  CHECK_THAT(errors[0], Catch::Contains("rank 1"));
}

}  // namespace praetor
