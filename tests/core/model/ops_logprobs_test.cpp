#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>

#include "core/base/error.h"
#include "core/model/kernels/isa.h"
#include "core/model/ops.h"
#include "core/model/ops_reference.h"
#include "tests/support/catch.h"
#include "tests/support/live_bytes.h"

namespace praetor {

TEST_CASE("token_logprobs has the bits of log_softmax over the whole logits", "[core][cpu][ops]") {
  at::manual_seed(1);
  const at::Tensor hidden = at::randn({300, 48}), head = at::randn({517, 48});
  const at::Tensor targets = at::randint(0, 517, {300}, at::kLong);
  for (const double temperature : {1.0, 0.7, 1.5}) {
    const at::Tensor all = ops::log_softmax(ops::linear(hidden, head) / temperature);
    const at::Tensor want = all.gather(1, targets.unsqueeze(1)).squeeze(1);
    const auto out = ops::token_logprobs(hidden, head, targets, temperature);
    CHECK(at::equal(out.logprob, want));
    CHECK_FALSE(out.entropy.defined());
    // With gradients, and with the entropy, the numbers are the same.
    const at::Tensor leaf = hidden.clone().set_requires_grad(true);
    const auto traced = ops::token_logprobs(leaf, head, targets, temperature, true);
    CHECK(at::equal(traced.logprob, want));
    CHECK(at::allclose(traced.entropy, -(all.exp() * all).sum(1), 1e-5, 1e-5));
  }
}

TEST_CASE("a capped head's log-probabilities have the bits of its capped logits",
          "[core][cpu][ops]") {
  at::manual_seed(7);
  const ops::LanguageHead head(at::randn({517, 48}), 5);
  const at::Tensor hidden = at::randn({300, 48}), targets = at::randint(0, 517, {300}, at::kLong);
  const at::Tensor logits = ops::logits(hidden, head);
  CHECK(logits.abs().max().item<float>() < 5);
  CHECK(at::allclose(logits, (ops::linear(hidden, head.weight) / 5).tanh() * 5, 1e-5, 1e-5));
  for (const double temperature : {1.0, 0.7}) {
    const at::Tensor all = ops::log_softmax(logits / temperature);
    CHECK(at::equal(ops::token_logprobs(hidden, head, targets, temperature).logprob,
                    all.gather(1, targets.unsqueeze(1)).squeeze(1)));
  }
  CHECK_THROWS_AS(ops::token_logprobs(hidden, {head.weight, -1}, targets), InvalidArgument);
}

TEST_CASE("a token's log-probability does not depend on its neighbours", "[core][cpu][ops]") {
  at::manual_seed(2);
  const int threads_before = at::get_num_threads();
  const auto isa_before = ops::kernels::isa_in_use();
  const at::Tensor hidden = at::randn({40, 64}), head = at::randn({1000, 64});
  const at::Tensor targets = at::randint(0, 1000, {40}, at::kLong);
  const auto want = ops::token_logprobs(hidden, head, targets, 0.8, true);
  for (const auto isa : ops::kernels::available_isas()) {
    ops::kernels::use_isa(isa);
    for (const int threads : {1, 2}) {
      at::set_num_threads(threads);
      INFO(ops::kernels::table().name << " with " << threads << " threads");
      for (const int64_t n : {1, 2, 15, 16, 17, 33}) {
        const auto out =
            ops::token_logprobs(hidden.narrow(0, 3, n), head, targets.narrow(0, 3, n), 0.8, true);
        CHECK(at::equal(out.logprob, want.logprob.narrow(0, 3, n)));
        CHECK(at::equal(out.entropy, want.entropy.narrow(0, 3, n)));
      }
    }
  }
  at::set_num_threads(threads_before);
  ops::kernels::use_isa(isa_before);
}

TEST_CASE("token_logprobs agrees with LibTorch and with numbers worked by hand",
          "[core][cpu][ops]") {
  at::manual_seed(3);
  const at::Tensor hidden = at::randn({50, 32}), head = at::randn({200, 32});
  const at::Tensor targets = at::randint(0, 200, {50}, at::kLong);
  const auto got = ops::token_logprobs(hidden, head, targets, 0.9, true);
  const auto want = ops::reference::token_logprobs(hidden, head, targets, 0.9, true);
  CHECK(at::allclose(got.logprob, want.logprob, 1e-5, 1e-5));
  CHECK(at::allclose(got.entropy, want.entropy, 1e-5, 1e-5));

  // Logits ln 1, ln 2, ln 5: probabilities 1/8, 2/8, 5/8.
  const at::Tensor logits = at::tensor({0.0f, std::log(2.0f), std::log(5.0f)}).unsqueeze(1);
  const auto hand =
      ops::token_logprobs(at::ones({1, 1}), logits, at::tensor({2}, at::kLong), 1.0, true);
  CHECK(hand.logprob.item<double>() == Approx(std::log(0.625)));
  const double entropy =
      -(0.125 * std::log(0.125) + 0.25 * std::log(0.25) + 0.625 * std::log(0.625));
  CHECK(hand.entropy.item<double>() == Approx(entropy));
}

TEST_CASE("a distribution that is all but certain has entropy near zero", "[core][cpu][ops]") {
  const at::Tensor head = at::tensor({500.0f, -500.0f, 0.0f}).unsqueeze(1);
  const auto out =
      ops::token_logprobs(at::ones({1, 1}), head, at::tensor({0}, at::kLong), 1.0, true);
  CHECK(out.logprob.item<double>() == 0.0);
  CHECK(out.entropy.item<double>() == 0.0);
}

TEST_CASE("token_logprobs of bfloat16 is float32", "[core][cpu][ops]") {
  at::manual_seed(4);
  const at::Tensor hidden = at::randn({5, 16}).to(at::kBFloat16),
                   head = at::randn({20, 16}).to(at::kBFloat16);
  const at::Tensor leaf = head.clone().set_requires_grad(true);
  const auto out = ops::token_logprobs(hidden, leaf, at::arange(5, at::kLong), 1.0, true);
  CHECK(out.logprob.scalar_type() == at::kFloat);
  out.logprob.sum().backward();
  CHECK(leaf.grad().scalar_type() == at::kBFloat16);
}

TEST_CASE("a large vocabulary's logits are never held, in neither direction", "[core][cpu][ops]") {
  constexpr int64_t kRows = 1500, kWidth = 16, kVocabulary = 150'000;
  at::manual_seed(8);
  const at::Tensor hidden = at::randn({kRows, kWidth}).set_requires_grad(true);
  const at::Tensor head = at::randn({kVocabulary, kWidth}).set_requires_grad(true);
  const at::Tensor targets = at::randint(0, kVocabulary, {kRows}, at::kLong);
  const testing::LiveBytes bytes;
  const auto out = ops::token_logprobs(hidden, head, targets, 0.9, true);
  const int64_t forward = bytes.peak();
  (out.logprob.sum() + out.entropy.sum()).backward();
  // All logits are 900 MB, a chunk of them 64 MiB, and the head's gradient 10 MB.
  CHECK(forward < int64_t{90} << 20);
  CHECK(bytes.peak() < int64_t{230} << 20);
  CHECK(head.grad().isfinite().all().item<bool>());
}

TEST_CASE("token_logprobs takes no rows and refuses what does not fit", "[core][cpu][ops]") {
  const at::Tensor hidden = at::zeros({2, 4}), head = at::zeros({3, 4});
  const at::Tensor targets = at::tensor({0, 2}, at::kLong);
  const at::Tensor none = at::empty({0}, at::kLong);
  CHECK(ops::token_logprobs(at::zeros({0, 4}), head, none, 1.0, true).entropy.size(0) == 0);
  const at::Tensor leaf = head.clone().set_requires_grad(true);
  ops::token_logprobs(at::zeros({0, 4}), leaf, none).logprob.sum().backward();
  CHECK(at::equal(leaf.grad(), at::zeros({3, 4})));
  CHECK_THROWS_AS(ops::token_logprobs(hidden, at::zeros({3, 5}), targets), ShapeError);
  CHECK_THROWS_AS(ops::token_logprobs(hidden, head, targets.narrow(0, 0, 1)), ShapeError);
  CHECK_THROWS_AS(ops::token_logprobs(hidden, head, targets, 0.0), InvalidArgument);
  CHECK_THROWS_WITH(ops::token_logprobs(hidden, head, targets + 1),
                    Catch::Contains("targets[1] is 3; wanted 0 to 2"));
}

}  // namespace praetor
