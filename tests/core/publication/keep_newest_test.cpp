#include <ATen/core/Tensor.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "core/base/error.h"
#include "core/model/transformer.h"
#include "core/publication/weight_file.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

namespace fs = std::filesystem;
using testing::TempDir;

namespace {

void touch(const fs::path& file) {
  std::ofstream(file) << "x";
}

std::string name(int stage, int lineage, int step) {
  char number[16];
  std::snprintf(number, sizeof(number), "%06d", step);
  return "stage-" + std::to_string(stage) + "-lineage-" + std::to_string(lineage) + "-step-" +
         number + "-0123456789abcdef.safetensors";
}

std::set<std::string> list(const fs::path& folder) {
  std::set<std::string> out;
  for (const auto& entry : fs::directory_iterator(folder))
    out.insert(entry.path().filename().string());
  return out;
}

}  // namespace

TEST_CASE("the newest files of a stage stay, by lineage before step", "[core][cpu]") {
  const TempDir folder;
  for (const int step : {8, 9, 10}) touch(folder / name(1, 0, step));
  touch(folder / name(1, 2, 5));  // training went back to step 4
  touch(folder / name(1, 2, 1'000'000));
  touch(folder / name(0, 7, 99));
  touch(folder / name(2, 0, 0));
  touch(folder / "notes.txt");
  const std::string foreign = name(1, 0, 1) + ".bak";
  touch(folder / foreign);

  CHECK(keep_newest(folder.path(), 1, 3) == 3);
  const std::set<std::string> kept = {
      name(1, 0, 10), name(1, 2, 5), name(1, 2, 1'000'000), name(2, 0, 0), "notes.txt", foreign};
  CHECK(list(folder.path()) == kept);
  CHECK(keep_newest(folder.path(), 1, 3) == 0);
  CHECK(keep_newest(folder.path(), 1, 1) == 2);
  CHECK(fs::exists(folder / name(1, 2, 1'000'000)));
  CHECK(keep_newest(folder / "absent", 1, 1) == 0);
  CHECK_THROWS_AS(keep_newest(folder.path(), 1, 0), InvalidArgument);
}

TEST_CASE("a temporary goes once its writer is dead", "[core][cpu]") {
  const TempDir folder;
  const fs::path dead = folder / ".weights.tmp.1.1";
  const fs::path living = folder / ".weights.tmp.1.2";
  touch(dead);
  touch(living);
  const int fd = ::open(living.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(::flock(fd, LOCK_EX) == 0);
  CHECK(keep_newest(folder.path(), 0, 1) == 1);
  CHECK(list(folder.path()) == std::set<std::string>{living.filename().string()});
  ::close(fd);
  CHECK(keep_newest(folder.path(), 0, 1) == 1);
}

TEST_CASE("a mapped file that was removed stays readable", "[core][cpu]") {
  const TempDir folder;
  const Transformer model = testing::tiny_model(1);
  const WeightFile file = WeightFile::open(write_weight_file(folder.path(), {0, 0, 1}, model).file);
  write_weight_file(folder.path(), {0, 0, 2}, testing::tiny_model(2));
  CHECK(keep_newest(folder.path(), 0, 1) == 1);
  CHECK_FALSE(fs::exists(file.path()));
  CHECK(file.make_model().digest() == model.digest());
}

}  // namespace praetor
