#include <algorithm>
#include <cmath>

#include "core/cuda/check.h"
#include "core/cuda/gpu.h"

namespace praetor::cuda {
namespace {

/// cuBLAS's own memory for products within a graph; the size that its manual names for Hopper.
constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;
/// Shared memory that a block may have without being asked for.
constexpr int64_t kPlainShared = 48 << 10;
constexpr unsigned kWarp = 32, kAllLanes = 0xFFFFFFFFU;

/// A block of CUDA threads, whole warps. Its functions are the GPU's alone; for the processor they
/// are there in name, since the kernels are compiled for both.
class GpuBlock {
 public:
  __host__ __device__ explicit GpuBlock(char* memory, double* scratch)
      : memory_(memory), scratch_(scratch) {}

#ifdef __CUDA_ARCH__
  __device__ int thread() const {
    return static_cast<int>(threadIdx.x);
  }
  __device__ int threads() const {
    return static_cast<int>(blockDim.x);
  }
  __device__ void sync() {
    __syncthreads();
  }

  template <typename T>
  __device__ T sum(T value) {
    return over_all(value, T{0}, [](T a, T b) { return a + b; });
  }
  __device__ float max(float value) {
    return over_all(value, -INFINITY, [](float a, float b) { return a > b ? a : b; });
  }

  /// Neighbouring threads often have one bin: a warp adds for itself then, once.
  __device__ void add(uint64_t* bins, int bin, uint64_t value) {
    auto* to = reinterpret_cast<unsigned long long*>(bins + bin);
    int same = 0;
    if (__activemask() == kAllLanes) __match_all_sync(kAllLanes, bin, &same);
    if (same) {
      for (unsigned step = kWarp / 2; step > 0; step /= 2)
        value += __shfl_xor_sync(kAllLanes, static_cast<unsigned long long>(value), step);
      if (threadIdx.x % kWarp == 0 && value != 0) atomicAdd(to, value);
    } else if (value != 0) {
      atomicAdd(to, value);
    }
  }
#else
  __host__ int thread() const {
    return 0;
  }
  __host__ int threads() const {
    return 1;
  }
  __host__ void sync() {}
  template <typename T>
  __host__ T sum(T value) {
    return value;
  }
  __host__ float max(float value) {
    return value;
  }
  __host__ void add(uint64_t* bins, int bin, uint64_t value) {
    bins[bin] += value;
  }
#endif
  __host__ __device__ char* memory() const {
    return memory_;
  }

 private:
#ifdef __CUDA_ARCH__
  /// Each warp by shuffles, then the warps' results by all warps alike.
  template <typename T, typename Join>
  __device__ T over_all(T value, T none, Join join) {
    for (unsigned step = kWarp / 2; step > 0; step /= 2) value = join(value, shuffled(value, step));
    auto* parts = reinterpret_cast<T*>(scratch_);
    const unsigned warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
    if (lane == 0) parts[warp] = value;
    __syncthreads();
    value = lane < blockDim.x / kWarp ? parts[lane] : none;
    __syncthreads();
    for (unsigned step = kWarp / 2; step > 0; step /= 2) value = join(value, shuffled(value, step));
    return value;
  }
  __device__ static float shuffled(float value, unsigned step) {
    return __shfl_xor_sync(kAllLanes, value, step);
  }
  __device__ static uint64_t shuffled(uint64_t value, unsigned step) {
    return __shfl_xor_sync(kAllLanes, static_cast<unsigned long long>(value), step);
  }
#endif
  char* memory_;
  double* scratch_;  ///< one a warp
};

template <typename Kernel>
__global__ void __launch_bounds__(Kernel::kThreads) run(const Kernel kernel) {
  extern __shared__ __align__(16) char memory[];
  __shared__ double scratch[kWarp];
  GpuBlock block(memory, scratch);
  kernel(block, Grid{blockIdx.x, blockIdx.y, blockIdx.z});
}

template <typename Kernel>
void start(const Kernel& kernel, cudaStream_t stream) {
  static_assert(Kernel::kThreads % kWarp == 0 && Kernel::kThreads <= kWarp * kWarp);
  const Grid grid = kernel.grid();
  if (grid.x < 1 || grid.y < 1 || grid.z < 1) return;
  PRAETOR_CHECK(grid.x < int64_t{1} << 31 && grid.y < 65536 && grid.z < 65536,
                "a grid beyond the GPU's bounds");
  const int64_t shared = kernel.memory();
  if (shared > kPlainShared) {
    PRAETOR_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void*>(run<Kernel>),
                                      cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(shared)));
  }
  run<Kernel><<<dim3(static_cast<unsigned>(grid.x),
                     static_cast<unsigned>(grid.y),
                     static_cast<unsigned>(grid.z)),
                Kernel::kThreads,
                static_cast<size_t>(shared),
                stream>>>(kernel);
  PRAETOR_CUDA(cudaGetLastError());
}

