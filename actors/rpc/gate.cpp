#include "actors/rpc/gate.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "core/base/error.h"

namespace praetor::rpc {

namespace {

constexpr int kBacklog = 4096;
constexpr std::chrono::milliseconds kRest{5};  ///< while callers wait in the backlog
constexpr int kOwnFiles = 256;  ///< that are left to the ledger, logs and whatever else
constexpr std::chrono::milliseconds kSweep{500};
constexpr size_t kMostHosts = 4096;  ///< whose rates are known

/// Files that this process may open; the soft limit is for programs that use select().
int files_of_process() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
    ::getrlimit(RLIMIT_NOFILE, &limit);
  }
  return static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1 << 20));
}

void set(int fd, int level, int option, int value) {
  ::setsockopt(fd, level, option, &value, sizeof(value));
}

/// A listening socket; -1 when there can be none.
int listen_on(const addrinfo& where, int port) {
  const int fd = ::socket(where.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  sockaddr_storage address{};
  std::memcpy(&address, where.ai_addr, where.ai_addrlen);
  if (where.ai_family == AF_INET6) {
    set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    reinterpret_cast<sockaddr_in6&>(address).sin6_port = htons(static_cast<uint16_t>(port));
  } else {
    reinterpret_cast<sockaddr_in&>(address).sin_port = htons(static_cast<uint16_t>(port));
  }
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), where.ai_addrlen) == 0 &&
      ::listen(fd, kBacklog) == 0)
    return fd;
  ::close(fd);
  return -1;
}

int port_of(const sockaddr_storage& address) {
  return ntohs(address.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                   : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

std::string host_of(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address.ss_family == AF_INET6) {
    const in6_addr& bytes = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(&bytes)) {
      ::inet_ntop(AF_INET, bytes.s6_addr + 12, text, sizeof(text));
    } else {
      ::inet_ntop(AF_INET6, &bytes, text, sizeof(text));
    }
  } else {
    ::inet_ntop(
        AF_INET, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, text, sizeof(text));
  }
  return text;
}

/// gRPC's "ipv4:10.0.0.7:40312" and "ipv6:%5B::1%5D:40312" as "10.0.0.7:40312" and "::1:40312".
std::string key_of(const std::string& peer) {
  std::string out = peer.substr(std::min(peer.size(), peer.find(':') + 1));
  for (const char* bracket : {"%5B", "%5D", "[", "]"})
    if (const size_t at = out.find(bracket); at != std::string::npos)
      out.erase(at, std::strlen(bracket));
  return out;
}

std::optional<ino_t> inode_of(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return std::nullopt;
  return info.st_ino;
}

}  // namespace

ConnectionGate::ConnectionGate(const std::string& bind,
                               int port,
                               const GateLimits& limits,
                               Refused refused)
    : limits_(limits), refused_(std::move(refused)), port_(port) {
  most_ = std::max(16, std::min(limits.most, files_of_process() - kOwnFiles));
  const bool bracketed = bind.size() > 2 && bind.front() == '[' && bind.back() == ']';
  const std::string host = bracketed ? bind.substr(1, bind.size() - 2) : bind;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) found = nullptr;
  // A name may have several addresses; they share the port that the first gets.
  for (const addrinfo* one = found; one; one = one->ai_next) {
    const int fd = listen_on(*one, port_);
    if (fd < 0) continue;
    listeners_.push_back(fd);
    sockaddr_storage bound{};
    socklen_t size = sizeof(bound);
    if (port_ == 0 && ::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) == 0)
      port_ = praetor::rpc::port_of(bound);
  }
  if (found) ::freeaddrinfo(found);
  if (listeners_.empty()) {
    throw TemporaryError("cannot listen on ",
                         bind,
                         ":",
                         port,
                         ": the port is taken, or the host is not this machine's");
  }
  wake_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

ConnectionGate::~ConnectionGate() {
  close();
  ::close(wake_);
}

void ConnectionGate::open(std::function<void(int)> take) {
  take_ = std::move(take);
  thread_ = std::thread([this] { run(); });
}

void ConnectionGate::close() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    if (::write(wake_, &one, sizeof(one)) < 0)
      return;  // cannot be: the counter is nowhere near full
    thread_.join();
  }
  for (const int fd : listeners_) ::close(fd);
  listeners_.clear();
}

void ConnectionGate::run() {
  std::vector<pollfd> watched;
  for (const int fd : listeners_) watched.push_back({fd, POLLIN, 0});
  watched.push_back({wake_, POLLIN, 0});
  auto swept = Clock::now();
  for (;;) {
    ::poll(watched.data(), watched.size(), static_cast<int>(kSweep.count()));
    if (watched.back().revents != 0) return;
    for (size_t i = 0; i + 1 < watched.size(); ++i)
      if (watched[i].revents != 0) accept_all(watched[i].fd);
    if (Clock::now() - swept < kSweep) continue;
    swept = Clock::now();
    Report report;
    {
      const std::lock_guard lock(mutex_);
      sweep(report);
    }
    tell(report);
  }
}

