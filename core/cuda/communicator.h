#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace praetor::cuda {

/// What the NCCL collective (core/collective/nccl_collective.h) needs of NCCL and CUDA: one
/// operation at a time on elements of the processor's memory, started and then asked about, so that
/// whoever waits has a deadline. Made by the GPU library; the tests have one of their own. Starting
/// never waits for other ranks. One thread at a time.
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
  };

  virtual ~Communicator() = default;
  /// Copies what is sent to the GPU and hands it to NCCL. Only when poll() has said kDone to what
  /// was started before; making a communicator is its first piece of work.
  virtual void start(const Work& work) = 0;
  virtual State poll() = 0;
  /// NCCL's words after kFailed.
  virtual std::string failure() const = 0;
  /// After kDone: copies what was received to the processor.
  virtual void finish(const Work& work) = 0;
  /// Ends what runs; nothing but destruction may follow.
  virtual void abort() noexcept = 0;
};

}  // namespace praetor::cuda