class GpuRecording final : public Recording {
 public:
  GpuRecording(cudaGraph_t graph, cudaStream_t stream, int32_t index)
      : stream_(stream), index_(index) {
    const cudaError_t made = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    check(made, "cudaGraphInstantiate");
  }
  ~GpuRecording() override {
    cudaSetDevice(index_);
    cudaGraphExecDestroy(graph_);
  }
  void replay() override {
    PRAETOR_CUDA(cudaSetDevice(index_));
    PRAETOR_CUDA(cudaGraphLaunch(graph_, stream_));
  }

 private:
  cudaGraphExec_t graph_ = nullptr;
  cudaStream_t stream_;
  int32_t index_;
};

class Gpu final : public Device {
 public:
  Gpu(int32_t index, Stream stream) : index_(index), description_(describe(index)) {
    enter();
    if (stream == Stream::kCompute) {
      stream_ = cudaStreamLegacy;
      return;
    }
    PRAETOR_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    PRAETOR_CUDA(cublasCreate(&products_));
    workspace_ = allocate(kWorkspaceBytes);
    PRAETOR_CUDA(cublasSetStream(products_, stream_));
    // Behind the stream, which takes cuBLAS's own memory back.
    PRAETOR_CUDA(cublasSetWorkspace(products_, workspace_, static_cast<size_t>(kWorkspaceBytes)));
  }
  ~Gpu() override {
    cudaSetDevice(index_);
    if (stream_) cudaStreamSynchronize(stream_);
    if (products_) cublasDestroy(products_);
    if (workspace_) cudaFree(workspace_);
    if (stream_ && stream_ != cudaStreamLegacy) cudaStreamDestroy(stream_);
  }

  const DeviceDescription& description() const override { return description_; }

  int64_t free_bytes() override {
    enter();
    size_t free = 0, total = 0;
    PRAETOR_CUDA(cudaMemGetInfo(&free, &total));
    return static_cast<int64_t>(free);
  }

