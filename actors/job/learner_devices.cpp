#include "actors/job/learner_devices.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "core/base/error.h"
#include "core/cuda/torch_library.h"

namespace praetor {

namespace {

/// This rank's number among those of its host; 0 where nobody says it.
int64_t local_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"}) {
    if (const char* value = std::getenv(name)) return std::max<int64_t>(0, std::atoll(value));
  }
  return 0;
}

}  // namespace

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
  return {device.type(), static_cast<c10::DeviceIndex>(local_rank() % devices)};
}

}  // namespace praetor
