#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace praetor::rpc {

/// Bounds of who may connect to a server. A stranger is a connection that has made no call with the
/// run's secret yet.
struct GateLimits {
  int most = 8192;            ///< connections at once; fewer where the process may open fewer files
  int most_strangers = 2048;  ///< of them; a further one ends the oldest, and waits until that has
  std::chrono::milliseconds grace{1'000};           ///< had so long for its first call
  int burst = 2048;                                 ///< connections that one host may make at once,
  int per_second = 512;                             ///< and in each second after
  std::chrono::milliseconds stranger_time{20'000};  ///< after which a stranger is ended
  int most_refusals = 16;  ///< refused calls of a stranger, after which it is ended
};

/// The listening sockets of a server: accepts connections on a thread of its own, keeps the bounds
/// and hands the rest to the server, which owns them from then on. So many strangers as may come do
/// not take the files and the memory that the members need. Any thread.
class ConnectionGate {
 public:
  /// Is told, on the gate's thread, of connections that came to nothing: the host, and why.
  using Refused = std::function<void(const std::string& host, const std::string& why)>;

  /// Listens on `bind`:`port` (0: any). @throws TemporaryError when that cannot be had
  ConnectionGate(const std::string& bind, int port, const GateLimits& limits, Refused refused);
  ~ConnectionGate();  ///< close()
  ConnectionGate(const ConnectionGate&) = delete;
  ConnectionGate& operator=(const ConnectionGate&) = delete;

  int port() const { return port_; }
  /// Begins to accept. `take` owns the socket that it is handed.
  void open(std::function<void(int fd)> take);
  /// Accepts no more. May be called again.
  void close();

  /// A call with the run's secret came over the connection of `peer` (as gRPC names it).
  void member(const std::string& peer);
  /// A call without it.
  void refused_call(const std::string& peer);

  int64_t ended() const;  ///< connections that the gate itself turned away or ended

 private:
  using Clock = std::chrono::steady_clock;
  struct Connection {
    int fd = -1;
    ino_t inode = 0;  ///< tells whether the number is still this connection's
    std::string host;
    Clock::time_point since;
    int refusals = 0;
    std::list<std::string>::iterator place;  ///< in order_
  };
  struct Bucket {
    double left = 0;
    Clock::time_point filled;
  };
  /// What is to be told once the lock is released.
  using Report = std::vector<std::pair<std::string, std::string>>;

  void run();
  void accept_all(int listener);
  bool must_wait() const;
  bool may_connect(const std::string& host, Clock::time_point now);
  bool make_room(Report& report);
  void sweep(Report& report);
  void forget(std::unordered_map<std::string, Connection>::iterator stranger);
  void tell(const Report& report) const;

  const GateLimits limits_;
  const Refused refused_;
  int most_ = 0;
  int port_ = 0;
  int wake_ = -1;
  std::vector<int> listeners_;
  std::function<void(int)> take_;
  std::thread thread_;

  mutable std::mutex mutex_;  ///< guards what follows
  std::unordered_map<std::string, Connection> strangers_, members_;
  std::list<std::string> order_;  ///< strangers, the oldest first
  std::map<std::string, Bucket> buckets_;
  int64_t ended_ = 0;
};

}  // namespace praetor::rpc
