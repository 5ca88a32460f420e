#include "learners/optim/rounding.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <vector>

#include "learners/optim/optimizer.h"
#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("stochastic rounding takes a neighbour, and is unbiased", "[learners][cpu]") {
  constexpr int64_t kDraws = 20000;
  const uint64_t key = rounding_key(3, 1, "policy/w");
  std::vector<uint32_t> bits(kDraws);
  rounding_bits(key, 5, 0, kDraws, bits.data());
  // Half of the elements take the lower bits, half the upper ones: both must be uniform.
  for (const int shift : {0, 16}) {
    for (const float x : {1.001f, -1.001f, 3.14159f, 1e-30f, 0.99999f}) {
      const float low = from_bfloat16(static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16));
      const float high =
          from_bfloat16(static_cast<uint16_t>((std::bit_cast<uint32_t>(x) >> 16) + 1));
      double sum = 0;
      int64_t others = 0;
      for (const uint32_t b : bits) {
        const float y = from_bfloat16(round_stochastically(x, (b >> shift) & 0xffffu));
        others += y != low && y != high;
        sum += static_cast<double>(y);
      }
      CHECK(others == 0);
      // The mean of n draws of two values a step s apart has a deviation of at most s / (2 sqrt n).
      const double step = std::abs(static_cast<double>(high) - static_cast<double>(low));
      const double mean = sum / static_cast<double>(kDraws);
      CHECK(std::abs(mean - static_cast<double>(x)) <
            4 * step / (2 * std::sqrt(static_cast<double>(kDraws))));
    }
  }
}

TEST_CASE("numbers that bfloat16 has, infinities and NaN stay what they are", "[learners][cpu]") {
  const float inf = std::numeric_limits<float>::infinity();
  for (const uint32_t random : {0u, 1u, 0x8000u, 0xffffu}) {
    for (const float x : {0.0f, -0.0f, 1.0f, -0.15625f, inf, -inf}) {
      const float y = from_bfloat16(round_stochastically(x, random));
      CHECK(std::bit_cast<uint32_t>(y) == std::bit_cast<uint32_t>(x));
    }
    CHECK(std::isnan(from_bfloat16(round_stochastically(std::nanf(""), random))));
    // A NaN whose digits are all in the lower half.
    CHECK(
        std::isnan(from_bfloat16(round_stochastically(std::bit_cast<float>(0x7f800001u), random))));
  }
}

TEST_CASE("an element's random bits depend on key, step and index alone", "[learners][cpu]") {
  const uint64_t key = rounding_key(3, 1, "policy/w");
  std::vector<uint32_t> all(50), part(50), other(50);
  rounding_bits(key, 7, 100, 50, all.data());
  for (const int64_t begin : {0, 1, 3, 17}) {
    rounding_bits(key, 7, 100 + begin, 50 - begin, part.data());
    CHECK(std::equal(all.begin() + begin, all.end(), part.begin()));
  }
  rounding_bits(key, 8, 100, 50, other.data());
  CHECK(all != other);
  rounding_bits(rounding_key(3, 1, "policy/v"), 7, 100, 50, other.data());
  CHECK(all != other);
  CHECK(key != rounding_key(4, 1, "policy/w"));
  CHECK(key != rounding_key(3, 2, "policy/w"));
}

TEST_CASE("moments in bfloat16 follow their mean where rounding to the nearest would stand still",
          "[learners][cpu]") {
  // v <- v + (g^2 - v) / 1000: from v = 0.4 on a step is below half a unit in its last place, so
  // that the nearest number is always v itself. After 2000 steps of g = 1, v = 1 - 0.999^2000.
  const std::vector<NamedTensor> w{{"w", at::zeros({4096})}};
  OptimizerConfig config;
  config.state_dtype = at::kBFloat16;
  const auto optimizer = make_optimizer({.parameters = w, .owned = w}, config);
  w[0].tensor.mutable_grad() = at::ones({4096});
  for (int step = 0; step < 2000; ++step) optimizer->step(0);
  const at::Tensor v = optimizer->state()[1].tensor;
  CHECK(v.scalar_type() == at::kBFloat16);
  const double wanted = 1 - std::pow(0.999, 2000);
  // A single element strays by about sqrt(500 steps) units of 2^-8 / sqrt(12) of a step's chance;
  // the mean of 4096 of them by a 64th of that.
  CHECK(v.to(at::kDouble).mean().item<double>() == Approx(wanted).epsilon(2e-3));
  at::Tensor nearest = at::zeros({1}, at::kBFloat16);
  for (int step = 0; step < 2000; ++step)
    nearest = (nearest.to(at::kFloat) * 0.999 + 0.001).to(at::kBFloat16);
  CHECK(nearest.item<double>() < 0.6);
}

}  // namespace praetor
