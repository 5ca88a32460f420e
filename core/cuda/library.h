#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/cuda/communicator.h"
#include "core/cuda/device.h"

/// libpraetor_cuda.so: all of Praetor that needs CUDA's libraries. The program opens it where it is
/// wanted, so that one build serves machines with and without a GPU.
namespace praetor::cuda {

/// Of the interface between program and library; another number for every change of it.
constexpr uint32_t kLibraryVersion = 5;
/// The one symbol that the library exports.
constexpr const char* kLibrarySymbol = "praetor_cuda_library";

/// What the library sees of this machine.
struct DeviceReport {
  std::vector<DeviceDescription> devices;
  std::string failure;  ///< why there are none: CUDA's words
};

/// Functions of the library; each throws praetor::Error.
struct LibraryTable {
  uint32_t version;
  const char* built_for;  ///< "sm_80, sm_90a; CUDA 13.0, NCCL 2.28.9"
  DeviceReport (*devices)();
  std::unique_ptr<Device> (*open)(int32_t index, Stream stream);
  std::string (*nccl_id)();
  std::unique_ptr<Communicator> (*join)(const std::string& id,
                                        int32_t rank,
                                        int32_t world_size,
                                        int32_t device);
};

/// The library, opened once in a process and kept until its end. Any thread.
class Library {
 public:
  /// $PRAETOR_CUDA_LIBRARY, else libpraetor_cuda.so in the folder ../lib of the program, else where
  /// the loader looks.
  /// @throws MissingInput when there is none, naming the places; InvalidArgument when it, or
  /// something that it needs, cannot be loaded, with the loader's words, or is of another version
  static const Library& instance();
  /// The same of one file, for tests. @throws likewise
  static std::unique_ptr<Library> load(const std::string& file);

  const std::string& file() const { return file_; }
  std::string built_for() const { return table_->built_for; }
  /// Never throws: what cannot be asked is the report's failure.
  DeviceReport devices() const { return table_->devices(); }
  /// @throws InvalidArgument for an index that is not a device's, DeviceError
  std::unique_ptr<Device> open(int32_t index = 0, Stream stream = Stream::kOwn) const {
    return table_->open(index, stream);
  }

  /// Names a new group; its first rank makes it and hands it to the others.
  std::string nccl_id() const { return table_->nccl_id(); }
  /// Begins to join the group; poll() says when all ranks have.
  std::unique_ptr<Communicator> join(const std::string& id,
                                     int32_t rank,
                                     int32_t world_size,
                                     int32_t device) const {
    return table_->join(id, rank, world_size, device);
  }

 private:
  Library(std::string file, const LibraryTable* table) : file_(std::move(file)), table_(table) {}
  std::string file_;
  const LibraryTable* table_;
};

}  // namespace praetor::cuda