  void* allocate(int64_t bytes) override {
    enter();
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, static_cast<size_t>(bytes));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // it is dealt with here
      throw DeviceMemoryError(str("GPU ",
                                  index_,
                                  " (",
                                  description_.name,
                                  "): ",
                                  bytes,
                                  " bytes were asked for, ",
                                  free_bytes(),
                                  " of ",
                                  description_.memory_bytes,
                                  " are free"));
    }
    check(status, "cudaMalloc");
    PRAETOR_CUDA(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), stream_));
    return memory;
  }
  void release(void* memory) noexcept override {
    cudaSetDevice(index_);
    cudaStreamSynchronize(stream_);
    cudaFree(memory);
  }
  void upload(void* to, const void* from, int64_t bytes) override {
    move(to, from, bytes, cudaMemcpyHostToDevice);
    // Memory that is not pinned may be read after the call, but for small pieces.
    PRAETOR_CUDA(cudaStreamSynchronize(stream_));
  }
  void download(void* to, const void* from, int64_t bytes) override {
    move(to, from, bytes, cudaMemcpyDeviceToHost);
    PRAETOR_CUDA(cudaStreamSynchronize(stream_));
  }
  void copy(void* to, const void* from, int64_t bytes) override {
    move(to, from, bytes, cudaMemcpyDeviceToDevice);
  }
  void synchronize() override {
    enter();
    PRAETOR_CUDA(cudaStreamSynchronize(stream_));
  }

  void multiply(const Product& p) override {
    PRAETOR_CHECK(products_, "a product on the default stream");
    enter();
    const float one = 1, zero = 0;
    // cuBLAS counts columns first: there y, x and the weight are transposed.
    PRAETOR_CUDA(cublasGemmEx(products_,
                              CUBLAS_OP_T,
                              CUBLAS_OP_N,
                              static_cast<int>(p.outputs),
                              static_cast<int>(p.rows),
                              static_cast<int>(p.inputs),
                              &one,
                              p.weight,
                              CUDA_R_16BF,
                              static_cast<int>(p.inputs),
                              p.x,
                              CUDA_R_16BF,
                              static_cast<int>(p.inputs),
                              p.add ? &one : &zero,
                              p.y,
                              CUDA_R_32F,
                              static_cast<int>(p.outputs),
                              CUBLAS_COMPUTE_32F,
                              CUBLAS_GEMM_DEFAULT));
  }

#define X(Kernel)                              \
  void launch(const Kernel& kernel) override { \
    enter();                                   \
    start(kernel, stream_);                    \
  }
  PRAETOR_CUDA_KERNELS(X)
#undef X

  std::unique_ptr<Recording> record(const std::function<void()>& work) override {
    enter();
    PRAETOR_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    cudaGraph_t graph = nullptr;
    try {
      work();
    } catch (...) {
      // The stream is of use again only when the recording has ended.
      cudaStreamEndCapture(stream_, &graph);
      if (graph) cudaGraphDestroy(graph);
      cudaGetLastError();
      throw;
    }
    PRAETOR_CUDA(cudaStreamEndCapture(stream_, &graph));
    return std::make_unique<GpuRecording>(graph, stream_, index_);
  }

 private:
  void enter() const {
    PRAETOR_CUDA(cudaSetDevice(index_));
  }
  void move(void* to, const void* from, int64_t bytes, cudaMemcpyKind kind) {
    enter();
    PRAETOR_CUDA(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kind, stream_));
  }

  int32_t index_;
  DeviceDescription description_;
  cudaStream_t stream_ = nullptr;
  cublasHandle_t products_ = nullptr;
  void* workspace_ = nullptr;
};

}  // namespace

DeviceDescription describe(int32_t index) {
  int count = 0;
  PRAETOR_CUDA(cudaGetDeviceCount(&count));
  if (index < 0 || index >= count)
    throw InvalidArgument("GPU ", index, " is asked for, but this machine has ", count);
  cudaDeviceProp properties{};
  PRAETOR_CUDA(cudaGetDeviceProperties(&properties, index));
  std::string id;
  for (const char byte : properties.uuid.bytes) {
    constexpr const char* kDigits = "0123456789abcdef";
    const auto value = static_cast<unsigned char>(byte);
    id += {kDigits[value / 16], kDigits[value % 16]};
  }
  return {.name = properties.name,
          .memory_bytes = static_cast<int64_t>(properties.totalGlobalMem),
          .multiprocessors = properties.multiProcessorCount,
          .major = properties.major,
          .minor = properties.minor,
          .shared_bytes = static_cast<int64_t>(properties.sharedMemPerBlockOptin),
          .id = id};
}

std::unique_ptr<Device> open_gpu(int32_t index, Stream stream) {
  return std::make_unique<Gpu>(index, stream);
}

}  // namespace praetor::cuda
