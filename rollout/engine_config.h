#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"
#include "core/model/weight_kind.h"

namespace praetor {

/// Where an engine's forward passes run. kCuda: on a GPU, through the GPU library (core/cuda),
/// which has been run on threads of the processor only, not on a GPU yet.
enum class EngineDevice : uint8_t { kCpu, kCuda };
const std::vector<std::string>& engine_device_names();  ///< "cpu", "cuda"
/// @throws InvalidArgument "rocm is no device of the engine; known: cpu, cuda"
EngineDevice engine_device_of(const std::string& name);
const std::string& to_string(EngineDevice device);

/// Section `engine` of a job: how much the generation engine does at once, none of which changes
/// what is generated, and the kind of the weights, which does.
struct EngineConfig {
  int64_t max_sequences = 64;  ///< responses that grow at once, >= 1
  int64_t max_step_tokens =
      512;                  ///< rows of one step, prefill and decode together, >= max_sequences
  int64_t block_size = 16;  ///< tokens of one cache block, >= 1
  /// Bound on keys and values of all layers, >= 1 MiB. On a GPU also nine tenths of what is free
  /// beside the weights; 0: that alone.
  int64_t cache_bytes = int64_t{1} << 30;
  int64_t draft_tokens = 0;  ///< guessed ahead for a sequence that repeats itself, >= 0; 0: none
  /// Of all models of the engine. Other kinds than kFloat32 read a half or a quarter of the bytes a
  /// step and sample from a policy a little beside the learner's.
  WeightKind weights = WeightKind::kFloat32;
  EngineDevice device = EngineDevice::kCpu;  ///< kCuda has weights of kBfloat16
  static EngineConfig from_yaml(YamlReader in);
};

}  // namespace praetor
