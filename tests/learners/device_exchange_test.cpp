// Learner ranks whose tensors go from device to device (tests/support/emulated_device.h), over an
// emulated NCCL (tests/support/processor_communicator.h) that sums in rank order.
#include <string>
#include <vector>

#include "core/base/error.h"
#include "tests/learners/sharding/cases.h"
#include "tests/learners/sharding/train_group.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/emulated_device.h"
#include "tests/support/ranks.h"

namespace praetor {

using namespace testing;

namespace {

struct Layout {
  int32_t world;
  int64_t tensor, stage, group;
};

CaseOptions laid_out(const Layout& layout, CaseOptions options = {}) {
  options.emulated = true;
  options.tensor = layout.tensor;
  options.stage = layout.stage;
  options.group = layout.group;
  return options;
}

}  // namespace

TEST_CASE("what goes from device to device has the bits of what goes by the processor",
          "[learners][cpu][device]") {
  const OneThread one_thread;
  for (const std::string& name :
       std::vector<std::string>{"ppo", "ppo_shared", "sft", "dpo", "reward_model", "nash_ema"}) {
    for (const Layout layout : {Layout{2, 1, 1, 0},
                                {2, 1, 2, 0},
                                {2, 1, 3, 0},
                                {4, 1, 3, 2},
                                {2, 2, 1, 0},
                                {4, 2, 3, 0}}) {
      CAPTURE(name, layout.world, layout.tensor, layout.stage, layout.group);
      CaseOptions options = laid_out(layout, {.tied = name != "sft"});
      const Trained by_processor = train(name, layout.world, 0, 2, options);
      options.direct = true;
      check_same(train(name, layout.world, 0, 2, options), by_processor);
      CHECK(by_processor.errors == std::vector<std::string>(static_cast<size_t>(layout.world)));
    }
  }
}

TEST_CASE("adapters and bfloat16 go from device to device", "[learners][cpu][device]") {
  const OneThread one_thread;
  for (const Layout layout : {Layout{2, 1, 3, 0}, {2, 2, 1, 0}}) {
    for (const std::string name : {"ppo", "sft"}) {
      for (const bool adapted : {false, true}) {
        CAPTURE(name, layout.tensor, adapted);
        CaseOptions options = laid_out(layout, {.precision = at::kBFloat16});
        if (adapted) options.lora = LoraConfig{.rank = 3, .alpha = 6};
        const Trained by_processor = train(name, layout.world, 0, 2, options);
        CHECK(by_processor.errors == std::vector<std::string>(2));
        options.direct = true;
        check_same(train(name, layout.world, 0, 2, options), by_processor);
      }
    }
  }
}

TEST_CASE("nothing that ranks exchange is copied off the device", "[learners][cpu][device]") {
  const OneThread one_thread;
  for (const Layout layout : {Layout{2, 1, 3, 0}, {2, 2, 1, 0}}) {
    CaseOptions options = laid_out(layout);
    const auto copies = [&](int steps) {
      const int64_t before = emulated_transfers();
      CHECK(train("sft", 2, 0, steps, options).errors[0].empty());
      return emulated_transfers() - before;
    };
    const auto of_a_step = [&] { return copies(3) - copies(2); };
    const int64_t by_processor = of_a_step();
    options.direct = true;
    const int64_t direct = of_a_step();
    CAPTURE(layout.tensor, by_processor, direct);
    // What the ranks read of a step and say of it goes over in any case.
    CHECK(3 * direct < by_processor);
    CHECK(direct > 0);
  }
}

TEST_CASE("a rank that fails ends the others' exchanges between devices",
          "[learners][cpu][device]") {
  const OneThread one_thread;
  CaseOptions options = laid_out({2, 1, 3, 0});
  const auto errors = run_ranks(2, [&](Collective& ranks) {
    join_emulated_nccl(ranks);
    Learner learner = make_case("sft", &ranks, options);
    update_case("sft", learner, 0);
    if (ranks.rank() == 1) {
      ranks.abort("no memory");
      throw InvalidArgument("no memory");
    }
    update_case("sft", learner, 1);
  });
  CHECK(errors[1] == "no memory");
  CHECK(!errors[0].empty());
}

}  // namespace praetor
