#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "core/base/error.h"
#include "core/collective/nccl_communicator.h"
#include "core/cuda/check.h"

namespace praetor::cuda {
namespace {

constexpr std::chrono::seconds kClosing{5};

using Element = Communicator::Element;

int64_t bytes_of(Element type) {
  switch (type) {
    case Element::kByte:
      return 1;
    case Element::kBFloat16:
      return 2;
    case Element::kFloat32:
    case Element::kInt32:
      return 4;
    case Element::kFloat64:
    case Element::kInt64:
      break;
  }
  return 8;
}

ncclDataType_t nccl_type(Element type) {
  switch (type) {
    case Element::kFloat32:
      return ncclFloat32;
    case Element::kFloat64:
      return ncclFloat64;
    case Element::kInt64:
      return ncclInt64;
    case Element::kInt32:
      return ncclInt32;
    case Element::kBFloat16:
      return ncclBfloat16;
    case Element::kByte:
      break;
  }
  return ncclUint8;
}

/// In a group that does not block every call may say that it is not yet through.
void check_nccl(ncclResult_t status, const char* call) {
  if (status == ncclSuccess || status == ncclInProgress) return;
  throw DeviceError(str("NCCL: ", call, ": ", ncclGetErrorString(status)));
}

#define PRAETOR_NCCL(call) check_nccl((call), #call)

/// Device memory that grows.
class Staging {
 public:
  ~Staging() { cudaFree(memory_); }
  void* reserve(int64_t bytes) {
    if (bytes > bytes_) {
      cudaFree(memory_);
      memory_ = nullptr;
      bytes_ = 0;
      PRAETOR_CUDA(cudaMalloc(&memory_, static_cast<size_t>(bytes)));
      bytes_ = bytes;
    }
    return memory_;
  }
  void* get() const { return memory_; }

 private:
  void* memory_ = nullptr;
  int64_t bytes_ = 0;
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(const ncclUniqueId& id, int32_t rank, int32_t world_size, int32_t device)
      : device_(device) {
    enter();
    PRAETOR_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    PRAETOR_CUDA(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    PRAETOR_NCCL(ncclCommInitRankConfig(&group_, world_size, id, rank, &config));
  }
  ~NcclCommunicator() override {
    cudaSetDevice(device_);
    close();
    cudaEventDestroy(done_);
    cudaStreamDestroy(stream_);
  }

  void start(const Work& work) override {
    enter();
    const int64_t each = bytes_of(work.type);
    const auto send_bytes = static_cast<size_t>(work.send_count * each);
    const bool in_place =
        work.operation == Operation::kAllReduce || work.operation == Operation::kBroadcast;
    void* send = nullptr;
    void* receive = work.receive;
    if (work.on_device) {
      // NCCL writes to the memory that an operation in place is given.
      send = in_place ? work.receive : const_cast<void*>(work.send);
    } else {
      send = send_.reserve(std::max<int64_t>(1, work.send_count * each));
      receive = in_place ? send : receive_.reserve(std::max<int64_t>(1, work.receive_count * each));
      PRAETOR_CUDA(cudaMemcpyAsync(send, work.send, send_bytes, cudaMemcpyHostToDevice, stream_));
    }
    const ncclDataType_t type = nccl_type(work.type);
    const auto sent = static_cast<size_t>(work.send_count);
    switch (work.operation) {
      case Operation::kReduceScatter:
        PRAETOR_NCCL(ncclReduceScatter(send,
                                       receive,
                                       static_cast<size_t>(work.receive_count),
                                       type,
                                       ncclSum,
                                       group_,
                                       stream_));
        break;
      case Operation::kAllGather:
        PRAETOR_NCCL(ncclAllGather(send, receive, sent, type, group_, stream_));
        break;
      case Operation::kAllReduce:
        PRAETOR_NCCL(ncclAllReduce(send, send, sent, type, ncclSum, group_, stream_));
        break;
      case Operation::kBroadcast:
        PRAETOR_NCCL(ncclBroadcast(send, send, sent, type, work.root, group_, stream_));
        break;
    }
    launched_ = false;
  }

  State poll() override {
    enter();
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(group_, &state);
    if (asked != ncclSuccess) state = asked;
    if (state == ncclInProgress) return State::kBusy;
    if (state != ncclSuccess) {
      failure_ = str(ncclGetErrorString(state), " (", ncclGetLastError(group_), ")");
      return State::kFailed;
    }
    // NCCL puts the work on the stream in the background; only now the event stands behind it.
    if (!launched_) {
      PRAETOR_CUDA(cudaEventRecord(done_, stream_));
      launched_ = true;
    }
    const cudaError_t status = cudaEventQuery(done_);
    if (status == cudaSuccess) return State::kDone;
    if (status == cudaErrorNotReady) return State::kBusy;
    failure_ = str(cudaGetErrorString(status), " on the GPU");
    return State::kFailed;
  }

  std::string failure() const override { return failure_; }

  void finish(const Work& work) override {
    if (work.on_device) return;
    enter();
    const bool in_place =
        work.operation == Operation::kAllReduce || work.operation == Operation::kBroadcast;
    const auto bytes = static_cast<size_t>(work.receive_count * bytes_of(work.type));
    PRAETOR_CUDA(cudaMemcpyAsync(work.receive,
                                 in_place ? send_.get() : receive_.get(),
                                 bytes,
                                 cudaMemcpyDeviceToHost,
                                 stream_));
    PRAETOR_CUDA(cudaStreamSynchronize(stream_));  // nothing but the copy is left
  }

  void abort() noexcept override {
    if (group_) ncclCommAbort(group_);
    group_ = nullptr;
  }

 private:
  void enter() const { PRAETOR_CUDA(cudaSetDevice(device_)); }

  /// In good order, so that a rank which is behind can end its last operation; but not for ever.
  void close() noexcept {
    if (!group_ || !failure_.empty()) return abort();
    const auto end = std::chrono::steady_clock::now() + kClosing;
    ncclResult_t state = ncclCommFinalize(group_);
    while (state == ncclInProgress && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (ncclCommGetAsyncError(group_, &state) != ncclSuccess) state = ncclInternalError;
    }
    if (state != ncclSuccess) return abort();
    ncclCommDestroy(group_);
    group_ = nullptr;
  }

  int32_t device_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t done_ = nullptr;
  ncclComm_t group_ = nullptr;
  bool launched_ = false;  ///< the event stands behind the work
  Staging send_, receive_;
  std::string failure_;
};

}  // namespace

std::string nccl_version() {
  int version = 0;
  ncclGetVersion(&version);
  return str(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

std::string nccl_id() {
  ncclUniqueId id{};
  PRAETOR_NCCL(ncclGetUniqueId(&id));
  return {id.internal, sizeof(id.internal)};
}

std::unique_ptr<Communicator> join_nccl(const std::string& id,
                                        int32_t rank,
                                        int32_t world_size,
                                        int32_t device) {
  ncclUniqueId own{};
  if (id.size() != sizeof(own.internal)) {
    throw InvalidArgument(
        "NCCL: a group's id has ", sizeof(own.internal), " bytes, this one ", id.size());
  }
  std::memcpy(own.internal, id.data(), sizeof(own.internal));
  return std::make_unique<NcclCommunicator>(own, rank, world_size, device);
}

}  // namespace praetor::cuda
