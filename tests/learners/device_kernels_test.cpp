// AdamW of learners on a device by the GPU library's kernel (core/cuda/kernels/adamw.h), here run
// on threads of the processor, against LibTorch's operators on the same device.
#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/learners/sharding/cases.h"
#include "tests/learners/sharding/train_group.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/emulated_device.h"
#include "tests/support/processor_device.h"
#include "tests/support/ranks.h"

namespace praetor {

using namespace testing;

namespace {

/// Two updates either way: digests, weights and every moment have the same bits.
/// @return kernels that have run
int64_t check_same_bits(const std::string& name, int32_t world, CaseOptions options) {
  options.emulated = options.operators = true;
  int64_t before = processor_adamw_kernels();
  const Trained wanted = train(name, world, 0, 2, options);
  CHECK(wanted.errors == std::vector<std::string>(static_cast<size_t>(world)));
  CHECK(processor_adamw_kernels() == before);
  options.operators = false;
  const Trained got = train(name, world, 0, 2, options);
  check_same(got, wanted);
  REQUIRE(got.shards.size() == wanted.shards.size());
  for (size_t i = 0; i < got.shards.size(); ++i) {
    CAPTURE(got.shards[i].name);
    CHECK(got.shards[i].name == wanted.shards[i].name);
    CHECK(at::equal(got.shards[i].tensor, wanted.shards[i].tensor));
  }
  return processor_adamw_kernels() - before;
}

}  // namespace

TEST_CASE("AdamW by one kernel a piece has the bits of LibTorch's operators",
          "[learners][cpu][device]") {
  const OneThread one_thread;
  struct Layout {
    int32_t world;
    int64_t tensor, stage, group;
  };
  const LoraConfig lora{.rank = 3, .alpha = 6};
  for (const auto moments : {at::kFloat, at::kBFloat16}) {
    for (const Layout layout : {Layout{1, 1, 1, 0},
                                {2, 1, 1, 0},
                                {2, 1, 2, 0},
                                {2, 1, 3, 0},
                                {4, 1, 3, 2},
                                {2, 2, 1, 0}}) {
      for (const std::string name : {"ppo", "sft"}) {
        for (const bool adapted : {false, true}) {
          CAPTURE(moments, layout.world, layout.tensor, layout.stage, layout.group, name, adapted);
          CaseOptions options{.stage = layout.stage, .group = layout.group, .state_dtype = moments};
          options.tensor = layout.tensor;
          if (adapted) options.lora = lora;
          CHECK(check_same_bits(name, layout.world, options) >= 2 * layout.world);
        }
      }
    }
  }
}

TEST_CASE("AdamW by the kernel goes with bfloat16 and with every algorithm",
          "[learners][cpu][device]") {
  const OneThread one_thread;
  for (const std::string& name : learner_cases()) {
    if (name == "attribute_model" || name == "nash_md") continue;
    CAPTURE(name);
    CHECK(check_same_bits(name, 1, {.precision = at::kBFloat16}) >= 2);
  }
}

TEST_CASE("offloaded moments, and other optimizers, do without the kernel",
          "[learners][cpu][device]") {
  const OneThread one_thread;
  for (const auto moments : {at::kFloat, at::kBFloat16}) {
    for (const int32_t world : {1, 2}) {
      CAPTURE(moments, world);
      const CaseOptions options{
          .stage = world == 1 ? 1 : 3, .state_dtype = moments, .offload = true};
      CHECK(check_same_bits("sft", world, options) == 0);
    }
    CHECK(check_same_bits("sft", 1, {.optimizer = "sgd", .state_dtype = moments}) == 0);
  }
  CHECK(check_same_bits("sft", 1, {.optimizer = "adafactor"}) == 0);
}

}  // namespace praetor
