#include "rollout/draw.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

#include "core/base/error.h"
#include "core/base/random.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Logits of probabilities 0.1, 0.2, 0.3, 0.4.
std::vector<float> four() {
  return {std::log(0.1F), std::log(0.2F), std::log(0.3F), std::log(0.4F)};
}

int64_t drawn(const std::vector<float>& z, const Truncation& cut, double u) {
  DrawScratch scratch;
  return draw(z, cut, u, scratch).id;
}

// The ids that some u can draw.
std::set<int64_t> support(const std::vector<float>& z, const Truncation& cut) {
  DrawScratch scratch;
  std::set<int64_t> ids;
  for (int i = 0; i < 2000; ++i) ids.insert(draw(z, cut, i / 2000.0, scratch).id);
  return ids;
}

std::vector<float> normal_logits(size_t n, double scale, uint64_t seed) {
  RandomStream stream({.job_seed = seed, .purpose = Purpose::kInitialise});
  std::vector<float> z(n);
  for (float& value : z) value = static_cast<float>(scale * stream.normal());
  return z;
}

// The definition, with a full sort: ids kept, ascending. Weights by the same exponential come from
// a draw without truncation.
std::vector<int64_t> kept_by_sorting(const std::vector<float>& z, const Truncation& cut) {
  DrawScratch scratch;
  draw(z, {}, 0.0, scratch);
  const std::vector<float>& w = scratch.weights;
  std::vector<int64_t> order(z.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return z[static_cast<size_t>(a)] > z[static_cast<size_t>(b)];
  });
  const auto mass = [&](std::vector<int64_t> ids) {
    std::sort(ids.begin(), ids.end());
    double sum = 0;
    for (const int64_t id : ids) sum += w[static_cast<size_t>(id)];
    return sum;
  };
  if (cut.top_k > 0) order.resize(std::min(order.size(), static_cast<size_t>(cut.top_k)));
  if (cut.top_p < 1) {
    const double total = mass(order);
    double before = 0;
    size_t count = 0;
    while (count < order.size() && (count == 0 || before < cut.top_p * total)) {
      before += w[static_cast<size_t>(order[count++])];
    }
    order.resize(count);
  }
  std::erase_if(order, [&](int64_t id) { return w[static_cast<size_t>(id)] < cut.min_p; });
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace

TEST_CASE("u picks the first id whose cumulative probability exceeds it", "[rollout][cpu]") {
  // Cumulative: 0.1, 0.3, 0.6, 1.0.
  const auto z = four();
  CHECK(drawn(z, {}, 0.0) == 0);
  CHECK(drawn(z, {}, 0.0999) == 0);
  CHECK(drawn(z, {}, 0.1001) == 1);
  CHECK(drawn(z, {}, 0.2999) == 1);
  CHECK(drawn(z, {}, 0.3001) == 2);
  CHECK(drawn(z, {}, 0.5999) == 2);
  CHECK(drawn(z, {}, 0.6001) == 3);
  CHECK(drawn(z, {}, 1.0 - 0x1p-53) == 3);
  // Exactly at a boundary the id before it does not exceed u: 0.5 of two equal ids is the second.
  CHECK(drawn({1.0F, 1.0F}, {}, 0.5) == 1);
}

TEST_CASE("truncation keeps what it says and renormalises", "[rollout][cpu]") {
  const auto z = four();
  DrawScratch scratch;
  // top-k 2 keeps ids 2 and 3, of mass 0.7: 3/7 and 4/7.
  CHECK(drawn(z, {.top_k = 2}, 0.4285) == 2);
  CHECK(drawn(z, {.top_k = 2}, 0.4287) == 3);
  Drawn d = draw(z, {.top_k = 2}, 0.0, scratch);
  CHECK(d.kept_mass == Approx(0.7));
  CHECK(d.logprob == Approx(std::log(3.0 / 7.0)));
  // top-p: 0.4 alone is short of 0.5, so 0.3 is kept as well; 0.75 needs 0.2 too.
  CHECK(support(z, {.top_p = 0.5}) == std::set<int64_t>{2, 3});
  CHECK(support(z, {.top_p = 0.75}) == std::set<int64_t>{1, 2, 3});
  CHECK(support(z, {.top_p = 0.39}) == std::set<int64_t>{3});
  d = draw(z, {.top_p = 0.75}, 0.0, scratch);
  CHECK(d.id == 1);
  CHECK(d.kept_mass == Approx(0.9));
  CHECK(d.logprob == Approx(std::log(2.0 / 9.0)));
  // min-p 0.6 of the largest, 0.4, is 0.24.
  CHECK(support(z, {.min_p = 0.6}) == std::set<int64_t>{2, 3});
  d = draw(z, {.min_p = 0.6}, 0.0, scratch);
  CHECK(d.kept_mass == Approx(0.7));
  CHECK(d.logprob == Approx(std::log(3.0 / 7.0)));
  // top-p counts what top-k left: 3/7, 4/7, and 0.5 < 4/7.
  CHECK(support(z, {.top_k = 2, .top_p = 0.5}) == std::set<int64_t>{3});
  CHECK(support(z, {.top_k = 3, .top_p = 0.99, .min_p = 0.6}) == std::set<int64_t>{2, 3});
}

