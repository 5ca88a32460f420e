#pragma once

#include <filesystem>
#include <optional>

namespace praetor::testing {

/// The developers' data folder ($PRAETOR_SHARED, else ../shared beside the checkout), or nothing
/// when there is none. In CI (environment variable CI=true) its absence throws, so that the tests
/// which need it cannot be skipped there.
std::optional<std::filesystem::path> shared_data();

/// A fresh empty folder, removed with everything in it at the end of its life.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// Reads a file of tests/golden, named relative to that folder.
std::filesystem::path golden(const std::filesystem::path& name);

}  // namespace praetor::testing

/// First line of a test that needs the developers' data; ends the case with a message when it is
/// missing.
#define PRAETOR_REQUIRE_SHARED(name)                                               \
  const auto name##_or_none = ::praetor::testing::shared_data();                   \
  if (!name##_or_none) {                                                           \
    WARN("skipped: the developers' data folder is not here (set PRAETOR_SHARED)"); \
    return;                                                                        \
  }                                                                                \
  const std::filesystem::path& name = *name##_or_none
