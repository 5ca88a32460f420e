#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "actors/controller/services.h"

namespace praetor {

/// What passes between the controller, the first learner rank and workers on GPUs where weights are
/// broadcast (core/publication/weight_broadcast.h).

/// Names a broadcast of a run; later ones are greater, also those of a controller that was started
/// again.
struct BroadcastNumber {
  int64_t epoch = 0;   ///< of the group; another one for every change of its members
  int64_t number = 0;  ///< in the epoch, from 1; 0: none
  auto operator<=>(const BroadcastNumber&) const = default;
};

/// The publisher is about to publish. `held`: the epoch whose group it is still in; 0: none.
struct OpenBroadcast {
  std::string publisher;  ///< name of the member
  int64_t held = 0;
};

/// Who is to receive.
struct OpenedBroadcast {
  BroadcastNumber number;            ///< epoch 0: nobody is there to receive
  std::vector<std::string> members;  ///< by rank; the publisher is the first
  bool join = false;                 ///< the epoch is new: name its group and join it
  /// "rollout-1: ...": who is out of a new epoch that was in the one before, and why.
  std::vector<std::string> dropped;
};

/// What a worker is told: to take part.
struct BroadcastCall {
  BroadcastNumber number;
  std::string id;  ///< names the epoch's group (cuda::Library::join)
  int32_t rank = 0;
  std::vector<std::string> members;
  int64_t bucket_bytes = 0;
  std::vector<Publication> files;  ///< in the order in which they come
};

enum class BroadcastOutcome : uint8_t { kNone, kReceived, kFailed };

/// A worker waits for the next broadcast. It says how the last one went, and becomes a member of
/// the next epoch by asking.
struct AwaitBroadcast {
  std::string worker;  ///< name of the member
  BroadcastNumber seen;
  BroadcastOutcome outcome = BroadcastOutcome::kNone;  ///< of `seen`
  std::string why;                                     ///< it failed
  std::chrono::milliseconds wait{0};
};

/// What the publisher and the workers ask. Every call may be repeated. Any thread. Errors as of
/// WorkerService.
class BroadcastService {
 public:
  virtual ~BroadcastService() = default;
  /// Decides who receives the next broadcast. Members that have not said how the last one went are
  /// waited for a little, then dropped.
  virtual OpenedBroadcast open_broadcast(const OpenBroadcast& request) = 0;
  /// It begins: its members are told. `id` and `files` as in the call; rank and members are the
  /// controller's. @throws InvalidArgument for one that is not open (any more)
  virtual void start_broadcast(const BroadcastCall& call) = 0;
  /// While it goes on: which member was lost, once one is; nothing within `wait`.
  virtual std::optional<std::string> watch_broadcast(const BroadcastNumber& number,
                                                     std::chrono::milliseconds wait) = 0;
  /// It has ended; `failure`: why it came to nothing, empty when the publisher has sent it all.
  virtual void close_broadcast(const BroadcastNumber& number, const std::string& failure) = 0;
  /// The next broadcast that the worker is to take part in; nothing within `wait`.
  virtual std::optional<BroadcastCall> await_broadcast(const AwaitBroadcast& request) = 0;
};

}  // namespace praetor
