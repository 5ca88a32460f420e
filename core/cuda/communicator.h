#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace praetor::cuda {

/// What the NCCL collective (core/collective/nccl_collective.h) and the broadcast of weights
/// (core/publication/weight_broadcast.h) need of NCCL and CUDA: operations that are started and
/// then asked about, so that whoever waits has a deadline. They run one after another. Their
/// elements lie in the processor's memory, or on the communicator's GPU. Made by the GPU library;
/// the tests have some of their own. Starting never waits for other ranks. One thread at a time.
class Communicator {
 public:
  enum class Operation {
    kReduceScatter,
    kAllGather,
    kAllReduce,
    kBroadcast,
    kAllToAll,
    kSend,    ///< nothing is received
    kReceive  ///< nothing is sent
  };
  enum class State {
    kBusy,     ///< what was started last is being handed over; nothing else can be
    kRunning,  ///< all of it has been handed to the GPU
    kDone,
    kFailed
  };
  /// ElementType of core/collective, by number, without its header: nvcc reads this one.
  enum class Element : int32_t { kFloat32, kFloat64, kInt64, kByte, kBFloat16, kInt32 };
  struct Work {
    Operation operation;
    Element type;
    const void* send;  ///< [send_count]; all_reduce, broadcast: the values
    int64_t send_count;
    void* receive;  ///< [receive_count]; all_reduce, broadcast: the values again
    int64_t receive_count;
    int32_t root = 0;  ///< of broadcast; of send and receive the other rank
    /// The memory is the GPU's, and nothing is copied: what is sent stays as it is until poll() has
    /// said kDone.
    bool on_device = false;
    /// It begins after all that CUDA's default stream, where LibTorch computes, was given before;
    /// else what is sent is there already.
    bool after_compute = false;
  };

  virtual ~Communicator() = default;
  /// Hands work to NCCL, copied to the GPU first unless it is there. Of memory on the GPU when
  /// poll() says kRunning or kDone, of the processor's at kDone alone, of all that was started
  /// before; making a communicator is its first piece of work.
  virtual void start(const Work& work) = 0;
  State poll() { return poll_but(0); }
  /// Of all that was started but the last few: kDone once that is through.
  virtual State poll_but(int64_t last) = 0;
  /// NCCL's words after kFailed.
  virtual std::string failure() const = 0;
  /// After kDone: copies what was received to the processor, unless it is to stay on the GPU.
  virtual void finish(const Work& work) = 0;
  /// Ends what runs; nothing but destruction may follow.
  virtual void abort() noexcept = 0;
};

constexpr int64_t bytes_of(Communicator::Element type) {
  switch (type) {
    case Communicator::Element::kByte:
      return 1;
    case Communicator::Element::kBFloat16:
      return 2;
    case Communicator::Element::kFloat32:
    case Communicator::Element::kInt32:
      return 4;
    case Communicator::Element::kFloat64:
    case Communicator::Element::kInt64:
      break;
  }
  return 8;
}

}  // namespace praetor::cuda
