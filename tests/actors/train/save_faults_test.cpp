// One rank stops, fails or is slow while a checkpoint is written or read.
#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "actors/train/checkpoint_saver.h"
#include "core/base/error.h"
#include "core/base/threads.h"
#include "learners/algorithms/sft.h"
#include "tests/actors/rpc/fake_services.h"
#include "tests/support/catch.h"
#include "tests/support/rank_fault.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

namespace fs = std::filesystem;
using namespace testing;

namespace {

enum Phase : size_t { kMake, kBegin, kEnd, kDirect, kLoad, kNextStep };

constexpr std::chrono::milliseconds kDeadline{2000};

/// Two saves, the first beside the ranks' other work, and a load.
void work(Collective& ranks,
          int64_t stage,
          const fs::path& run_dir,
          FakeServices& run,
          const std::function<void(size_t phase)>& enter) {
  enter(kMake);
  LearnerConfig config;
  config.sharding.stage = stage;
  LearnerModels models;
  models.policy = std::make_unique<Transformer>(tiny_model());
  Learner learner(config, make_sft(SftConfig{}), std::move(models), &ranks);
  const CheckpointContext context{.run_dir = run_dir,
                                  .stage_name = "sft",
                                  .tokenizer = run_dir,
                                  .environment = {},
                                  .resolved_job = "name: job\n"};
  CheckpointSaver beside(run, ranks, {.background = true}), direct(run, ranks, {});
  enter(kBegin);
  beside.save(context, learner, 1, {});
  enter(kEnd);
  beside.poll();
  beside.finish();
  enter(kDirect);
  direct.save(context, learner, 2, {});
  enter(kLoad);
  load_checkpoint(fs::canonical(run_dir / "latest"), "sft", ranks, learner);
  enter(kNextStep);
  ranks.barrier();
}

/// What the checkpoints of a run hold: their shards, by step. @throws CheckpointError for one that
/// is not whole
std::vector<std::string> written_in(const fs::path& run_dir) {
  std::vector<std::string> out;
  for (const char* step : {"step-000001", "step-000002"}) {
    const fs::path folder = run_dir / "checkpoints" / "sft" / step;
    if (!fs::exists(folder)) continue;
    const CheckpointReader reader(folder);
    for (const CheckpointFile& file : reader.manifest().files)
      out.push_back(str(step, ' ', file.name, ' ', file.sha256));
  }
  return out;
}

}  // namespace

TEST_CASE("a rank that stops, fails or is slow at a save is named, and what is there is whole",
          "[actors][cpu]") {
  const int before = threads();
  set_threads(1);
  for (const int64_t stage : {1, 3}) {
    constexpr int32_t kWorld = 3;
    const TempDir undisturbed;
    FakeServices calm;
    const Struck counted = strike(kWorld, kDeadline, {}, [&](Collective& ranks, const auto& enter) {
      work(ranks, stage, undisturbed.path(), calm, enter);
    });
    REQUIRE(complaint(counted, {}, kDeadline) == "");
    REQUIRE(counted.exchanges[0][kBegin] > 0);
    REQUIRE(counted.exchanges[0][kEnd] > 0);
    const std::vector<std::string> wanted = written_in(undisturbed.path());
    REQUIRE(wanted.size() > 2 * kWorld);

    std::vector<Strike> strikes;
    for (Strike place : places(counted.exchanges, kEnd)) {
      for (const Fault fault : {Fault::kStop, Fault::kThrow, Fault::kSlow}) {
        place.fault = fault;
        strikes.push_back(place);
      }
    }
    std::vector<std::string> complaints(strikes.size());
    side_by_side(strikes.size(), [&](size_t i) {
      const TempDir dir;
      FakeServices run;
      const Struck got =
          strike(kWorld, kDeadline, strikes[i], [&](Collective& ranks, const auto& enter) {
            work(ranks, stage, dir.path(), run, enter);
          });
      complaints[i] = complaint(got, strikes[i], kDeadline);
      try {
        const std::vector<std::string> written = written_in(dir.path());
        const bool prefix = written.size() <= wanted.size() &&
                            std::equal(written.begin(), written.end(), wanted.begin());
        const bool all = written.size() == wanted.size();
        if (!prefix || (strikes[i].fault == Fault::kSlow && !all))
          complaints[i] += " other checkpoints";
        // A save that ended before the strike is not lost, and one that had not begun is not there.
        if (strikes[i].phase > kEnd && written.empty()) complaints[i] += " a checkpoint is lost";
        if (strikes[i].phase <= kBegin && strikes[i].fault != Fault::kSlow && !written.empty())
          complaints[i] += " a checkpoint that was not agreed on";
      } catch (const Error& error) {
        complaints[i] += str(" ", error.what());
      }
    });
    for (size_t i = 0; i < strikes.size(); ++i) {
      INFO("stage " << stage << ": " << strikes[i].text());
      CHECK(complaints[i] == "");
    }
  }
  set_threads(before);
}

}  // namespace praetor
