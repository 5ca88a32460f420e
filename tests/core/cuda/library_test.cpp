#include "core/cuda/library.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/base/error.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

// What of the GPU library can be shown on a machine without a GPU: tests/cuda has the rest.
namespace praetor {

namespace fs = std::filesystem;

using Catch::Contains;
using cuda::Library;

TEST_CASE("a file that is no GPU library is refused by name", "[core][cpu][cuda]") {
  CHECK_THROWS_AS(Library::load("/no/such/libpraetor_cuda.so"), InvalidArgument);
  const testing::TempDir folder;
  const fs::path file = folder / "libpraetor_cuda.so";
  std::ofstream(file) << "text";
  CHECK_THROWS_WITH(Library::load(file.string()), Contains(file.string()));
  CHECK_THROWS_WITH(Library::load("libm.so.6"),
                    "GPU library: libm.so.6 does not export praetor_cuda_library");
}

#ifdef PRAETOR_CUDA_LIBRARY_FILE

TEST_CASE("the GPU library opens and answers on a machine without a GPU, too",
          "[core][cpu][cuda]") {
  const Library& library = Library::instance();
  CHECK(fs::equivalent(library.file(), PRAETOR_CUDA_LIBRARY_FILE));
  CHECK_THAT(library.built_for(), Contains("sm_") && Contains("CUDA ") && Contains("NCCL 2."));
  const cuda::DeviceReport report = library.devices();
  CHECK(report.devices.empty() == !report.failure.empty());
  if (report.devices.empty()) {
    CHECK_THAT(report.failure, Contains("cudaGetDeviceCount"));
    // The library's errors are the program's.
    CHECK_THROWS_AS(library.open(0), cuda::DeviceError);
  }
  const int32_t beyond = static_cast<int32_t>(report.devices.size());
  if (beyond > 0) CHECK_THROWS_AS(library.open(beyond), InvalidArgument);
  CHECK_THROWS_WITH(library.join("too short", 0, 1, 0),
                    "NCCL: a group's id has 128 bytes, this one 9");
}

#else

TEST_CASE("a build without the GPU library says how to have one", "[core][cpu][cuda]") {
  CHECK_THROWS_WITH(Library::instance(), Contains("build where nvcc, cuBLAS and NCCL are"));
}

#endif

}  // namespace praetor
