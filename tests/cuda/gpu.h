#pragma once

#include <memory>
#include <string>

#include "core/base/error.h"
#include "core/cuda/library.h"
#include "tests/support/catch.h"

namespace praetor::testing {

/// The first GPU, or nothing and why.
inline std::unique_ptr<cuda::Device> first_gpu(std::string& why) {
  try {
    const cuda::DeviceReport report = cuda::Library::instance().devices();
    if (!report.devices.empty()) return cuda::Library::instance().open(0);
    why = report.failure;
  } catch (const Error& failure) {
    why = failure.what();
  }
  return nullptr;
}

}  // namespace praetor::testing

/// First line of a test that needs a GPU; ends the case with a message where there is none, which
/// CTest counts as skipped.
#define PRAETOR_REQUIRE_GPU(name)                               \
  std::string name##_missing;                                   \
  const auto name##_owned = testing::first_gpu(name##_missing); \
  if (!name##_owned) {                                          \
    WARN("skipped: no GPU: " << name##_missing);                \
    return;                                                     \
  }                                                             \
  [[maybe_unused]] cuda::Device& name = *name##_owned
