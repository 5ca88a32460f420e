#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "actors/controller/services.h"

namespace praetor {

/// Learns of weights that are published while a worker generates, on a thread of its own: it asks
/// the controller, which answers once there are newer ones. The service is borrowed; its calls must
/// end soon after the object's destructor was called (RpcClientOptions::cancelled).
class WeightWatch {
 public:
  explicit WeightWatch(WorkerService& service);
  ~WeightWatch();
  WeightWatch(const WeightWatch&) = delete;
  WeightWatch& operator=(const WeightWatch&) = delete;

  /// Looks for weights newer than these from now on.
  void watch(const WeightVersion& version);
  /// No more, until the next `watch`.
  void rest();
  /// Newer ones that were found since; each is told once. Cheap.
  std::optional<Publication> take();

 private:
  void run();

  WorkerService& service_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<WeightVersion> watched_;
  std::optional<Publication> found_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace praetor
