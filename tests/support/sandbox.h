#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "core/base/deadline.h"
#include "core/base/error.h"
#include "reward/sandbox/sandbox.h"

namespace praetor::testing {

/// Why no sandbox can be made here; empty when one can. In CI (environment variable CI=true) it
/// throws instead, so that the tests which need it cannot be skipped there.
inline std::string why_no_sandbox() {
  try {
    Sandbox({}).run({"/usr/bin/true"}, "", Deadline::never());
    return "";
  } catch (const Error& failure) {
    const char* ci = std::getenv("CI");
    if (ci != nullptr && std::string(ci) == "true") throw std::runtime_error(failure.what());
    return failure.what();
  }
}

}  // namespace praetor::testing

/// First line of a test that needs the sandbox; ends the case with a message where there is none.
#define PRAETOR_REQUIRE_SANDBOX()                                                   \
  if (const std::string why = ::praetor::testing::why_no_sandbox(); !why.empty()) { \
    WARN("skipped: " << why);                                                       \
    return;                                                                         \
  }                                                                                 \
  static_cast<void>(0)
