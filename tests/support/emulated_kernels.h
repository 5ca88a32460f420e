#pragma once

#include <memory>

#include "tests/support/emulated_device.h"
#include "tests/support/processor_device.h"

namespace praetor::testing {

/// The GPU library's kernels on the memory of the emulated devices.
inline std::shared_ptr<cuda::Device> emulated_kernels() {
  auto out = std::make_shared<ProcessorDevice>();
  out->translate_by(praetor_emulated_address);
  return out;
}

}  // namespace praetor::testing
