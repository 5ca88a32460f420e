#include "actors/job/engine_devices.h"

#include "core/base/error.h"
#include "core/cuda/choose.h"

namespace praetor {

void require_engine_devices(const JobConfig& job) {
  for (const StageConfig& stage : job.stages) {
    if (!stage.online() || stage.engine.device == EngineDevice::kCpu) continue;
    try {
      cuda::require_devices();
    } catch (const MissingInput& missing) {
      throw MissingInput("stage ", stage.name, ": engine.", missing.what());
    }
    return;
  }
}

}  // namespace praetor
