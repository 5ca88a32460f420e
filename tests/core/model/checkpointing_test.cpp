#include "core/model/checkpointing.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <string>

#include "core/base/error.h"
#include "core/model/transformer.h"
#include "tests/support/catch.h"
#include "tests/support/live_bytes.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

using testing::batch_with_prefix;
using testing::golden;
using testing::LiveBytes;

namespace {

constexpr auto kNone = ActivationCheckpointing::kNone;
constexpr auto kSelective = ActivationCheckpointing::kSelective;
constexpr auto kBlock = ActivationCheckpointing::kBlock;

/// The loss, then every gradient ([0] where there is none).
std::vector<at::Tensor> trained(const Transformer& model, const PackedTokens& batch) {
  for (const NamedTensor& p : model.parameters()) p.tensor.mutable_grad() = at::Tensor();
  const at::Tensor hidden = model.hidden(batch);
  const at::Tensor weights =
      at::arange(hidden.numel(), hidden.options().requires_grad(false)).sin().view(hidden.sizes());
  const at::Tensor logits = model.logits(hidden);
  const at::Tensor loss = (hidden * weights).sum() + logits.logsumexp(-1).sum();
  loss.backward();
  std::vector<at::Tensor> out{loss.detach()};
  for (const NamedTensor& p : model.parameters()) {
    out.push_back(p.tensor.grad().defined() ? p.tensor.grad().clone()
                                            : at::zeros({0}, loss.options().requires_grad(false)));
  }
  return out;
}

bool same_bits(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!at::equal(a[i], b[i])) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("in every family a backward that computes layers again has the same bits",
          "[core][cpu]") {
  for (const std::string name : {"llama3",
                                 "mistral_window",
                                 "qwen2_tied",
                                 "gpt2_odd",
                                 "qwen3_biases",
                                 "phi3_partial",
                                 "gemma2",
                                 "gemma3"}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
      INFO(name);
      Transformer model = Transformer::load(golden("families/" + name), dtype);
      model.set_requires_grad(true);
      const PackedTokens batch = batch_with_prefix(model.config().vocab_size);
      const auto wanted = trained(model, batch);
      for (const auto what : {kSelective, kBlock}) {
        set_activation_checkpointing(model, what);
        CHECK(same_bits(trained(model, batch), wanted));
      }
      set_activation_checkpointing(model, kNone);
      CHECK(same_bits(trained(model, batch), wanted));
    }
  }
}

TEST_CASE("weights that are trained in part get their gradients", "[core][cpu]") {
  Transformer model = testing::tiny_model();
  const PackedTokens batch = batch_with_prefix(40);
  // The first layer's input wants no gradient, some of its weights do.
  for (const NamedTensor& p : model.parameters())
    p.tensor.set_requires_grad(p.name.find("v_proj") != std::string::npos ||
                               p.name.find("gate_proj") != std::string::npos);
  const auto wanted = trained(model, batch);
  int64_t defined = 0;
  for (const at::Tensor& one : wanted) defined += one.numel() > 1;
  CHECK(defined == 4);
  for (const auto what : {kSelective, kBlock}) {
    set_activation_checkpointing(model, what);
    CHECK(same_bits(trained(model, batch), wanted));
  }
}

TEST_CASE("two backwards add up as they do without checkpointing", "[core][cpu]") {
  Transformer model = testing::tiny_model();
  model.set_requires_grad(true);
  const auto twice = [&] {
    for (const NamedTensor& p : model.parameters()) p.tensor.mutable_grad() = at::Tensor();
    testing::mean_nll(model, {testing::random_tokens(9, 40, 1)}).backward();
    testing::mean_nll(model, {testing::random_tokens(14, 40, 2)}).backward();
    std::vector<at::Tensor> out;
    for (const NamedTensor& p : model.parameters()) out.push_back(p.tensor.grad().clone());
    return out;
  };
  const auto wanted = twice();
  for (const auto what : {kSelective, kBlock}) {
    set_activation_checkpointing(model, what);
    CHECK(same_bits(twice(), wanted));
  }
}

TEST_CASE("without gradients nothing is kept and nothing changes", "[core][cpu]") {
  Transformer model = testing::tiny_model();
  const PackedTokens batch = batch_with_prefix(40);
  const at::Tensor wanted = model.hidden(batch);
  for (const auto what : {kSelective, kBlock}) {
    set_activation_checkpointing(model, what);
    CHECK(at::equal(model.hidden(batch), wanted));  // no weight wants one
    model.set_requires_grad(true);
    const at::NoGradGuard no_grad;
    CHECK(at::equal(model.hidden(batch), wanted));
    model.set_requires_grad(false);
  }
}

TEST_CASE("a forward keeps less of each layer, the less the more is computed again",
          "[core][cpu]") {
  ModelConfig config = testing::tiny_config();
  config.num_layers = 8;
  config.hidden_size = 64;
  config.intermediate_size = 256;
  config.head_dim = 16;
  Transformer model(config, testing::stream(1));
  model.set_requires_grad(true);
  const PackedTokens batch =
      pack({testing::random_tokens(96, 40, 1), testing::random_tokens(96, 40, 2)});
  model.hidden(batch);  // packs the weights
  const auto kept = [&](ActivationCheckpointing what) {
    set_activation_checkpointing(model, what);
    const LiveBytes bytes;
    const at::Tensor hidden = model.hidden(batch);
    const int64_t out = bytes.now();
    CHECK(bytes.peak() >= out);
    return out;
  };
  // Floats a token and layer: x, norm, q, k, v, attention, x, norm, gate, up, active.
  const double layer = 192.0 * 8 * 4;
  const double none = static_cast<double>(kept(kNone)) / layer;
  const double selective = static_cast<double>(kept(kSelective)) / layer;
  const double block = static_cast<double>(kept(kBlock)) / layer;
  CHECK(none > 6 * 64 + 2 * 32 + 3 * 256);
  CHECK(none < 1.05 * (7 * 64 + 2 * 32 + 3 * 256));
  CHECK(selective > 4 * 64 + 2 * 32);
  CHECK(selective < 1.05 * (5 * 64 + 2 * 32));
  CHECK(block > 64);
  CHECK(block < 1.5 * 64);
}

TEST_CASE("a layer's backward does not run twice", "[core][cpu]") {
  Transformer model = testing::tiny_model();
  model.set_requires_grad(true);
  set_activation_checkpointing(model, kBlock);
  const at::Tensor loss = model.hidden(batch_with_prefix(40)).sum();
  loss.backward({}, /*retain_graph=*/true);
  loss.backward({}, true);  // its graph is there, and each layer is computed a third time
  const at::Tensor other = model.hidden(batch_with_prefix(40)).sum();
  other.backward();
  CHECK_THROWS_WITH(other.backward(), Catch::Contains("once") || Catch::Contains("second time"));
}

}  // namespace praetor
