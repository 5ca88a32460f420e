#include "core/base/random.h"

#include <algorithm>
#include <set>

#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("philox gives the published known answers", "[core][cpu]") {
  // kat_vectors of Random123, philox4x32-10.
  CHECK(philox({0, 0, 0, 0}, {0, 0}) ==
        std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
        std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("every field of the sample key changes the number", "[core][cpu]") {
  const SampleKey base{.job_seed = 7, .stage = 1, .prompt_ordinal = 5, .sample_index = 2};
  std::set<double> seen{uniform(base, 0), uniform(base, 1)};
  auto with = [&](auto change) {
    SampleKey key = base;
    change(key);
    return uniform(key, 0);
  };
  seen.insert(with([](SampleKey& k) { k.job_seed += uint64_t{1} << 32; }));
  seen.insert(with([](SampleKey& k) { k.stage = 2; }));
  seen.insert(with([](SampleKey& k) { k.prompt_ordinal += uint64_t{1} << 40; }));
  seen.insert(with([](SampleKey& k) { k.sample_index = 3; }));
  seen.insert(with([](SampleKey& k) { k.purpose = Purpose::kOpponent; }));
  CHECK(seen.size() == 7);
  for (const double u : seen) CHECK((u >= 0 && u < 1));
}

TEST_CASE("a permutation holds each index once and normals have unit variance", "[core][cpu]") {
  RandomStream stream(SampleKey{.job_seed = 3, .purpose = Purpose::kShuffle});
  auto order = stream.permutation(100);
  CHECK_FALSE(std::is_sorted(order.begin(), order.end()));
  std::sort(order.begin(), order.end());
  for (int64_t i = 0; i < 100; ++i) CHECK(order[static_cast<size_t>(i)] == i);
  double sum = 0, squares = 0;
  for (int i = 0; i < 20000; ++i) {
    const double x = stream.normal();
    sum += x;
    squares += x * x;
  }
  CHECK(std::abs(sum / 20000) < 0.03);
  CHECK(squares / 20000 == Approx(1.0).margin(0.05));
}

}  // namespace praetor
