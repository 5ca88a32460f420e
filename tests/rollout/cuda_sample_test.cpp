#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/base/error.h"
#include "core/cuda/decoder.h"
#include "core/cuda/kernels/sample.h"
#include "rollout/draw.h"
#include "rollout/sampler.h"
#include "tests/support/catch.h"
#include "tests/support/processor_device.h"

// The GPU's sampler (core/cuda/kernels/sample.h) on threads of the processor, against the engine's.
namespace praetor {

using cuda::SampleResult;
using cuda::SampleSpec;

namespace {

std::vector<SampleResult> sample(const at::Tensor& logits,
                                 const std::vector<SampleSpec>& specs,
                                 int threads) {
  std::vector<SampleResult> out(specs.size());
  testing::run_kernel(cuda::SampleKernel{logits.const_data_ptr<float>(),
                                         specs.data(),
                                         out.data(),
                                         static_cast<int64_t>(specs.size()),
                                         logits.size(1)},
                      threads);
  return out;
}

SampleSpec spec_of(int32_t row, const SamplingParams& p, const SampleKey& key, uint32_t position) {
  return cuda::sample_spec(row, p.temperature, p.top_k, p.top_p, p.min_p, key, position);
}

std::vector<SamplingParams> all_params() {
  std::vector<SamplingParams> out;
  for (const double temperature : {0.0, 0.6, 1.0, 1.7}) {
    for (const int64_t top_k : {0, 1, 5, 40, 100000}) {
      for (const double top_p : {1.0, 0.9, 0.3, 1e-6}) {
        for (const double min_p : {0.0, 0.05}) {
          SamplingParams p;
          p.temperature = temperature;
          p.top_k = top_k;
          p.top_p = top_p;
          p.min_p = min_p;
          out.push_back(p);
        }
      }
    }
  }
  return out;
}

}  // namespace

TEST_CASE("the GPU draws the tokens that the engine's sampler draws", "[rollout][cpu][cuda]") {
  at::manual_seed(1);
  for (const int64_t vocab : {1, 7, 300, 5000}) {
    at::Tensor logits = at::randn({3, vocab}) * 4;
    // Equal logits: rounded to quarters, many are.
    logits[1].copy_((logits[1] * 4).round() / 4);
    logits[2].fill_(1.5);
    if (vocab > 1) logits[2][0] = -std::numeric_limits<float>::infinity();
    std::vector<SampleSpec> specs;
    std::vector<SampleRow> rows;
    const std::vector<SamplingParams> params = all_params();
    uint32_t position = 0;
    for (const SamplingParams& p : params) {
      for (int32_t row = 0; row < 3; ++row) {
        const SampleKey key{.job_seed = 0x123456789AULL,
                            .stage = 3,
                            .prompt_ordinal = (uint64_t{1} << 40) + position,
                            .sample_index = position % 5};
        specs.push_back(spec_of(row, p, key, position));
        rows.push_back({row, &p, key, position});
        ++position;
      }
    }
    std::vector<SampledToken> wanted;
    Sampler().sample(logits, rows, wanted);
    const std::vector<SampleResult> got = sample(logits, specs, 1);
    int64_t tokens = 0;
    double apart = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      tokens += got[i].token != wanted[i].token;
      for (const double difference : {got[i].model_logprob - wanted[i].model_logprob,
                                      got[i].behavior_logprob - wanted[i].behavior_logprob,
                                      got[i].sampled_logprob - wanted[i].sampled_logprob,
                                      got[i].kept_mass - wanted[i].kept_mass})
        apart = std::max(apart, std::abs(difference));
    }
    INFO(vocab << " tokens");
    CHECK(tokens == 0);
    CHECK(apart < 4e-6);
  }
}

TEST_CASE("a token does not depend on the number of threads", "[rollout][cpu][cuda]") {
  at::manual_seed(2);
  const at::Tensor logits = at::randn({1, 700}) * 3;
  std::vector<SampleSpec> specs;
  for (uint32_t i = 0; i < 6; ++i) {
    SamplingParams p;
    p.temperature = 0.8;
    p.top_k = i % 2 == 0 ? 50 : 0;
    p.top_p = i % 3 == 0 ? 0.9 : 1.0;
    specs.push_back(spec_of(0, p, {.job_seed = 7}, i));
  }
  const std::vector<SampleResult> alone = sample(logits, specs, 1);
  for (const int threads : {2, 5}) {
    const std::vector<SampleResult> together = sample(logits, specs, threads);
    for (size_t i = 0; i < specs.size(); ++i) {
      CHECK(together[i].token == alone[i].token);
      CHECK(together[i].sampled_logprob == alone[i].sampled_logprob);
    }
  }
}

TEST_CASE("the least and the greatest random number draw a kept token", "[rollout][cpu][cuda]") {
  // The kernel's number comes from a counter: look for small and large ones among many.
  at::manual_seed(3);
  const at::Tensor logits = at::randn({1, 50});
  SamplingParams p;
  p.top_p = 0.5;
  DrawScratch scratch;
  double least = 1, most = 0;
  for (uint32_t position = 0; position < 3000; ++position) {
    const SampleKey key{.job_seed = 11};
    const double u = uniform(key, position);
    if (u > least && u < most) continue;
    least = std::min(least, u);
    most = std::max(most, u);
    const SampleResult got = sample(logits, {spec_of(0, p, key, position)}, 1).front();
    const Drawn wanted = draw({logits.const_data_ptr<float>(), 50}, {.top_p = 0.5}, u, scratch);
    CHECK(got.token == wanted.id);
  }
  CHECK(least < 0.002);
  CHECK(most > 0.998);
}

TEST_CASE("rows that are not finite are told, not drawn from", "[rollout][cpu][cuda]") {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    at::Tensor logits = at::zeros({1, 9});
    logits[0][4] = bad;
    CHECK(sample(logits, {spec_of(0, {}, {}, 0)}, 2).front().token == -1);
  }
  const at::Tensor barred = at::full({1, 9}, -std::numeric_limits<float>::infinity());
  CHECK(sample(barred, {spec_of(0, {}, {}, 0)}, 1).front().token == -1);
}

}  // namespace praetor