void ConnectionGate::accept_all(int listener) {
  for (;;) {
    if (must_wait()) {
      // A thousand workers that start at once are strangers, too: none may push another out before
      // it had its chance.
      std::this_thread::sleep_for(kRest);
      return;
    }
    sockaddr_storage address{};
    socklen_t size = sizeof(address);
    const int fd = ::accept4(
        listener, reinterpret_cast<sockaddr*>(&address), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (fd < 0) {
      // No file is left: the callers wait in the backlog until there is one.
      if (errno != EAGAIN) std::this_thread::sleep_for(std::chrono::milliseconds(50));
      return;
    }
    const std::string host = host_of(address);
    const auto inode = inode_of(fd);
    Report report;
    bool taken = false;
    {
      const std::lock_guard lock(mutex_);
      const auto now = Clock::now();
      if (!may_connect(host, now)) {
        report.emplace_back(host,
                            str("it connects more than ", limits_.per_second, " times a second"));
      } else if (!inode || !make_room(report)) {
        report.emplace_back(host, str(most_, " connections are open, which are the most"));
      } else {
        const std::string key = str(host, ":", praetor::rpc::port_of(address));
        if (const auto old = strangers_.find(key); old != strangers_.end()) forget(old);
        members_.erase(key);  // of an ended connection from the same port
        order_.push_back(key);
        strangers_[key] = {fd, *inode, host, now, 0, std::prev(order_.end())};
        taken = true;
      }
      if (!taken) ++ended_;
    }
    if (taken) {
      set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
      take_(fd);
    } else {
      ::close(fd);
    }
    tell(report);
  }
}

bool ConnectionGate::may_connect(const std::string& host, Clock::time_point now) {
  const auto full = static_cast<double>(limits_.burst);
  if (buckets_.size() >= kMostHosts) {
    std::erase_if(buckets_, [&](const auto& entry) {
      return now - entry.second.filled >
             std::chrono::seconds(1 + limits_.burst / limits_.per_second);
    });
    if (buckets_.size() >= kMostHosts) buckets_.clear();
  }
  const auto [place, fresh] = buckets_.try_emplace(host, Bucket{full, now});
  Bucket& bucket = place->second;
  const double seconds = std::chrono::duration<double>(now - bucket.filled).count();
  bucket.left = std::min(full, bucket.left + seconds * limits_.per_second);
  bucket.filled = now;
  if (bucket.left < 1) return false;
  bucket.left -= 1;
  return true;
}

bool ConnectionGate::must_wait() const {
  const std::lock_guard lock(mutex_);
  if (static_cast<int>(strangers_.size()) < limits_.most_strangers) return false;
  const Connection& oldest = strangers_.at(order_.front());
  return inode_of(oldest.fd) == oldest.inode && Clock::now() - oldest.since < limits_.grace;
}

/// Room for one more stranger. False: there is none.
bool ConnectionGate::make_room(Report& report) {
  const auto open = [this] { return static_cast<int>(strangers_.size() + members_.size()); };
  if (open() >= most_) {
    std::erase_if(members_, [](const auto& entry) {
      return inode_of(entry.second.fd) != entry.second.inode;
    });
  }
  const bool many = static_cast<int>(strangers_.size()) >= limits_.most_strangers;
  if (!many && open() < most_) return true;
  if (strangers_.empty()) return false;
  const auto oldest = strangers_.find(order_.front());
  const Connection& stranger = oldest->second;
  if (inode_of(stranger.fd) == stranger.inode) {
    // The server sees the end, and closes the socket.
    ::shutdown(stranger.fd, SHUT_RDWR);
    ++ended_;
    report.emplace_back(stranger.host, "it holds connections without a member's call");
  }
  forget(oldest);
  return true;
}

void ConnectionGate::sweep(Report& report) {
  const auto now = Clock::now();
  for (auto place = strangers_.begin(); place != strangers_.end();) {
    const auto next = std::next(place);
    const Connection& one = place->second;
    if (inode_of(one.fd) != one.inode) {
      if (one.refusals == 0) report.emplace_back(one.host, "a connection ended without a call");
      forget(place);
    } else if (now - one.since > limits_.stranger_time) {
      ::shutdown(one.fd, SHUT_RDWR);
      ++ended_;
      report.emplace_back(one.host, "it holds connections without a member's call");
      forget(place);
    }
    place = next;
  }
}

void ConnectionGate::forget(std::unordered_map<std::string, Connection>::iterator stranger) {
  order_.erase(stranger->second.place);
  strangers_.erase(stranger);
}

void ConnectionGate::tell(const Report& report) const {
  for (const auto& [host, why] : report) refused_(host, why);
}

void ConnectionGate::member(const std::string& peer) {
  const std::string key = key_of(peer);
  const std::lock_guard lock(mutex_);
  const auto found = strangers_.find(key);
  if (found == strangers_.end()) return;
  Connection connection = std::move(found->second);
  forget(found);
  members_[key] = std::move(connection);
}

void ConnectionGate::refused_call(const std::string& peer) {
  const std::string key = key_of(peer);
  const std::lock_guard lock(mutex_);
  const auto found = strangers_.find(key);
  if (found == strangers_.end() || ++found->second.refusals < limits_.most_refusals) return;
  if (inode_of(found->second.fd) == found->second.inode) ::shutdown(found->second.fd, SHUT_RDWR);
  ++ended_;
  forget(found);
}

int64_t ConnectionGate::ended() const {
  const std::lock_guard lock(mutex_);
  return ended_;
}

}  // namespace praetor::rpc
