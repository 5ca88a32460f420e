#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/cuda/communicator.h"
#include "core/cuda/device.h"
#include "core/publication/adapter_file.h"

namespace praetor {

struct WeightBroadcastOptions {
  int64_t epoch = 0;                 ///< of the group, for the errors' words
  std::vector<std::string> members;  ///< names by rank; the publisher is the first
  int32_t rank = 0;
  int64_t bucket_bytes = int64_t{64} << 20;   ///< the same on every rank, >= 1
  std::chrono::milliseconds timeout{60'000};  ///< of joining, and of each bucket; > 0
  /// Asked now and then while something is waited for: why to give up; empty: go on.
  std::function<std::string()> given_up;
};

/// Published files (weight_file.h, adapter_file.h) over one group of GPUs, from its first rank to
/// all others, which is made for this and has no learner in it but the publisher. A file goes as it
/// is, whichever tensors it holds, in buckets over two pieces of the GPU's memory. While one is on
/// the wire the publisher brings the next one to its GPU, and a receiver takes the one before from
/// its own: into memory that is a file without a name, hashing the tensors as they come.
///
/// The publisher reads the finished file, which nobody changes any more, so that a broadcast that
/// fails costs training nothing, and whoever missed it can have the file. After a failure the group
/// is given up, on this rank; the others see it at their own deadline, or sooner where NCCL does.
/// A group's ranks call send and receive alike, file by file. One thread at a time.
class WeightBroadcast {
 public:
  /// Waits until all have joined. `device` is the communicator's, borrowed.
  /// @throws CollectiveError naming epoch, rank, members and what was waited for; DeviceError
  WeightBroadcast(std::unique_ptr<cuda::Communicator> group,
                  cuda::Device& device,
                  WeightBroadcastOptions options);
  ~WeightBroadcast();
  WeightBroadcast(const WeightBroadcast&) = delete;
  WeightBroadcast& operator=(const WeightBroadcast&) = delete;

  const WeightBroadcastOptions& options() const { return options_; }

  /// On the first rank. Returning says that the GPUs have taken the file's last bucket over, not
  /// that every receiver has.
  /// @param what  for errors: "weights of step 3"
  /// @throws CollectiveError as the constructor; MissingInput, IoError; DeviceError
  void send(const std::string& what, const std::filesystem::path& file);

  /// On any other rank: the file, whose size and digest all know beforehand. It is verified.
  /// @throws CollectiveError; DataError naming the tensor that came damaged, or what the header
  /// lacks, after the last bucket: the group goes on
  AnyPublished receive(const std::string& what, int64_t bytes, const std::string& digest);

  /// Ends what runs; nothing but destruction may follow. After a failure it has been called.
  void give_up() noexcept;

 private:
  int64_t buckets(int64_t bytes) const;
  int64_t size_of(int64_t bucket, int64_t bytes) const;
  std::byte* buffer(int64_t bucket) const {
    return buffers_[static_cast<size_t>(bucket % 2)].get();
  }
  void reserve(int64_t bytes);
  cuda::Communicator::Work start(int64_t bucket, int64_t bytes);
  void await(const std::string& what);
  std::string who() const;
  template <typename Work>
  void guarded(const std::string& what, const Work& work);

  std::unique_ptr<cuda::Communicator> group_;
  cuda::Device& device_;
  const WeightBroadcastOptions options_;
  std::array<cuda::DeviceArray<std::byte>, 2> buffers_;
  std::string failure_;
};

}  // namespace praetor
