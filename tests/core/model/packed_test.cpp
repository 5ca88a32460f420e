#include "core/model/packed.h"

#include <ATen/ATen.h>

#include "core/base/error.h"
#include "core/base/random.h"
#include "tests/support/catch.h"

namespace praetor {
namespace {

SharedPack shared(const std::vector<std::vector<int64_t>>& sequences) {
  return pack_shared({sequences.begin(), sequences.end()});
}

std::vector<int64_t> values(const at::Tensor& t) {
  return {t.const_data_ptr<int64_t>(), t.const_data_ptr<int64_t>() + t.numel()};
}

}  // namespace

TEST_CASE("neighbours share what saves most", "[core][cpu]") {
  // All begin with 0 1; the runs of 0 1 2 3 and of 0 1 7 save more.
  const SharedPack out =
      shared({{0, 1, 2, 3, 4}, {0, 1, 2, 3}, {0, 1, 2, 3, 5}, {0, 1, 7, 8}, {0, 1, 7, 9}});
  CHECK(values(out.packed.tokens) == std::vector<int64_t>{0, 1, 2, 3, 4, 5, 0, 1, 7, 8, 9});
  CHECK(out.packed.offsets == std::vector<int64_t>{0, 4, 5, 5, 6, 9, 10, 11});
  CHECK(out.packed.prefix == std::vector<int64_t>{-1, 0, 0, 0, -1, 4, 4});
  CHECK(values(out.last()) == std::vector<int64_t>{4, 3, 5, 9, 10});
  // One run of all: three times two tokens, against three tokens of the pair in the middle.
  CHECK(values(shared({{0, 1, 2}, {0, 1, 3}, {0, 1, 3}, {0, 1, 4}}).packed.tokens) ==
        std::vector<int64_t>{0, 1, 2, 3, 3, 4});
}

TEST_CASE("sequences that share nothing are packed as they are", "[core][cpu]") {
  const SharedPack out = shared({{1, 2}, {}, {3, 4}, {3, 5}});  // one token is not worth it
  CHECK(out.packed.prefix.empty());
  CHECK(out.packed.offsets == std::vector<int64_t>{0, 2, 2, 4, 6});
  CHECK_THROWS_AS(out.last(), InvalidArgument);
  CHECK(shared({}).packed.total() == 0);
}

TEST_CASE("sequences that a model rotates otherwise share nothing", "[core][cpu]") {
  const std::vector<std::vector<int64_t>> rows{{1, 2, 3}, {1, 2, 4}, {1, 2, 5, 6}, {1, 2, 5, 7}};
  const SharedPack out = pack_shared({rows.begin(), rows.end()}, 3);
  CHECK(out.packed.prefix == std::vector<int64_t>{-1, 0, 0, -1, 3, 3});
  CHECK(values(out.packed.tokens) == std::vector<int64_t>{1, 2, 3, 4, 1, 2, 5, 6, 7});
}

TEST_CASE("every row of a shared pack is the token it stands for", "[core][cpu]") {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    RandomStream stream({.job_seed = seed});
    std::vector<std::vector<int64_t>> sequences;
    const int64_t count = 1 + static_cast<int64_t>(stream.below(8));
    for (int64_t i = 0; i < count; ++i) {
      std::vector<int64_t> one(1 + stream.below(6));
      for (int64_t& token : one) token = static_cast<int64_t>(stream.below(2));
      sequences.push_back(one);
    }
    const SharedPack out = shared(sequences);
    const std::vector<int64_t> tokens = values(out.packed.tokens);
    for (int64_t i = 0; i < count; ++i) {
      const auto& one = sequences[static_cast<size_t>(i)];
      for (size_t p = 0; p < one.size(); ++p)
        CHECK(tokens[static_cast<size_t>(out.row(i, static_cast<int64_t>(p)))] == one[p]);
    }
  }
}

}  // namespace praetor
