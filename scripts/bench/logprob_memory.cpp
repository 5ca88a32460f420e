// Peak of live tensor bytes of log-probabilities with entropy, forward and backward:
//   logprob_memory [TOKENS [VOCABULARY [WIDTH]]]
#include <ATen/ATen.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "core/model/ops.h"
#include "tests/support/live_bytes.h"

int main(int argc, char** argv) {
  const auto given = [&](int i, int64_t fallback) {
    return argc > i ? std::strtoll(argv[i], nullptr, 10) : fallback;
  };
  const int64_t tokens = given(1, 16384), vocabulary = given(2, 150'000), width = given(3, 64);
  at::manual_seed(1);
  const at::Tensor hidden = at::randn({tokens, width}).set_requires_grad(true);
  const at::Tensor head = at::randn({vocabulary, width}).set_requires_grad(true);
  const at::Tensor targets = at::randint(0, vocabulary, {tokens}, at::kLong);
  const auto start = std::chrono::steady_clock::now();
  const praetor::testing::LiveBytes bytes;
  const auto out = praetor::ops::token_logprobs(hidden, head, targets, 1.0, true);
  const int64_t forward = bytes.peak();
  (out.logprob.sum() + out.entropy.sum()).backward();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf(
      "{\"case\": \"logprob_memory\", \"tokens\": %lld, \"vocabulary\": %lld, \"width\": %lld, "
      "\"logits_bytes\": %lld, \"forward_peak_bytes\": %lld, \"peak_bytes\": %lld, "
      "\"seconds\": %.1f}\n",
      static_cast<long long>(tokens),
      static_cast<long long>(vocabulary),
      static_cast<long long>(width),
      static_cast<long long>(4 * tokens * vocabulary),
      static_cast<long long>(forward),
      static_cast<long long>(bytes.peak()),
      seconds.count());
  return 0;
}
