#include "rollout/sampler.h"

#include <ATen/ATen.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/base/error.h"
#include "core/base/threads.h"
#include "core/model/ops.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

at::Tensor example() {
  return at::tensor({2.0F, -1.0F, 0.5F, 1.0F, 0.0F, -3.0F, 1.5F, 0.25F}).unsqueeze(0);
}

SampledToken one(const at::Tensor& logits,
                 const SamplingParams& params,
                 uint32_t position = 0,
                 const SeenTokens* seen = nullptr) {
  Sampler sampler;
  std::vector<SampledToken> out;
  const SampleRow row{.params = &params, .key = {}, .position = position, .seen = seen};
  sampler.sample(logits, {&row, 1}, out);
  REQUIRE(out.size() == 1);
  return out[0];
}

// What each token's sampled log-probability is, for those that get drawn within many positions.
std::vector<double> sampled_logprobs(const SamplingParams& params, const SeenTokens* seen) {
  std::vector<double> found(8, -std::numeric_limits<double>::infinity());
  for (uint32_t position = 0; position < 4000; ++position) {
    const SampledToken t = one(example(), params, position, seen);
    found[static_cast<size_t>(t.token)] = t.sampled_logprob;
  }
  return found;
}

bool same_bits(float a, float b) {
  return std::memcmp(&a, &b, sizeof(a)) == 0;
}

}  // namespace

TEST_CASE("penalty and temperature give transformers' distribution", "[rollout][cpu]") {
  // transformers 5: RepetitionPenaltyLogitsProcessor(1.3) over ids 0, 1, 6, 0, 4, then
  // TemperatureLogitsWarper(0.7), then log_softmax. Id 5 has probability 0.0006.
  const std::vector<double> wanted = {-0.938482404,
                                      -4.99342728,
                                      -2.42199898,
                                      -1.70771325,
                                      -3.13628483,
                                      -7.42199898,
                                      -1.48793304,
                                      -2.7791419};
  SeenTokens seen(8);
  for (const int64_t id : {0, 1, 6, 0, 4}) seen.add(id);
  CHECK(seen.ids() == std::vector<int64_t>{0, 1, 6, 4});
  const SamplingParams params{.temperature = 0.7, .repetition_penalty = 1.3};
  const auto found = sampled_logprobs(params, &seen);
  for (size_t id = 0; id < 8; ++id) {
    if (id != 5 || std::isfinite(found[id])) CHECK(found[id] == Approx(wanted[id]).margin(1e-5));
  }
}

TEST_CASE("penalty, temperature, top-k and top-p give transformers' distribution",
          "[rollout][cpu]") {
  // As above, then TopKLogitsWarper(5), TopPLogitsWarper(0.8): ids 0, 3, 6 with these
  // log-probabilities; their share before truncation is 0.7983.
  SeenTokens seen(8);
  for (const int64_t id : {0, 1, 6, 0, 4}) seen.add(id);
  const SamplingParams params{
      .temperature = 0.7, .top_k = 5, .top_p = 0.8, .repetition_penalty = 1.3};
  const auto found = sampled_logprobs(params, &seen);
  for (const size_t id : {1, 2, 4, 5, 7}) CHECK_FALSE(std::isfinite(found[id]));
  CHECK(found[0] == Approx(-0.7133).margin(1e-4));
  CHECK(found[3] == Approx(-1.4825).margin(1e-4));
  CHECK(found[6] == Approx(-1.2627).margin(1e-4));
  CHECK(one(example(), params, 0, &seen).kept_mass == Approx(0.7983).margin(1e-4));
}

TEST_CASE("penalty, temperature and min-p give transformers' distribution", "[rollout][cpu]") {
  // As above with MinPLogitsWarper(0.2) in place of top-k and top-p.
  SeenTokens seen(8);
  for (const int64_t id : {0, 1, 6, 0, 4}) seen.add(id);
  const SamplingParams params{.temperature = 0.7, .min_p = 0.2, .repetition_penalty = 1.3};
  const auto found = sampled_logprobs(params, &seen);
  for (const size_t id : {1, 4, 5, 7}) CHECK_FALSE(std::isfinite(found[id]));
  CHECK(found[0] == Approx(-0.8187).margin(1e-4));
  CHECK(found[2] == Approx(-2.3022).margin(1e-4));
  CHECK(found[3] == Approx(-1.5879).margin(1e-4));
  CHECK(found[6] == Approx(-1.3681).margin(1e-4));
}

