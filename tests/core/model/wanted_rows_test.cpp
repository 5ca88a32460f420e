#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/base/str.h"
#include "core/model/checkpointing.h"
#include "core/model/lora.h"
#include "core/model/transformer.h"
#include "tests/support/catch.h"
#include "tests/support/live_bytes.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

/// Forwards that are asked for some rows: the others pass through the last layer's attention alone.
namespace praetor {

using testing::batch_with_prefix;
using testing::golden;

namespace {

constexpr ActivationCheckpointing kAllCheckpointing[] = {ActivationCheckpointing::kNone,
                                                         ActivationCheckpointing::kSelective,
                                                         ActivationCheckpointing::kBlock};

at::Tensor rows_of(const std::vector<int64_t>& rows) {
  return at::tensor(rows, at::kLong);
}

/// A loss of the rows, then the gradient of every tensor that wants one.
std::vector<at::Tensor> trained(const at::Tensor& rows, const std::vector<NamedTensor>& learning) {
  for (const NamedTensor& p : learning) p.tensor.mutable_grad() = at::Tensor();
  const at::Tensor weights =
      at::arange(rows.numel(), rows.options().requires_grad(false)).sin().view(rows.sizes());
  const at::Tensor loss = (rows * weights).sum();
  loss.backward();
  std::vector<at::Tensor> out{loss.detach()};
  for (const NamedTensor& p : learning)
    out.push_back(p.tensor.grad().defined() ? p.tensor.grad().clone() : at::Tensor());
  return out;
}

void check_alike(const std::vector<at::Tensor>& found,
                 const std::vector<at::Tensor>& wanted,
                 double tolerance) {
  REQUIRE(found.size() == wanted.size());
  for (size_t i = 0; i < found.size(); ++i) {
    INFO("tensor " << i);
    REQUIRE(found[i].defined() == wanted[i].defined());
    if (!found[i].defined()) continue;
    const double size = std::max(1.0, wanted[i].norm().item<double>());
    CHECK((found[i] - wanted[i]).norm().item<double>() <= tolerance * size);
  }
}

}  // namespace

TEST_CASE("in every family wanted rows have their bits, and their gradients", "[core][cpu]") {
  const at::Tensor want = rows_of({20, 4, 10, 10, 0, 13});
  for (const std::string name : {"llama3",
                                 "mistral_window",
                                 "qwen2_tied",
                                 "gpt2_odd",
                                 "qwen3_biases",
                                 "phi3_partial",
                                 "gemma2",
                                 "gemma3"}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
      Transformer model = Transformer::load(golden("families/" + name), dtype);
      model.set_requires_grad(true);
      const PackedTokens batch = batch_with_prefix(model.config().vocab_size);
      const at::Tensor all = model.hidden(batch).index_select(0, want);
      const auto wanted = trained(all, model.parameters());
      for (const auto what : kAllCheckpointing) {
        INFO(name << ", checkpointing " << static_cast<int>(what));
        set_activation_checkpointing(model, what);
        const at::Tensor rows = model.hidden(batch, want);
        if (dtype == at::kFloat) CHECK(at::equal(rows, all));
        check_alike(trained(rows, model.parameters()), wanted, dtype == at::kFloat ? 1e-6 : 1e-14);
      }
    }
  }
}

TEST_CASE("wanted rows keep what dropout leaves out of them", "[core][cpu]") {
  const Transformer base(testing::tiny_config(), testing::stream(1), at::kDouble);
  LoraConfig lora{.rank = 3, .alpha = 5, .dropout = 0.5, .targets = {kAllLinear}};
  LoraAdapter adapter = LoraAdapter::make(base.config(), lora, {.job_seed = 3}, at::kDouble);
  for (const LoraAdapter::Module& module : adapter.modules()) module.b.fill_(0.3);
  for (const NamedTensor& p : adapter.parameters()) p.tensor.set_requires_grad(true);
  const PackedTokens batch = batch_with_prefix(40);
  const at::Tensor want = rows_of({20, 4, 10, 10, 0, 13});
  Transformer checkpointed = shared_copy(base);
  for (const auto what : kAllCheckpointing) {
    INFO("checkpointing " << static_cast<int>(what));
    set_activation_checkpointing(checkpointed, what);
    // The scope has ended when a backward computes again.
    const auto forward = [&](const at::Tensor& rows) {
      const AdapterScope scope(checkpointed, &adapter);
      return checkpointed.hidden(batch, rows);
    };
    const auto wanted = trained(forward({}).index_select(0, want), adapter.parameters());
    check_alike(trained(forward(want), adapter.parameters()), wanted, 1e-14);
  }
}

TEST_CASE("of rows that nobody wants the last layer keeps less", "[core][cpu]") {
  Transformer model = testing::tiny_model();
  model.set_requires_grad(true);
  const PackedTokens batch = pack({testing::random_tokens(60, 40, 1)});
  (void)model.hidden(batch);  // packs the weights
  const auto kept = [&](const at::Tensor& want) {
    const testing::LiveBytes bytes;
    const at::Tensor rows = model.hidden(batch, want);
    return bytes.now();
  };
  const ModelConfig& c = model.config();
  // Its MLP's values, and x before it.
  const int64_t less = 59 * 4 * (3 * c.intermediate_size + c.hidden_size);
  CHECK(kept(rows_of({59})) < kept({}) - less);
}

TEST_CASE("rows that a batch does not have are refused", "[core][cpu]") {
  const Transformer model = testing::tiny_model();
  const PackedTokens batch = batch_with_prefix(40);
  const auto refused = [&](const at::Tensor& want, const std::string& why) {
    CHECK_THROWS_WITH(model.hidden(batch, want), Catch::Contains(why));
  };
  const int64_t rows = batch.total();
  refused(rows_of({0, rows}), str("row ", rows, " of a batch of ", rows, " is wanted"));
  refused(rows_of({-1}), "row -1 of a batch");
  refused(rows_of({0, 1}).view({1, 2}), "wanted rows are int64 [R], found Long [1, 2]");
  refused(rows_of({0, 1}).to(at::kInt), "wanted rows are int64 [R], found Int [2]");
}

TEST_CASE("no row may be wanted", "[core][cpu]") {
  Transformer model = testing::tiny_model();
  model.set_requires_grad(true);
  const at::Tensor none = model.hidden(batch_with_prefix(40), rows_of({}));
  CHECK(none.sizes() == at::IntArrayRef({0, model.config().hidden_size}));
  for (const at::Tensor& gradient : trained(none, model.parameters()))
    CHECK((!gradient.defined() || gradient.abs().sum().item<double>() == 0));
}

}  // namespace praetor
