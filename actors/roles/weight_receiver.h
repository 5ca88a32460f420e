#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "actors/controller/broadcasts.h"
#include "core/collective/nccl_collective.h"
#include "core/cuda/device.h"
#include "core/publication/weight_broadcast.h"

namespace praetor {

/// A worker's part of broadcasts of weights, on a thread of its own, so that they come while it
/// generates: waits for them, joins the groups, receives, and keeps what came until it is taken.
/// Service and device are borrowed, and nobody else uses the device; the service's calls must end
/// soon after the object's destructor was called (RpcClientOptions::cancelled).
class WeightReceiver {
 public:
  struct Options {
    std::string worker;                         ///< name of the member
    std::chrono::milliseconds timeout{60'000};  ///< of joining, and of each bucket
  };
  WeightReceiver(BroadcastService& service,
                 NcclGroup groups,
                 cuda::Device& device,
                 Options options);
  ~WeightReceiver();
  WeightReceiver(const WeightReceiver&) = delete;
  WeightReceiver& operator=(const WeightReceiver&) = delete;

  /// The weights as they came, verified, when this worker was to have them by broadcast: waits for
  /// them as long as they may still come. Nothing: they have not come whole, and are to be had as a
  /// file. What was taken is not kept. Any thread.
  std::optional<AnyPublished> take(const Publication& publication);

 private:
  void run();
  void receive(const BroadcastCall& call);
  void keep(const std::string& digest, AnyPublished weights);
  std::string why_give_up();

  BroadcastService& service_;
  const NcclGroup groups_;
  cuda::Device& device_;
  const Options options_;
  std::unique_ptr<WeightBroadcast> group_;  ///< the thread's own

  std::mutex mutex_;  ///< all below
  std::condition_variable changed_;
  std::deque<std::pair<std::string, AnyPublished>> kept_;  ///< by digest, the newest last
  std::optional<BroadcastCall> now_;  ///< that the worker takes part in; its answer comes after it
  BroadcastNumber done_;              ///< the last that is over
  int64_t epoch_ = 0;                 ///< whose group it is in, or was called to; 0: none
  std::string given_up_;              ///< why nobody wants what is coming
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace praetor
