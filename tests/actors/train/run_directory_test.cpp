#include "actors/train/run_directory.h"

#include <chrono>
#include <set>
#include <string>

#include "core/base/error.h"
#include "core/base/file_layer.h"
#include "core/base/fs.h"
#include "tests/support/catch.h"
#include "tests/support/power_cut.h"
#include "tests/support/shared_data.h"

namespace praetor {

TEST_CASE("a second run of one name gets a folder of its own and the newest is found",
          "[actors][cpu]") {
  const testing::TempDir dir;
  CHECK_FALSE(RunDirectory::newest(dir.path(), "job"));
  for (const char* name : {"job", "job-2", "job-3"}) {
    const auto run = RunDirectory::create(dir.path(), "job");
    CHECK(run.path() == dir / name);
    write_file_atomic(run / "resolved.yaml", "name: job\n");
  }
  CHECK(RunDirectory::newest(dir.path(), "job") == dir / "job-3");
}

TEST_CASE("a run directory has its files when it has its name, and nothing else is left",
          "[actors][cpu]") {
  const testing::TempDir dir;
  // Of a maker that was killed long ago, and of one that is at work.
  const auto left = dir / ".job.new-killed", fresh = dir / ".job.new-atwork";
  for (const auto& folder : {left, fresh}) std::filesystem::create_directories(folder / "logs");
  std::filesystem::last_write_time(
      left, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  const auto run = RunDirectory::create(dir.path(), "job", {{"resolved.yaml", "name: job\n"}});
  CHECK(read_file(run / "resolved.yaml") == "name: job\n");
  CHECK(std::filesystem::is_directory(run / "logs"));
  CHECK_THROWS_AS(RunDirectory::open(run.path()), TemporaryError);  // the lock came along
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path()))
    names.insert(entry.path().filename().string());
  CHECK(names == std::set<std::string>{"job", ".job.new-atwork"});
}

TEST_CASE("a run directory in use is refused and a foreign folder is named", "[actors][cpu]") {
  const testing::TempDir dir;
  const auto run = RunDirectory::create(dir.path(), "job");
  write_file_atomic(run / "resolved.yaml", "name: job\n");
  CHECK_THROWS_AS(RunDirectory::open(run.path()), TemporaryError);
  CHECK_THROWS_AS(RunDirectory::open(dir.path()), MissingInput);
  CHECK_THROWS_AS(RunDirectory::create("/proc/none", "job"), IoError);
}

TEST_CASE("after a power cut a run directory is whole or absent, and stays once it was made",
          "[actors][cpu]") {
  const testing::TempDir dir;
  testing::RecordingFiles files(dir.path());
  {
    const ScopedFileLayer recording(files);
    RunDirectory::create(dir / "runs", "job", {{"resolved.yaml", "name: job\n"}});
  }
  const size_t all = files.operations().size();
  CHECK(all > 15);
  size_t found = 0;
  for (size_t count = 0; count <= all; ++count) {
    for (const auto survival : {testing::Survival::kNothing,
                                testing::Survival::kAll,
                                testing::Survival::kNames,
                                testing::Survival::kArbitrary}) {
      const testing::TempDir after;
      testing::replay_power_cut(files, count, survival, count, after.path());
      const auto run = after / "runs" / "job";
      if (!std::filesystem::exists(run)) {
        CHECK(count < all);
        continue;
      }
      ++found;
      CHECK(read_file(run / "resolved.yaml") == "name: job\n");
      CHECK(std::filesystem::is_directory(run / "checkpoints"));
    }
  }
  CHECK(found >= 4);
}

}  // namespace praetor
