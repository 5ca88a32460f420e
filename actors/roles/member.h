#pragma once

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "actors/controller/services.h"
#include "actors/rpc/client.h"

namespace praetor {

/// What a process needs to reach the controller of a run.
struct RunAddress {
  std::string run_id;
  std::string secret;
  std::function<std::string()> resolve;    ///< HOST:PORT
  std::shared_ptr<const TlsIdentity> tls;  ///< null: the wire is plain text

  /// From the run directory's controller.json and secret, and the certificates that the first
  /// names. Waits for the first up to `wait`.
  /// @throws MissingInput, RefusedError, DataError
  static RunAddress of(const std::filesystem::path& run_dir,
                       std::chrono::milliseconds wait = std::chrono::milliseconds(0));
  /// The same, over a relay of the run, which need not have started yet.
  static RunAddress over_relay(const std::filesystem::path& run_dir, const std::string& relay);
  RpcClientOptions options(std::chrono::milliseconds patience,
                           std::function<bool()> cancelled) const;
};

/// Number of this process among those that had its name: PRAETOR_INCARNATION of the supervisor, or
/// the time it was started.
int64_t incarnation_of_process();
std::string host_name();

/// A process's membership of a run: joins, and gives a sign of life from a thread of its own until
/// it is destroyed, which leaves in good order.
class Member {
 public:
  /// Joins. @throws RpcError, RefusedError
  Member(const RpcClientOptions& options, MemberInfo info);
  ~Member();
  Member(const Member&) = delete;
  Member& operator=(const Member&) = delete;

  const MemberInfo& info() const { return info_; }
  const Admission& admission() const { return admission_; }
  /// The run is over, or another process has the name.
  bool dismissed() const { return dismissed_; }
  /// Gives all leases back, and joins again.
  void rejoin();

  void set_busy(bool busy) { busy_ = busy; }
  void made_progress() { ++progress_; }
  void holds_weights(int64_t step) { weight_step_ = step; }

 private:
  void beat();

  const RpcClientOptions options_;
  WorkerClient client_;
  const MemberInfo info_;
  Admission admission_;
  std::atomic<bool> busy_{false}, dismissed_{false};
  std::atomic<int64_t> progress_{0}, weight_step_{-1};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ending_ = false;
  std::thread thread_;
};

/// Busy for the life of the object.
class Busy {
 public:
  explicit Busy(Member& member) : member_(member) { member_.set_busy(true); }
  ~Busy() { member_.set_busy(false); }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  Member& member_;
};

}  // namespace praetor