TEST_CASE("the three log-probabilities measure three distributions", "[rollout][cpu]") {
  // log_softmax of the logits at temperatures 1 and 0.7 (torch): ids 0 and 6.
  const SamplingParams params{.temperature = 0.7, .top_k = 2};
  for (uint32_t position = 0; position < 50; ++position) {
    const SampledToken t = one(example(), params, position);
    REQUIRE((t.token == 0 || t.token == 6));
    CHECK(t.model_logprob == Approx(t.token == 0 ? -0.9412 : -1.4412).margin(1e-4));
    CHECK(t.behavior_logprob == Approx(t.token == 0 ? -0.6934 : -1.4077).margin(1e-4));
    // Of the two alone: sigmoid(0.5 / 0.7) = 0.67133.
    CHECK(t.sampled_logprob == Approx(std::log(t.token == 0 ? 0.67133 : 0.32867)).margin(1e-4));
  }
}

TEST_CASE("temperature zero takes the largest penalised logit", "[rollout][cpu]") {
  const SamplingParams plain{.temperature = 0.0, .top_k = 3};
  const SampledToken first = one(example(), plain);
  CHECK(first.token == 0);
  CHECK(first.model_logprob == Approx(-0.9412).margin(1e-4));
  CHECK(same_bits(first.model_logprob, first.behavior_logprob));
  // 2 / 1.5 = 1.33 falls behind id 6 with 1.5.
  SeenTokens seen(8);
  seen.add(0);
  const SamplingParams penalised{.temperature = 0.0, .repetition_penalty = 1.5};
  CHECK(one(example(), penalised, 0, &seen).token == 6);
  // Negative logits are multiplied: -1 * 1.5 falls behind -1.2.
  SeenTokens negative(2);
  negative.add(0);
  CHECK(one(at::tensor({-1.0F, -1.2F}).unsqueeze(0), penalised, 0, &negative).token == 1);
}

TEST_CASE("a draw depends on its own row, key and position alone", "[rollout][cpu]") {
  const int before = threads();
  const at::Tensor logits = at::randn({40, 3000}) * 3;
  std::vector<SamplingParams> params(4);
  params[1].temperature = 0.6;
  params[2].top_p = 0.9;
  params[3].temperature = 1.7;
  params[3].top_k = 20;
  std::vector<SampleRow> rows;
  for (int64_t i = 0; i < 40; ++i) {
    rows.push_back({.logits_row = i,
                    .params = &params[static_cast<size_t>(i % 4)],
                    .key = {.job_seed = 3, .prompt_ordinal = static_cast<uint64_t>(i)},
                    .position = 7});
  }
  Sampler sampler;
  std::vector<SampledToken> together;
  for (const int count : {2, 1}) {
    set_threads(count);
    sampler.sample(logits, rows, together);
    for (size_t i = 0; i < rows.size(); ++i) {
      SampleRow row = rows[i];
      row.logits_row = 0;
      std::vector<SampledToken> alone;
      Sampler().sample(logits.narrow(0, static_cast<int64_t>(i), 1), {&row, 1}, alone);
      CHECK(together[i].token == alone[0].token);
      CHECK(same_bits(together[i].model_logprob, alone[0].model_logprob));
      CHECK(same_bits(together[i].behavior_logprob, alone[0].behavior_logprob));
      CHECK(same_bits(together[i].sampled_logprob, alone[0].sampled_logprob));
    }
  }
  set_threads(before);
}

TEST_CASE("rows may draw from the same logits at different temperatures", "[rollout][cpu]") {
  const at::Tensor logits = example();
  const SamplingParams cold{.temperature = 0.5};
  const SamplingParams warm{.temperature = 2.0};
  const std::vector<SampleRow> rows = {{.params = &cold, .key = {.sample_index = 0}},
                                       {.params = &cold, .key = {.sample_index = 1}},
                                       {.params = &warm, .key = {.sample_index = 2}}};
  std::vector<SampledToken> out;
  Sampler().sample(logits, rows, out);
  for (size_t i = 0; i < rows.size(); ++i) {
    const at::Tensor wanted = ops::log_softmax(logits / rows[i].params->temperature);
    CHECK(same_bits(out[i].behavior_logprob, wanted[0][out[i].token].item<float>()));
  }
}

TEST_CASE("logits that are not finite are refused", "[rollout][cpu]") {
  at::Tensor logits = example();
  logits[0][3] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(one(logits, {}), DataError);
  CHECK_THROWS_AS(one(logits, {.temperature = 0.0}), DataError);
}

}  // namespace praetor
