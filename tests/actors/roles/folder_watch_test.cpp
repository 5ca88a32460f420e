#include "actors/roles/folder_watch.h"

#include <thread>

#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using std::chrono::milliseconds;

// That one hangs is seen end to end (tests/e2e/disk.sh): only a kernel can make it so.
TEST_CASE("a folder that answers is no news, nor is one that refuses", "[actors][cpu]") {
  const testing::TempDir dir;
  FolderWatch there(dir.path(), milliseconds(1), milliseconds(500));
  FolderWatch gone(dir / "nowhere", milliseconds(1), milliseconds(500));
  const auto before = std::filesystem::last_write_time(dir.path());
  for (int i = 0; i < 20; ++i) {
    CHECK_FALSE(there.news());
    CHECK_FALSE(gone.news());
    std::this_thread::sleep_for(milliseconds(5));
  }
  CHECK(std::filesystem::last_write_time(dir.path()) > before);  // it was tried
}

}  // namespace praetor
