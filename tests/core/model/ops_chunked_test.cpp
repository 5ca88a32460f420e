#include <ATen/ATen.h>

#include "core/model/ops.h"
#include "core/model/ops_reference.h"
#include "tests/support/catch.h"
#include "tests/support/emulated_device.h"

namespace praetor {

TEST_CASE("attention by some heads and rows at a time is that of all of them", "[core][cpu]") {
  at::manual_seed(3);
  const std::vector<int64_t> offsets{0, 7, 7, 12, 23}, prefix{-1, -1, 0, -1};
  const at::Tensor q = at::randn({23, 6, 8}), k = at::randn({23, 3, 8}), v = at::randn({23, 3, 8});
  for (const ops::AttentionOptions& how : {ops::AttentionOptions{},
                                           ops::AttentionOptions{.scale = 0.3, .softcap = 2},
                                           ops::AttentionOptions{.window = 4}}) {
    for (const auto& before : {std::vector<int64_t>{}, prefix}) {
      const at::Tensor wanted = ops::reference::causal_attention(q, k, v, offsets, how, before);
      // Scores of one row and head; of some rows; of all rows of two heads; of everything.
      for (const int64_t most : {int64_t{1}, int64_t{50}, int64_t{300}, int64_t{1} << 24}) {
        CAPTURE(most, how.window, before.size());
        CHECK(at::allclose(ops::reference::chunked_attention(q, k, v, offsets, how, before, most),
                           wanted,
                           1e-5,
                           1e-6));
      }
      const auto there = [](const at::Tensor& x) { return x.to(testing::emulated_device()); };
      CHECK(at::allclose(
          ops::causal_attention(there(q), there(k), there(v), offsets, how, before).cpu(),
          wanted,
          1e-5,
          1e-6));
    }
  }
}

}  // namespace praetor
