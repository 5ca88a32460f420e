#include "actors/cli/verify.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/checkpoint/checkpoint.h"
#include "core/ledger/ledger.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

/// One offline step and its checkpoint.
void make_run(const fs::path& run) {
  auto ledger = Ledger::open(run);
  ledger->begin_stage(0, "sft", StageForm::kOffline);
  ledger->issue_prompts(0, std::vector<PromptRecord>{{0, 0, 4, 1}, {1, 0, 2, 1}, {2, 0, 0, 1}});
  ledger->drop(0, std::vector{SampleId{2, 0}}, "too long");
  ledger->record_batch(0, {1, {{0, 0}, {1, 0}}, "{}"});
  StepRecord step;
  step.step = 1;
  ledger->record_step(0, step);
  CheckpointWriter writer(run, "sft", 1);
  writer.add_shard(0, std::vector<NamedTensor>{{"w", at::ones({2})}});
  writer.set_state({{"step", 1}});
  const fs::path folder = writer.commit();
  ledger->record_checkpoint({0, 1, fs::relative(folder, run), true});
}

}  // namespace

TEST_CASE("verify passes a whole run and a whole checkpoint", "[actors][cpu][verify]") {
  const testing::TempDir dir;
  make_run(dir / "run");
  const auto run = cli::verify_path(dir / "run");
  CHECK(run["ok"] == true);
  CHECK(run["kind"] == "run");
  CHECK(run["checkpoints"] == 1);
  CHECK(run["findings"].empty());
  CHECK(run["stages"][0]["trained"] == 2);
  CHECK(run["stages"][0]["dropped"]["too long"] == 1);
  CHECK(run["stages"][0]["pending"] == 0);
  const auto checkpoint = cli::verify_path(dir / "run/latest");
  CHECK(checkpoint["kind"] == "checkpoint");
  CHECK(checkpoint["ok"] == true);
}

TEST_CASE("verify says what is wrong with a run's checkpoints", "[actors][cpu][verify]") {
  const testing::TempDir dir;
  make_run(dir / "run");
  const fs::path folder = dir / "run/checkpoints/sft/step-000001";
  write_file_atomic(folder / "state.json", "{}");
  auto report = cli::verify_path(dir / "run");
  CHECK(report["ok"] == false);
  REQUIRE(report["findings"].size() == 1);
  CHECK(report["findings"][0]["where"].get<std::string>() == (folder / "state.json").string());
  fs::remove(folder / "manifest.json");
  CHECK(cli::verify_path(folder)["ok"] == false);
  fs::remove_all(folder);
  report = cli::verify_path(dir / "run");
  CHECK(report["findings"].size() == 2);  // the durable row, and the link
  CHECK_THROWS_AS(cli::verify_path(dir.path()), MissingInput);
  CHECK_THROWS_AS(cli::verify_path(dir / "none"), MissingInput);
  const auto owner = Ledger::open(dir / "run");
  CHECK_THROWS_AS(cli::verify_path(dir / "run"), TemporaryError);
}

}  // namespace praetor
