#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_context.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "actors/rpc/call_rate.h"
#include "actors/rpc/gate.h"
#include "actors/rpc/latency.h"
#include "actors/rpc/server.h"
#include "actors/rpc/status.h"

namespace praetor::rpc {

/// Names of the metadata that every call carries.
inline constexpr const char* kSecretKey = "praetor-secret";
inline constexpr const char* kRunKey = "praetor-run";

/// A place among the calls that may wait, held while the object lives.
class WaitSlot {
 public:
  WaitSlot(std::atomic<int>& taken, int most);
  ~WaitSlot();
  WaitSlot(const WaitSlot&) = delete;
  WaitSlot& operator=(const WaitSlot&) = delete;
  bool granted() const { return granted_; }

 private:
  std::atomic<int>& taken_;
  bool granted_;
};

/// What all our gRPC servers have in common: the socket, who may call, what errors become, what is
/// measured. The services are borrowed.
class Frame {
 public:
  explicit Frame(const ServeOptions& options);

  /// @throws TemporaryError when nothing could be bound
  void start(const std::vector<grpc::Service*>& services);
  void stop(std::chrono::milliseconds grace);
  int port() const { return port_; }
  std::string address() const;
  const ServeOptions& options() const { return options_; }

  /// Runs `body` for a call that carries the run's secret and id. What `body` throws becomes the
  /// call's status.
  template <typename Body>
  grpc::Status serve(grpc::ServerContext& context, const char* method, const Body& body) {
    if (const grpc::Status refusal = check_member(context, method); !refusal.ok()) return refusal;
    const auto start = std::chrono::steady_clock::now();
    grpc::Status status;
    try {
      body();
    } catch (...) {
      status = status_of(std::current_exception());
      note_failure(context, method, status);
    }
    histogram(method).record(std::chrono::steady_clock::now() - start, !status.ok());
    return status;
  }

  /// How long a call may wait at most: the option, and the call's own deadline less a margin to
  /// answer in.
  std::chrono::milliseconds most_wait(const grpc::ServerContext& context) const;
  WaitSlot wait_slot() { return {waiting_, std::max(1, options_.max_threads / 2)}; }

  std::map<std::string, RpcLatency> latencies() const;
  int64_t refused() const { return refused_.load(); }
  int64_t ended() const { return gate_ ? gate_->ended() : 0; }

 private:
  grpc::Status check_member(const grpc::ServerContext& context, const char* method);
  /// False: the port cannot be had.
  bool listen(int port, const std::vector<grpc::Service*>& services);
  void note_stranger(const std::string& host, const std::string& why);
  void note_failure(const grpc::ServerContext& context,
                    const char* method,
                    const grpc::Status& status);
  bool first_time(const std::string& line);
  LatencyHistogram& histogram(const char* method);

  const ServeOptions options_;
  int port_ = 0;
  std::atomic<int> waiting_{0};
  std::atomic<int64_t> refused_{0};
  CallRate rate_;
  mutable std::mutex mutex_;  ///< guards what follows
  std::set<std::string> said_;
  std::map<std::string, std::unique_ptr<LatencyHistogram>, std::less<>> histograms_;
  std::mutex stop_mutex_;
  std::unique_ptr<ConnectionGate> gate_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace praetor::rpc
