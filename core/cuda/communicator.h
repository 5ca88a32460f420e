#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace praetor::cuda {

/// What the NCCL collective (core/collective/nccl_collective.h) and the broadcast of weights
/// (core/publication/weight_broadcast.h) need of NCCL and CUDA: one operation at a time, started
/// and then asked about, so that whoever waits has a deadline. Its elements lie in the processor's
/// memory, or on the communicator's GPU. Made by the GPU library; the tests have some of their own.
/// Starting never waits for other ranks. One thread at a time.
class Communicator {
 public:
  enum class Operation { kReduceScatter, kAllGather, kAllReduce, kBroadcast };
  enum class State { kBusy, kDone, kFailed };
  /// ElementType of core/collective, by number, without its header: nvcc reads this one.
  enum class Element : int32_t { kFloat32, kFloat64, kInt64, kByte, kBFloat16, kInt32 };
  struct Work {
    Operation operation;
    Element type;
    const void* send;  ///< [send_count]; all_reduce, broadcast: the values
    int64_t send_count;
    void* receive;  ///< [receive_count]; all_reduce, broadcast: the values again
    int64_t receive_count;
    int32_t root = 0;
    /// The memory is the GPU's (cuda::Device::allocate), and nothing is copied: what is sent was
    /// brought there before, and stays as it is until poll() has said kDone.
    bool on_device = false;
  };

  virtual ~Communicator() = default;
  /// Copies what is sent to the GPU, unless it is there, and hands it to NCCL. Only when poll() has
  /// said kDone to what was started before; making a communicator is its first piece of work.
  virtual void start(const Work& work) = 0;
  virtual State poll() = 0;
  /// NCCL's words after kFailed.
  virtual std::string failure() const = 0;
  /// After kDone: copies what was received to the processor, unless it is to stay on the GPU.
  virtual void finish(const Work& work) = 0;
  /// Ends what runs; nothing but destruction may follow.
  virtual void abort() noexcept = 0;
};

}  // namespace praetor::cuda
