#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "core/model/ops.h"
#include "rollout/sampler.h"
#include "rollout/sampling_config.h"
#include "tests/rollout/grammar/piece_tokenizer.h"
#include "tests/support/catch.h"

// 200,000 draws of each sampler against the distribution that its definition gives in float64.

namespace praetor {
namespace {

constexpr int kDraws = 200'000;

const std::vector<double>& logits() {
  static const std::vector<double> kLogits = {2.0, -1.0, 0.5, 1.0, 0.0, -2.0, 1.5, 0.25};
  return kLogits;
}

const testing::PieceTokenizer& tokenizer() {
  static const testing::PieceTokenizer kPieces({"a", "b", "c", "ab", "bc", "1", "12"});
  return kPieces;
}

std::vector<double> softmax(const std::vector<double>& z) {
  std::vector<double> p;
  double total = 0;
  for (const double value : z) {
    p.push_back(std::exp(value));
    total += p.back();
  }
  for (double& value : p) value /= total;
  return p;
}

/// The quantile of chi-square by Wilson and Hilferty's cube, at `deviations` of a normal.
double quantile(double freedom, double deviations) {
  const double share = 2.0 / (9.0 * freedom);
  return freedom * std::pow(1.0 - share + deviations * std::sqrt(share), 3);
}

/// Draws behind the tokens `before`, and compares with `wanted`: probabilities, 0 where none may
/// be. Every draw reports its log-probability in that distribution and the share `kept`.
void check_draws(const SamplingParams& params,
                 const std::vector<int64_t>& before,
                 const std::vector<double>& wanted,
                 double kept = 1.0) {
  ProcessorCache cache(tokenizer(), tokenizer().vocab_size());
  cache.check(params, "request 0");
  const auto chain = cache.start(params, 0);
  SeenTokens seen(8);
  for (const int64_t token : before) {
    seen.add(token);
    if (chain) chain->push(token);
  }
  std::vector<float> z(logits().begin(), logits().end());
  const at::Tensor row = at::tensor(z).unsqueeze(0);
  std::vector<SampleRow> rows(1000);
  std::vector<int64_t> counts(8, 0);
  Sampler sampler;
  std::vector<SampledToken> out;
  REQUIRE(reshapes(params));
  for (uint32_t start = 0; start < kDraws; start += 1000) {
    for (uint32_t i = 0; i < 1000; ++i) {
      rows[i] = {.params = &params,
                 .key = {.job_seed = 77},
                 .position = start + i,
                 .seen = &seen,
                 .processors = chain.get()};
    }
    // So few logits are drawn from on one thread, where rows may share a chain.
    sampler.sample(row, rows, out);
    for (const SampledToken& drawn : out) {
      const auto id = static_cast<size_t>(drawn.token);
      if (counts[id]++ == 0) {
        CHECK(drawn.sampled_logprob == Approx(std::log(wanted[id])).margin(1e-5));
        CHECK(drawn.kept_mass == Approx(kept).margin(1e-5));
      }
    }
  }
  double chi2 = 0;
  double freedom = -1;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i] == 0) {
      CHECK(counts[i] == 0);
      continue;
    }
    const double expected = kDraws * wanted[i];
    chi2 += std::pow(static_cast<double>(counts[i]) - expected, 2) / expected;
    ++freedom;
  }
  if (freedom < 1) return;
  // The 99.9th percentile; too even would be as wrong, which several degrees can tell.
  CHECK(chi2 < quantile(freedom, 3.09));
  if (freedom > 4) CHECK(chi2 > quantile(freedom, -3.09));
}

/// The probabilities of min-p and its like: those of `p` that `keep` takes, renormalised.
std::vector<double> cut(std::vector<double> p, const std::function<bool(double)>& keep) {
  double total = 0;
  for (double& value : p) {
    if (!keep(value)) value = 0;
    total += value;
  }
  for (double& value : p) value /= total;
  return p;
}

std::vector<double> edited(const std::function<void(std::vector<double>&)>& edit) {
  std::vector<double> z = logits();
  edit(z);
  return softmax(z);
}

}  // namespace

TEST_CASE("draws follow truncated distributions", "[rollout][cpu]") {
  const std::vector<double> p = softmax(logits());
  const double top = *std::max_element(p.begin(), p.end());
  const auto kept = [&](const std::function<bool(double)>& keep) {
    double sum = 0;
    for (const double value : p) sum += keep(value) ? value : 0;
    return sum;
  };
  const auto min_p = [&](double value) { return value >= 0.2 * top; };
  check_draws({.min_p = 0.2}, {}, cut(p, min_p), kept(min_p));
  // The four most likely: ids 0, 6, 3, 2.
  const auto top_k = [&](double value) { return value >= p[2]; };
  check_draws({.top_k = 4}, {}, cut(p, top_k), kept(top_k));
  // The three most likely hold 0.39 + 0.24 + 0.14 = 0.77, the fourth makes 0.86.
  check_draws({.top_p = 0.8}, {}, cut(p, top_k), kept(top_k));
}

