#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "actors/controller/broadcasts.h"
#include "actors/controller/services.h"
#include "actors/rpc/gate.h"
#include "actors/rpc/tls.h"

namespace praetor {

/// How a server of this run listens.
struct ServeOptions {
  std::string run_id;                             ///< not empty; calls of another run are refused
  std::string secret;                             ///< not empty; calls without it are refused
  std::string bind = "127.0.0.1";                 ///< host or IP address to listen on
  int port = 0;                                   ///< tried first; 0: any
  bool any_port = true;                           ///< another one when `port` is taken
  std::string advertise;                          ///< host in `address()`; empty: `bind`
  int64_t max_message_bytes = int64_t{64} << 20;  ///< a longer request is refused
  /// Threads that may serve calls. Each call holds one until it is answered, and a call that finds
  /// none is answered RESOURCE_EXHAUSTED (clients try again). Half of them may wait in long polls.
  int max_threads = 4096;
  std::chrono::milliseconds max_wait{30'000};  ///< a long poll's wait is cut to it
  /// What the server shows and whose certificates it believes: mutual TLS. Null: plain text, for
  /// loopback.
  std::shared_ptr<const TlsIdentity> tls;
  rpc::GateLimits gate;  ///< who may connect
  /// Calls of one connection, at once and in each second after. Further ones are answered
  /// UNAVAILABLE (clients try again, later and later): a member that runs wild does not keep the
  /// others from being served.
  int burst_calls = 4000;
  int calls_per_second = 1000;
};

/// The interfaces a server offers; null: not offered. Borrowed, and must outlive the server.
struct RpcServices {
  WorkerService* worker = nullptr;
  LearnerService* learner = nullptr;
  SupervisorService* supervisor = nullptr;
  BroadcastService* broadcasts = nullptr;
};

/// How long calls of one method took on the server, from the checked metadata to the answer (a
/// long poll's wait included). Quantiles are exact to 1/8 of their value.
struct RpcLatency {
  int64_t count = 0;
  int64_t failed = 0;  ///< of them, answered with an error
  double mean_ms = 0;
  double p50_ms = 0;
  double p99_ms = 0;
  double max_ms = 0;
};

/// Serves the interfaces over gRPC (proto/praetor/v1) from construction to `stop`. Calls come on
/// many threads at once. Every call must carry the run's secret and id; what an interface throws
/// is thrown again, as the same class, at the client.
class RpcServer {
 public:
  /// @throws TemporaryError when nothing could be bound; InvalidArgument for options that are not
  /// sound
  RpcServer(const RpcServices& services, const ServeOptions& options);
  ~RpcServer();  ///< stop(0)
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  int port() const;             ///< that was bound
  std::string address() const;  ///< HOST:PORT to tell clients

  /// Takes no new calls, lets those in progress end for `grace`, then breaks them off. Returns when
  /// no call runs any more: a long poll inside an interface is not interrupted, so end the waits of
  /// the interfaces first. May be called again.
  void stop(std::chrono::milliseconds grace);

  /// By method ("Worker.Lease") of those that were called.
  std::map<std::string, RpcLatency> latencies() const;
  int64_t refused() const;  ///< calls without the right secret and run id
  int64_t ended() const;    ///< connections beyond the bounds of the gate

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace praetor
