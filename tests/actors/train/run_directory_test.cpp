#include "actors/train/run_directory.h"

#include "core/base/error.h"
#include "core/base/fs.h"
#include "tests/support/catch.h"
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

TEST_CASE("a run directory in use is refused and a foreign folder is named", "[actors][cpu]") {
  const testing::TempDir dir;
  const auto run = RunDirectory::create(dir.path(), "job");
  write_file_atomic(run / "resolved.yaml", "name: job\n");
  CHECK_THROWS_AS(RunDirectory::open(run.path()), TemporaryError);
  CHECK_THROWS_AS(RunDirectory::open(dir.path()), MissingInput);
  CHECK_THROWS_AS(RunDirectory::create("/proc/none", "job"), IoError);
}

}  // namespace praetor