TEST_CASE("without truncation the mass is one and the log-probability the model's",
          "[rollout][cpu]") {
  DrawScratch scratch;
  const Drawn d = draw(four(), {}, 0.2, scratch);
  CHECK(d.kept_mass == 1.0F);
  CHECK(d.logprob == Approx(std::log(0.2)));
}

TEST_CASE("the edges of truncation", "[rollout][cpu]") {
  const auto z = four();
  CHECK(support(z, {.top_k = 1}) == std::set<int64_t>{3});
  CHECK(support(z, {.top_k = 4}) == std::set<int64_t>{0, 1, 2, 3});
  CHECK(support(z, {.top_k = 1000}) == std::set<int64_t>{0, 1, 2, 3});
  CHECK(support(z, {.top_p = 1e-12}) == std::set<int64_t>{3});
  CHECK(support(z, {.min_p = 0.999999}) == std::set<int64_t>{3});
  CHECK(support({0.5F}, {.top_k = 1, .top_p = 0.1, .min_p = 0.5}) == std::set<int64_t>{0});
}

TEST_CASE("equal logits at the edge of top-k and top-p: the lower ids stay", "[rollout][cpu]") {
  const std::vector<float> z = {1.0F, 2.0F, 1.0F, 1.0F, 2.0F, 1.0F};
  CHECK(support(z, {.top_k = 3}) == std::set<int64_t>{0, 1, 4});
  CHECK(support(z, {.top_k = 4}) == std::set<int64_t>{0, 1, 2, 4});
  CHECK(support({3.0F, 3.0F, 3.0F, 3.0F}, {.top_p = 0.5}) == std::set<int64_t>{0, 1});
}

TEST_CASE("an id of weight zero is never drawn", "[rollout][cpu]") {
  CHECK(support({-kInfinity, 0.0F, -kInfinity, 0.0F, -kInfinity}, {}) == std::set<int64_t>{1, 3});
  CHECK(support({-kInfinity, 0.0F, -200.0F}, {.top_k = 2}) == std::set<int64_t>{1});
  CHECK(drawn({-kInfinity, 0.0F, -kInfinity}, {}, 1.0 - 0x1p-53) == 1);
}

TEST_CASE("unusable logits are refused", "[rollout][cpu]") {
  DrawScratch scratch;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const std::vector<float>& z : {std::vector<float>{0.0F, nan, 1.0F},
                                      std::vector<float>{nan, 0.0F},
                                      std::vector<float>{-nan, 0.0F},
                                      std::vector<float>{kInfinity, 0.0F},
                                      std::vector<float>{-kInfinity, -kInfinity}}) {
    CHECK_THROWS_AS(draw(z, {}, 0.5, scratch), DataError);
    CHECK_THROWS_AS(draw(z, {.top_p = 0.5}, 0.5, scratch), DataError);
    CHECK_THROWS_AS(argmax(z), DataError);
  }
}

TEST_CASE("greedy takes the lowest of equal ids", "[rollout][cpu]") {
  CHECK(argmax(std::vector<float>{0.0F, 3.0F, 3.0F, -1.0F}) == 1);
  CHECK(argmax(std::vector<float>{-kInfinity, -5.0F}) == 1);
}

TEST_CASE("the weights are exp to float32's precision", "[rollout][cpu]") {
  std::vector<float> z = {0.0F};
  for (float x = -0.001F; x > -95.0F; x = x * 1.01F - 0.001F) z.push_back(x);
  DrawScratch scratch;
  draw(z, {}, 0.0, scratch);
  CHECK(scratch.weights[0] == 1.0F);
  for (size_t i = 0; i < z.size(); ++i) {
    const double exact = z[i] < -87.0F ? 0.0 : std::exp(static_cast<double>(z[i]));
    CHECK(std::abs(scratch.weights[i] - exact) <= 2.5e-7 * exact);
  }
}

