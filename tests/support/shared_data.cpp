#include "tests/support/shared_data.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace praetor::testing {

namespace fs = std::filesystem;

std::optional<fs::path> shared_data() {
  const char* set = std::getenv("PRAETOR_SHARED");
  const fs::path root = set ? fs::path(set) : fs::path("../shared");
  if (fs::exists(root / "data" / "README.md")) return fs::canonical(root);
  const char* ci = std::getenv("CI");
  if (ci && std::string(ci) == "true") {
    throw std::runtime_error("CI must have the developers' data folder, but " + root.string() +
                             " is not there");
  }
  return std::nullopt;
}

TempDir::TempDir() {
  std::string name = (fs::temp_directory_path() / "praetor-test-XXXXXX").string();
  if (!mkdtemp(name.data())) throw std::runtime_error("cannot make a temporary folder " + name);
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

fs::path golden(const fs::path& name) {
  return fs::path("tests/golden") / name;
}

}  // namespace praetor::testing