TEST_CASE("draws follow penalised distributions", "[rollout][cpu]") {
  check_draws({.repetition_penalty = 1.5}, {0, 1, 1}, edited([](auto& z) {
                z[0] /= 1.5;
                z[1] *= 1.5;
              }));
  SamplingParams params;
  params.temperature = 0.5;
  params.processors = {presence_penalty(0.75), frequency_penalty(0.5)};
  check_draws(params, {0, 6, 6}, edited([](auto& z) {
                z[0] -= 1.25;
                z[6] -= 1.75;
                for (double& value : z) value /= 0.5;
              }));
}

TEST_CASE("draws follow a biased distribution", "[rollout][cpu]") {
  SamplingParams params;
  params.temperature = 2;
  params.processors = {logit_bias(R"({"5":3,"0":-2})")};
  check_draws(params, {}, edited([](auto& z) {
                z[5] += 3;
                z[0] -= 2;
                for (double& value : z) value /= 2;
              }));
}

TEST_CASE("draws follow distributions with tokens barred", "[rollout][cpu]") {
  const auto barred = [](const std::vector<size_t>& ids) {
    return edited([&](auto& z) {
      for (const size_t id : ids) z[id] = kBarred;
    });
  };
  SamplingParams params;
  params.processors = {allowed_tokens({1, 3, 4, 7})};
  check_draws(params, {}, barred({0, 2, 5, 6}));
  params.processors = {bad_words("[[6],[2,3]]")};
  check_draws(params, {2}, barred({6, 3}));
  params.stop_tokens = {0, 4};
  params.processors = {min_new_tokens(3)};
  check_draws(params, {1, 1}, barred({0, 4}));
  // Behind "a" of (a|b)*c?1*: "a" "b" "c" "ab" "bc" "1" and the end 0, but not 4; not "12".
  params.stop_tokens = {0};
  params.processors = {regex_constraint("(a|b)*c?1*")};
  check_draws(params, {1}, barred({7}));
  params.processors = {regex_constraint("(a|b)*c")};
  check_draws(params, {1}, barred({0, 6, 7}));
}

TEST_CASE("truncation comes behind the processors", "[rollout][cpu]") {
  // Without id 0 the most likely is id 6, and a fifth of it keeps 3, 2, 7, 4 beside it.
  SamplingParams params;
  params.min_p = 0.2;
  params.processors = {bad_words("[[0]]")};
  const auto p = edited([](auto& z) { z[0] = kBarred; });
  const auto keep = [&](double value) { return value >= 0.2 * p[6]; };
  double kept = 0;
  for (const double value : p) kept += keep(value) ? value : 0;
  const auto wanted = cut(p, keep);
  CHECK(std::count(wanted.begin(), wanted.end(), 0.0) == 3);
  check_draws(params, {}, wanted, kept);
}

TEST_CASE("the most likely tokens are those of a full sort", "[rollout][cpu]") {
  at::manual_seed(3);
  // Rounded, so that many are equal.
  const at::Tensor rows = (at::randn({6, 300}) * 4).round() / 2;
  for (const int64_t k : {1, 5, 20}) {
    const SamplingParams params{.temperature = 0.7, .top_k = 3, .top_logprobs = k};
    std::vector<SampleRow> asked;
    for (int64_t i = 0; i < 6; ++i) asked.push_back({.logits_row = i, .params = &params});
    std::vector<SampledToken> out;
    Sampler().sample(rows, asked, out);
    const at::Tensor logprobs = ops::log_softmax(rows);
    for (int64_t i = 0; i < 6; ++i) {
      std::vector<TopLogprob> sorted;
      for (int64_t id = 0; id < 300; ++id) sorted.push_back({id, logprobs[i][id].item<float>()});
      std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
        return a.logprob > b.logprob;
      });
      sorted.resize(static_cast<size_t>(k));
      CHECK((out[static_cast<size_t>(i)].top == sorted));
    }
  }
  // A vocabulary smaller than what is asked for; none when none are.
  const SamplingParams many{.top_logprobs = 20};
  const SamplingParams none;
  const std::vector<SampleRow> asked = {{.params = &many}, {.params = &none}};
  std::vector<SampledToken> out;
  Sampler().sample(at::tensor({0.5F, 1.0F, 0.5F}).unsqueeze(0), asked, out);
  REQUIRE(out[0].top.size() == 3);
  CHECK(out[0].top[0].token == 1);
  CHECK(out[0].top[1].token == 0);
  CHECK(out[0].top[2].token == 2);
  CHECK(out[1].top.empty());
}

}  // namespace praetor
