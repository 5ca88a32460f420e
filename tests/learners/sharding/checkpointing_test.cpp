// Learners whose backwards compute activations again, against those that keep them.
#include <string>
#include <vector>

#include "tests/learners/sharding/cases.h"
#include "tests/learners/sharding/train_group.h"
#include "tests/learners/support/tiny.h"
#include "tests/support/catch.h"
#include "tests/support/live_bytes.h"
#include "tests/support/ranks.h"

namespace praetor {

using testing::CaseOptions;
using testing::learner_cases;
using testing::make_case;
using testing::run_ranks;
using testing::train;
using testing::Trained;

TEST_CASE("activation checkpointing moves no bit, whatever the stage and the world",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  for (const std::string& name : learner_cases()) {
    for (const auto& [stage, world] :
         std::vector<std::pair<int64_t, int32_t>>{{1, 1}, {1, 2}, {2, 2}, {2, 4}, {3, 2}, {3, 4}}) {
      CaseOptions options{.stage = stage, .tied = world == 2};
      const Trained wanted = train(name, world, 0, 2, options);
      REQUIRE(wanted.errors == std::vector<std::string>(size_t(world)));
      for (const auto what :
           {ActivationCheckpointing::kSelective, ActivationCheckpointing::kBlock}) {
        INFO(name << ", stage " << stage << ", " << world << " ranks, checkpointing "
                  << static_cast<int>(what));
        options.checkpointing = what;
        const Trained got = train(name, world, 0, 2, options);
        check_same(got, wanted);
      }
    }
  }
}

TEST_CASE("an update's peak memory falls with what is computed again, and stage 3 gathers no more",
          "[learners][cpu]") {
  const testing::OneThread one_thread;
  std::vector<Example> rows;
  for (int64_t i = 0; i < 8; ++i) {
    std::vector<int64_t> response;
    for (int64_t t = 0; t < 28; ++t) response.push_back(1 + (t + i) % 9);
    rows.push_back(testing::make_example({1, 2}, response));
  }
  for (const int64_t stage : {1, 3}) {
    std::vector<int64_t> peaks;
    for (const auto what : {ActivationCheckpointing::kNone,
                            ActivationCheckpointing::kSelective,
                            ActivationCheckpointing::kBlock}) {
      std::vector<int64_t> peak(2), units(2);
      const auto errors = run_ranks(2, [&](Collective& ranks) {
        const auto r = static_cast<size_t>(ranks.rank());
        Learner learner = make_case(
            "sft",
            &ranks,
            {.stage = stage, .micro_batch_tokens = 250, .layers = 8, .checkpointing = what});
        learner.update(rows);
        const testing::LiveBytes bytes;
        learner.update(rows);
        peak[r] = bytes.peak();
        units[r] = learner.unit_meter().peak_units;
      });
      CHECK(errors == std::vector<std::string>(2));
      peaks.push_back(std::max(peak[0], peak[1]));
      if (stage == 3) CHECK(units == std::vector<int64_t>(2, 3));
    }
    CAPTURE(stage, peaks[0], peaks[1], peaks[2]);
    CHECK(peaks[1] < peaks[0] * 3 / 4);
    CHECK(peaks[2] < peaks[1] * 3 / 4);
  }
}

}  // namespace praetor
