#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "actors/controller/broadcasts.h"
#include "core/collective/nccl_collective.h"
#include "core/cuda/device.h"
#include "core/publication/weight_broadcast.h"

namespace praetor {

/// Groups of the GPU library on that GPU of this process's.
NcclGroup groups_on(int32_t device);

/// The publisher's part of broadcasts: brings published files to the workers on GPUs that the
/// controller counts as members. Whatever fails touches nothing else: whoever has not received a
/// file takes it the other way (Publication). Service and device are borrowed. One thread at a
/// time.
class WeightCaster {
 public:
  struct Options {
    std::string name;  ///< of the publisher as a member
    int64_t bucket_bytes = int64_t{64} << 20;
    std::chrono::milliseconds timeout{60'000};  ///< of joining, and of each bucket
  };
  WeightCaster(BroadcastService& service, NcclGroup groups, cuda::Device& device, Options options);
  ~WeightCaster();
  WeightCaster(const WeightCaster&) = delete;
  WeightCaster& operator=(const WeightCaster&) = delete;

  struct Cast {
    BroadcastNumber number;  ///< epoch 0: nobody was there to receive, or it failed
    int64_t receivers = 0;
    std::string failure;
  };
  /// Broadcasts files whose path is this host's. @throws CancelledError
  Cast cast(const std::vector<Publication>& files);

 private:
  class Watch;
  void broadcast(const OpenedBroadcast& opened, const std::vector<Publication>& files);
  std::string lost();
  void set_lost(std::string why);

  BroadcastService& service_;
  const NcclGroup groups_;
  cuda::Device& device_;
  const Options options_;
  std::string id_;  ///< of the epoch's group
  std::unique_ptr<WeightBroadcast> group_;
  std::mutex mutex_;
  std::string lost_;  ///< which member the broadcast that goes on has lost
};

}  // namespace praetor
