#include "core/cuda/choose.h"

#include <filesystem>
#include <optional>
#include <vector>

#include "core/base/error.h"
#include "core/cuda/library.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using cuda::DeviceDescription;
using cuda::DevicePlace;

TEST_CASE("processes of a host spread over its GPUs, then share them", "[core][cpu][cuda]") {
  const testing::TempDir folder;
  const std::vector<DeviceDescription> gpus = {{.id = "a"}, {.id = "b"}, {.id = "c"}};
  std::optional<DevicePlace> first(std::in_place, gpus, 0, folder.path());
  CHECK(first->device() == 0);
  const DevicePlace second(gpus, 0, folder.path());
  CHECK(second.device() == 1);
  // A process that Slurm numbers begins at its own.
  const DevicePlace third(gpus, 5, folder.path());
  CHECK(third.device() == 2);
  CHECK(third.earlier() == 0);
  const DevicePlace fourth(gpus, 1, folder.path());
  CHECK(fourth.device() == 1);
  CHECK(fourth.earlier() == 1);
  // One that sees a part of the GPUs, under other numbers, minds the same locks.
  const DevicePlace other({{.id = "c"}, {.id = "a"}}, 0, folder.path());
  CHECK(other.device() == 0);
  CHECK(other.earlier() == 1);
  // A place is free again when its process has gone.
  first.reset();
  DevicePlace fifth(gpus, 2, folder.path());
  CHECK(fifth.device() == 0);
  CHECK(fifth.earlier() == 0);
  const DevicePlace moved(std::move(fifth));
  CHECK(DevicePlace(gpus, 2, folder.path()).earlier() == 1);
}

TEST_CASE("where no lock can be made the number decides", "[core][cpu][cuda]") {
  const std::vector<DeviceDescription> gpus = {{.id = "a"}, {.id = "b"}};
  CHECK(DevicePlace(gpus, 3, "/no/such/folder").device() == 1);
}

TEST_CASE("without a GPU it is said what is missing", "[core][cpu][cuda]") {
  try {
    const std::vector<DeviceDescription> devices = cuda::require_devices();
    CHECK(!devices.empty());
  } catch (const MissingInput& missing) {
    CHECK_THAT(missing.what(), Catch::StartsWith("device: cuda: "));
    CHECK_THAT(missing.what(), Catch::Contains("praetor doctor"));
    CHECK_THROWS_AS(cuda::ChosenDevice::take(), MissingInput);
  }
}

}  // namespace praetor