TEST_CASE("a weight does not depend on where its id stands", "[rollout][cpu]") {
  // Vector bodies and scalar tails must round alike.
  const auto z = normal_logits(67, 5.0, 3);
  const float top = 30.0F;
  for (size_t shift = 0; shift < 20; ++shift) {
    std::vector<float> moved(shift, top);
    moved.push_back(top);
    moved.insert(moved.end(), z.begin(), z.end());
    DrawScratch a;
    DrawScratch b;
    draw(moved, {}, 0.0, a);
    std::vector<float> plain = {top};
    plain.insert(plain.end(), z.begin(), z.end());
    draw(plain, {}, 0.0, b);
    for (size_t i = 0; i < z.size(); ++i) {
      CHECK(a.weights[shift + 1 + i] == b.weights[1 + i]);
    }
  }
}

TEST_CASE("draws follow the distribution", "[rollout][cpu]") {
  // Chi-square with 63 degrees of freedom: the 99.9th percentile is 103.4, the 0.1st 34.0.
  const auto z = normal_logits(64, 1.0, 11);
  double total = 0;
  for (const float value : z) total += std::exp(static_cast<double>(value));
  constexpr int kDraws = 200000;
  std::vector<int> counts(z.size(), 0);
  DrawScratch scratch;
  const SampleKey key{.job_seed = 5};
  for (uint32_t i = 0; i < kDraws; ++i) {
    ++counts[static_cast<size_t>(draw(z, {}, uniform(key, i), scratch).id)];
  }
  double chi2 = 0;
  for (size_t i = 0; i < z.size(); ++i) {
    const double expected = kDraws * std::exp(static_cast<double>(z[i])) / total;
    chi2 += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  CHECK(chi2 > 34.0);
  CHECK(chi2 < 103.4);
}

TEST_CASE("the head found without a full sort is the one a full sort gives", "[rollout][cpu]") {
  DrawScratch scratch;
  for (const size_t n : {size_t{7}, size_t{512}, size_t{5000}}) {
    for (const double scale : {0.0, 0.01, 1.0, 6.0, 60.0}) {
      auto z = normal_logits(n, scale, n);
      // Ties, as from rounded logits.
      for (float& value : z) value = std::round(value * 64.0F) / 64.0F;
      for (const Truncation& cut : {Truncation{.top_k = 1},
                                    Truncation{.top_k = 40},
                                    Truncation{.top_k = 3000},
                                    Truncation{.top_p = 0.05},
                                    Truncation{.top_p = 0.9},
                                    Truncation{.top_p = 0.999999},
                                    Truncation{.top_k = 50, .top_p = 0.9},
                                    Truncation{.top_k = 50, .top_p = 0.9, .min_p = 0.1},
                                    Truncation{.top_p = 0.95, .min_p = 0.02}}) {
        const std::vector<int64_t> kept = kept_by_sorting(z, cut);
        double total = 0;
        const Drawn first = draw(z, cut, 0.0, scratch);
        for (const int64_t id : kept) total += scratch.weights[static_cast<size_t>(id)];
        INFO("V " << n << ", scale " << scale << ", top_k " << cut.top_k << ", top_p "
                  << cut.top_p);
        for (double u = 0.0; u < 1.0; u += 0.0101) {
          double sum = 0;
          int64_t wanted = -1;
          for (const int64_t id : kept) {
            sum += scratch.weights[static_cast<size_t>(id)];
            wanted = id;
            if (sum > u * total) break;
          }
          CHECK(draw(z, cut, u, scratch).id == wanted);
        }
        CHECK(first.kept_mass <= 1.0F);
      }
    }
  }
}

TEST_CASE("checkpoints of the running sum do not change the draw", "[rollout][cpu]") {
  // 5,000 ids span five blocks; compare with one plain running sum.
  const auto z = normal_logits(5000, 2.0, 21);
  DrawScratch scratch;
  draw(z, {}, 0.0, scratch);
  const std::vector<float> w = scratch.weights;
  double total = 0;
  for (const float weight : w) total += weight;
  const SampleKey key{.job_seed = 9};
  for (uint32_t i = 0; i < 2000; ++i) {
    const double u = uniform(key, i);
    double sum = 0;
    size_t wanted = 0;
    while (wanted < w.size() && (sum += w[wanted]) <= u * total) ++wanted;
    CHECK(draw(z, {}, u, scratch).id == static_cast<int64_t>(wanted));
  }
}

}  // namespace praetor
