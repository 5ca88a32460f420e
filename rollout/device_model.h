#pragma once

#include <cstdint>
#include <vector>

#include "core/cuda/decoder.h"
#include "rollout/cached_model.h"

namespace praetor {

/// A model of the engine on a GPU, whose weights are copied there when a pass first needs them and
/// again, each by itself, once it has changed: its version counter has moved, as an optimizer's
/// step or a publication moves it, or its memory is another. Device and model are borrowed.
class DeviceModel final : public CachedModel {
 public:
  /// The cache begins empty. @throws InvalidArgument naming what the GPU does not compute;
  /// DeviceMemoryError
  DeviceModel(const Transformer& model, const EngineConfig& config, cuda::Device& device);

  void copy_block(const Scheduler::Copy& copy) override;
  cuda::Decoder* decoder() override { return &decoder_; }

 protected:
  void make_cache(int64_t blocks) override { decoder_.reserve(blocks); }
  void forward() override;

 private:
  /// The parameter that the GPU has.
  struct Copied {
    const void* data = nullptr;
    uint32_t version = 0;
  };
  void bring_weights();

  cuda::Decoder decoder_;
  std::vector<Copied> copied_;  ///< by parameter
};

}  // namespace praetor
