#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "core/collective/nccl_communicator.h"
#include "core/cuda/check.h"

namespace praetor::cuda {
namespace {

constexpr std::chrono::seconds kClosing{5};

using Element = Communicator::Element;

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
      : device_(device), world_size_(world_size) {
    enter();
    PRAETOR_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    compute_ = new_event();
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    PRAETOR_NCCL(ncclCommInitRankConfig(&group_, world_size, id, rank, &config));
  }
  ~NcclCommunicator() override {
    cudaSetDevice(device_);
    close();
    for (const auto& events : {std::vector<cudaEvent_t>(marks_.begin(), marks_.end()), free_})
      for (cudaEvent_t event : events) cudaEventDestroy(event);
    cudaEventDestroy(compute_);
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
    if (work.after_compute) {
      PRAETOR_CUDA(cudaEventRecord(compute_, cudaStreamLegacy));
      PRAETOR_CUDA(cudaStreamWaitEvent(stream_, compute_));
    }
    if (work.on_device) {
      // NCCL writes to the memory that an operation in place is given.
      send = in_place ? work.receive : const_cast<void*>(work.send);
    } else {
      send = send_.reserve(std::max<int64_t>(1, work.send_count * each));
      receive = in_place ? send : receive_.reserve(std::max<int64_t>(1, work.receive_count * each));
      PRAETOR_CUDA(cudaMemcpyAsync(send, work.send, send_bytes, cudaMemcpyHostToDevice, stream_));
    }
    hand_over(work, send, receive);
    handed_ = false;
  }

  State poll_but(int64_t last) override {
    enter();
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(group_, &state);
    if (asked != ncclSuccess) state = asked;
    if (state == ncclInProgress) return State::kBusy;
    if (state != ncclSuccess) {
      failure_ = str(ncclGetErrorString(state), " (", ncclGetLastError(group_), ")");
      return State::kFailed;
    }
    // NCCL puts the work on the stream in the background; only now a mark stands behind it.
    if (!handed_) {
      if (free_.empty()) free_.push_back(new_event());
      marks_.push_back(free_.back());
      free_.pop_back();
      PRAETOR_CUDA(cudaEventRecord(marks_.back(), stream_));
      handed_ = true;
    }
    while (!marks_.empty()) {
      const cudaError_t status = cudaEventQuery(marks_.front());
      if (status == cudaErrorNotReady) break;
      if (status != cudaSuccess) {
        failure_ = str(cudaGetErrorString(status), " on the GPU");
        return State::kFailed;
      }
      free_.push_back(marks_.front());
      marks_.pop_front();
    }
    return static_cast<int64_t>(marks_.size()) <= last ? State::kDone : State::kRunning;
  }

  std::string failure() const override { return failure_; }

  void finish(const Work& work) override {
    if (work.on_device || work.receive_count == 0) return;
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

  static cudaEvent_t new_event() {
    cudaEvent_t out = nullptr;
    PRAETOR_CUDA(cudaEventCreateWithFlags(&out, cudaEventDisableTiming));
    return out;
  }

  void hand_over(const Work& work, void* send, void* receive) {
    const ncclDataType_t type = nccl_type(work.type);
    const auto sent = static_cast<size_t>(work.send_count);
    const auto received = static_cast<size_t>(work.receive_count);
    switch (work.operation) {
      case Operation::kReduceScatter:
        PRAETOR_NCCL(ncclReduceScatter(send, receive, received, type, ncclSum, group_, stream_));
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
      case Operation::kAllToAll: {
        const size_t each = sent / static_cast<size_t>(world_size_);
        const size_t bytes = each * static_cast<size_t>(bytes_of(work.type));
        PRAETOR_NCCL(ncclGroupStart());
        for (int32_t r = 0; r < world_size_; ++r) {
          const size_t at = static_cast<size_t>(r) * bytes;
          PRAETOR_NCCL(ncclSend(static_cast<char*>(send) + at, each, type, r, group_, stream_));
          PRAETOR_NCCL(ncclRecv(static_cast<char*>(receive) + at, each, type, r, group_, stream_));
        }
        PRAETOR_NCCL(ncclGroupEnd());
        break;
      }
      case Operation::kSend:
        PRAETOR_NCCL(ncclSend(send, sent, type, work.root, group_, stream_));
        break;
      case Operation::kReceive:
        PRAETOR_NCCL(ncclRecv(receive, received, type, work.root, group_, stream_));
        break;
    }
  }

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

  int32_t device_, world_size_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t compute_ = nullptr;  ///< behind what the default stream was given
  ncclComm_t group_ = nullptr;
  bool handed_ = false;            ///< a mark stands behind what was started last
  std::deque<cudaEvent_t> marks_;  ///< behind pieces of work that were not through
  std::vector<cudaEvent_t> free_;
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
  // A rank may have work in several groups at once: their kernels then start in one order on all
  // ranks, that of the calls, so that none waits on a GPU for one that has no room there.
  ::setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", /*overwrite=*/0);
  return std::make_unique<NcclCommunicator>(own, rank, world_size, device);
}

}  // namespace praetor::cuda
