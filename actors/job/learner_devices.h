#pragma once

#include <c10/core/Device.h>

#include <memory>

#include "actors/job/job_config.h"
#include "core/cuda/device.h"

namespace praetor {

/// Throws unless this host has what the `learner.device` of every stage needs: for cuda LibTorch's
/// CUDA half, which stays open from now on, and a GPU that it sees. Before anything is computed in
/// the process. @throws MissingInput naming the stage and what is missing
void require_learner_devices(const JobConfig& job);

/// The device of one rank: of the GPUs that it sees that of its process (cuda::place_of_process),
/// which engines of this process have, too, and others avoid; without the GPU library that of its
/// number on this host, modulo theirs. Another device than cuda, or one with a number, as it is.
c10::Device device_of_rank(c10::Device device);

/// The GPU library's kernels on the device that a learner's rank has, in the order of LibTorch's
/// work; null on the CPU, and where there is no such library or it has no code for that GPU, which
/// the log says once: the learner does without.
std::shared_ptr<cuda::Device> kernels_on(c10::Device device);

}  // namespace praetor
