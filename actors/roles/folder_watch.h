#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace praetor {

/// Notices that a file system does not answer, as one of the network may for minutes: a thread of
/// its own sets a folder's time now and then, and whoever asks hears when that does not come back.
/// A refusal (a full or read-only disk) is an answer. The folder must be there.
class FolderWatch {
 public:
  /// @param every     between two attempts
  /// @param patience  for one
  FolderWatch(std::filesystem::path folder,
              std::chrono::milliseconds every,
              std::chrono::milliseconds patience);
  ~FolderWatch();  ///< does not wait for an attempt that hangs
  FolderWatch(const FolderWatch&) = delete;
  FolderWatch& operator=(const FolderWatch&) = delete;

  /// What is to be told, once each: that the file system does not answer, that it does again.
  std::optional<std::string> news();

 private:
  struct Shared;
  std::filesystem::path folder_;
  std::chrono::milliseconds patience_;
  std::shared_ptr<Shared> shared_;  ///< with the thread, which may outlive this
  std::optional<std::chrono::steady_clock::time_point> told_;  ///< of the attempt that hangs
};

}  // namespace praetor
