#include "actors/job/learner_devices.h"

#include <cstdint>
#include <mutex>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/str.h"
#include "core/cuda/choose.h"
#include "core/cuda/library.h"
#include "core/cuda/torch_library.h"

namespace praetor {

void require_learner_devices(const JobConfig& job) {
  for (const StageConfig& stage : job.stages) {
    if (!stage.trains() || !stage.learner.device.is_cuda()) continue;
    try {
      cuda::require_torch_devices();
    } catch (const MissingInput& missing) {
      throw MissingInput("stage ", stage.name, ": learner.", missing.what());
    }
    return;
  }
}

c10::Device device_of_rank(c10::Device device) {
  if (!device.is_cuda() || device.has_index()) return device;
  const int64_t devices = cuda::require_torch_devices();
  int64_t index = cuda::local_number() % devices;
  try {
    static const auto place = cuda::place_of_process();  // until the process ends
    if (place->device() < devices) index = place->device();
  } catch (const MissingInput& missing) {
    log::debug(str("GPU ", index, " by its number: ", missing.what()));
  }
  return {device.type(), static_cast<c10::DeviceIndex>(index)};
}

std::shared_ptr<cuda::Device> kernels_on(c10::Device device) {
  if (!device.is_cuda()) return nullptr;
  try {
    cuda::require_devices();
    return cuda::Library::instance().open(device.index(), cuda::Stream::kCompute);
  } catch (const Error& failure) {
    static std::once_flag said;
    std::call_once(said, [&] {
      log::info(str("AdamW on ",
                    device.str(),
                    " steps by LibTorch's operators, to the same bits: the GPU library's kernel "
                    "takes less time and memory: ",
                    failure.what()));
    });
    return nullptr;
  }
}

}  // namespace praetor
