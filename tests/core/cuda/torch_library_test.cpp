#include "core/cuda/torch_library.h"

#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>

#include "core/base/error.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

// What can be shown of LibTorch's CUDA half on a machine without a GPU; e2e/device_learner.sh
// trains over a library that takes its place.
namespace praetor {
namespace {

using Catch::Contains;

/// PRAETOR_TORCH_CUDA_LIBRARY while it lives.
class Named {
 public:
  explicit Named(const std::string& file) {
    if (const char* value = std::getenv(kName)) before_ = value;
    ::setenv(kName, file.c_str(), 1);
  }
  ~Named() { before_ ? ::setenv(kName, before_->c_str(), 1) : ::unsetenv(kName); }

 private:
  static constexpr const char* kName = "PRAETOR_TORCH_CUDA_LIBRARY";
  std::optional<std::string> before_;
};

std::string said() {
  try {
    cuda::require_torch_devices();
  } catch (const MissingInput& missing) {
    return missing.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a CUDA half of LibTorch that is not there, or cannot be loaded, is named",
          "[core][cpu][cuda]") {
  {
    const Named nowhere("/no/such/libtorch_cuda.so");
    CHECK(said() ==
          "device: cuda: LibTorch's CUDA half: PRAETOR_TORCH_CUDA_LIBRARY names "
          "/no/such/libtorch_cuda.so, which is not there (praetor doctor shows what there is)");
  }
  const testing::TempDir folder;
  const auto file = folder / "libtorch_cuda.so";
  std::ofstream(file) << "text";
  const Named text(file.string());
  CHECK_THAT(said(),
             Contains(file.string() + ": ") &&
                 Contains("PRAETOR_GPU=1 scripts/bootstrap fetches CUDA's libraries"));
}

TEST_CASE("without a GPU LibTorch's CUDA half says what it lacks", "[core][cpu][cuda]") {
  const std::string text = said();
  if (text.empty()) {
    CHECK(cuda::TorchLibrary::instance().devices() > 0);
    return;
  }
  // Of a library that CUDA's come without, the loader's words; else the driver's.
  CHECK_THAT(text, (Contains(".so") && Contains("scripts/bootstrap")) || Contains("no GPU seen: "));
  if (text.find("no GPU seen") == std::string::npos) return;
  CHECK(cuda::TorchLibrary::instance().devices() == 0);
  CHECK(!cuda::TorchLibrary::instance().failure().empty());
}

}  // namespace praetor
