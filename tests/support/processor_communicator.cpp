#include "tests/support/processor_communicator.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "core/cuda/device.h"

namespace praetor::testing {
namespace {

using cuda::DeviceError;

/// What a rank says first.
struct Hello {
  int32_t rank, world, device;
};
/// What goes before a broadcast's bytes.
struct Lead {
  int64_t number, bytes;
};
constexpr char kWelcome = 'w';
constexpr char kSameDevice = 'd';
/// Most bytes of one write, so that a broadcast can be held in its middle.
constexpr size_t kPart = 16384;

/// Listening sockets whose first rank has not joined yet, by id.
std::mutex listeners_mutex;
std::map<std::string, int> listeners;

int new_socket() {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) throw DeviceError(str("no socket: ", std::strerror(errno)));
  return fd;
}

/// An abstract address, which nobody need remove.
std::pair<sockaddr_un, socklen_t> address_of(const std::string& id) {
  sockaddr_un out{};
  out.sun_family = AF_UNIX;
  if (id.empty() || id.size() > sizeof(out.sun_path) - 1)
    throw DeviceError(str("NCCL: an id of ", id.size(), " bytes"));
  std::memcpy(out.sun_path + 1, id.data(), id.size());
  return {out, static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + id.size())};
}

const char* setting(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? value : nullptr;
}

class Connection {
 public:
  explicit Connection(int fd) : fd_(fd) {}
  ~Connection() {
    if (fd_ >= 0) ::close(fd_);
  }
  Connection(Connection&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Connection& operator=(Connection&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  int fd() const { return fd_; }
  /// Bytes that went through now; -1: the other end has gone.
  ssize_t write(const void* from, size_t size) const {
    return moved(::send(fd_, from, size, MSG_NOSIGNAL | MSG_DONTWAIT));
  }
  ssize_t read(void* to, size_t size) const {
    const ssize_t got = ::recv(fd_, to, size, MSG_DONTWAIT);
    return got == 0 ? -1 : moved(got);
  }
  bool gone() const {
    char unused = 0;
    return ::recv(fd_, &unused, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
  }

 private:
  static ssize_t moved(ssize_t count) {
    if (count >= 0) return count;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
  }
  int fd_;
};

class ProcessorCommunicator final : public cuda::Communicator {
 public:
  ProcessorCommunicator(const std::string& id, int32_t rank, int32_t world, int32_t device)
      : id_(id), rank_(rank), world_(world), device_(device) {
    if (rank < 0 || rank >= world) throw DeviceError(str("NCCL: rank ", rank, " of ", world));
    if (rank > 0) return;
    const std::lock_guard lock(listeners_mutex);
    const auto found = listeners.find(id);
    if (found == listeners.end()) throw DeviceError("NCCL: the id is not of this process");
    peers_.emplace_back(found->second);  // the listening socket, in its own place
    listeners.erase(found);
  }

  void start(const Work& work) override {
    if (work.operation != Operation::kBroadcast || work.root != 0)
      throw DeviceError("the processor's library broadcasts from the first rank alone");
    work_ = work;
    lead_ = {++number_, work.send_count};
    done_.assign(static_cast<size_t>(world_), 0);
    done_[0] = whole();
    running_ = true;
  }

  State poll_but(int64_t /*last*/) override {
    if (!failure_.empty()) return State::kFailed;
    if (!joined_) {
      rank_ == 0 ? gather() : knock();
      if (!failure_.empty()) return State::kFailed;
      return joined_ ? State::kDone : State::kBusy;
    }
    if (!running_) return State::kDone;
    const bool through = rank_ == 0 ? give() : take();
    if (!failure_.empty()) return State::kFailed;
    if (through) running_ = false;
    return through ? State::kDone : State::kBusy;
  }

  std::string failure() const override { return failure_; }

  void finish(const Work& work) override {
    const char* file = setting("PRAETOR_PROCESSOR_CORRUPT");
    if (rank_ > 0 && file && ::unlink(file) == 0)
      static_cast<char*>(work.receive)[work.receive_count / 2] ^= 1;
  }

  void abort() noexcept override {
    peers_.clear();
    if (failure_.empty()) failure_ = "aborted";
  }

 private:
  size_t whole() const { return sizeof(Lead) + static_cast<size_t>(lead_.bytes); }
  void lose(int32_t rank) { failure_ = str("rank ", rank, " has gone"); }

  /// The first rank's: takes the others in.
  void gather() {
    for (;;) {
      const int fd = ::accept4(peers_[0].fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) break;
      strangers_.emplace_back(fd);
    }
    for (size_t i = 0; i < strangers_.size();) {
      Hello hello{};
      // A message this small comes whole or not at all.
      const ssize_t got = strangers_[i].read(&hello, sizeof(hello));
      if (got == 0) {
        ++i;
        continue;
      }
      Connection peer = std::move(strangers_[i]);
      strangers_.erase(strangers_.begin() + static_cast<std::ptrdiff_t>(i));
      if (got != sizeof(hello) || hello.world != world_ || hello.rank < 1 || hello.rank >= world_)
        continue;
      known_.emplace(hello.rank, std::pair(hello.device, std::move(peer)));
    }
    if (static_cast<int32_t>(known_.size()) + 1 < world_) return;
    std::vector<int32_t> devices{device_};
    for (const auto& [rank, one] : known_) devices.push_back(one.first);
    std::ranges::sort(devices);
    const auto twice = std::ranges::adjacent_find(devices);
    const char answer = twice == devices.end() ? kWelcome : kSameDevice;
    peers_.clear();
    peers_.emplace_back(-1);
    for (auto& [rank, one] : known_) {
      if (one.second.write(&answer, 1) != 1) return lose(rank);
      peers_.push_back(std::move(one.second));
    }
    known_.clear();
    if (answer == kSameDevice) failure_ = str("two ranks have device ", *twice);
    joined_ = true;
  }

  void knock() {
    if (peers_.empty()) {
      Connection root(new_socket());
      const auto [address, size] = address_of(id_);
      if (::connect(root.fd(), reinterpret_cast<const sockaddr*>(&address), size) != 0) {
        if (errno != EAGAIN && errno != EINTR)
          failure_ = str("the first rank cannot be reached: ", std::strerror(errno));
        return;
      }
      const Hello hello{rank_, world_, device_};
      if (root.write(&hello, sizeof(hello)) != sizeof(hello)) return lose(0);
      peers_.push_back(std::move(root));
    }
    char answer = 0;
    const ssize_t got = peers_[0].read(&answer, 1);
    if (got < 0) return lose(0);
    if (got == 0) return;
    if (answer == kSameDevice) failure_ = "two ranks have one device";
    joined_ = true;
  }

  /// The first rank's part: true once all sockets have it.
  bool give() {
    const char* hold = setting("PRAETOR_PROCESSOR_HOLD");
    const bool held = hold && ::access(hold, F_OK) == 0;
    bool through = true;
    for (int32_t r = 1; r < world_; ++r) {
      size_t& done = done_[static_cast<size_t>(r)];
      const Connection& peer = peers_[static_cast<size_t>(r)];
      if (peer.gone()) {
        lose(r);
        return false;
      }
      while (done < whole() && !(held && done > 0)) {
        const bool lead = done < sizeof(Lead);
        const char* from = lead ? reinterpret_cast<const char*>(&lead_) + done
                                : static_cast<const char*>(work_.send) + (done - sizeof(Lead));
        const size_t left = (lead ? sizeof(Lead) : whole()) - done;
        const ssize_t put = peer.write(from, std::min(left, kPart));
        if (put < 0) {
          lose(r);
          return false;
        }
        if (put == 0) break;
        done += static_cast<size_t>(put);
      }
      through = through && done == whole();
    }
    return through;
  }

  bool take() {
    size_t& done = done_[static_cast<size_t>(rank_)];
    while (done < whole()) {
      const bool lead = done < sizeof(Lead);
      char* to = lead ? reinterpret_cast<char*>(&came_) + done
                      : static_cast<char*>(work_.receive) + (done - sizeof(Lead));
      const ssize_t got = peers_[0].read(to, (lead ? sizeof(Lead) : whole()) - done);
      if (got < 0) lose(0);
      if (got <= 0) return false;
      done += static_cast<size_t>(got);
      if (done == sizeof(Lead) && (came_.number != lead_.number || came_.bytes != lead_.bytes)) {
        failure_ =
            str("broadcast ", came_.number, " of ", came_.bytes, " bytes came, wanted was ") +
            str(lead_.number, " of ", lead_.bytes);
        return false;
      }
    }
    return true;
  }

  const std::string id_;
  const int32_t rank_, world_, device_;
  /// The first rank: by rank, the listening socket in its own place until all have come. The
  /// others: the first rank alone.
  std::vector<Connection> peers_;
  std::vector<Connection> strangers_;                        ///< that have not said who they are
  std::map<int32_t, std::pair<int32_t, Connection>> known_;  ///< rank to device and connection
  bool joined_ = false, running_ = false;
  Work work_{};
  int64_t number_ = 0;
  Lead lead_{}, came_{};
  std::vector<size_t> done_;  ///< bytes that each rank has
  std::string failure_;
};

}  // namespace

std::string processor_group_id() {
  static std::atomic<int64_t> made{0};
  const std::string id = str("praetor-group-",
                             ::getpid(),
                             '-',
                             std::chrono::steady_clock::now().time_since_epoch().count(),
                             '-',
                             ++made);
  Connection listener(new_socket());
  const auto [address, size] = address_of(id);
  if (::bind(listener.fd(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      ::listen(listener.fd(), 64) != 0)
    throw DeviceError(str("cannot listen: ", std::strerror(errno)));
  const std::lock_guard lock(listeners_mutex);
  // dup: the object closes its own.
  listeners[id] = ::fcntl(listener.fd(), F_DUPFD_CLOEXEC, 0);
  return id;
}

std::unique_ptr<cuda::Communicator> join_processor_group(const std::string& id,
                                                         int32_t rank,
                                                         int32_t world_size,
                                                         int32_t device) {
  return std::make_unique<ProcessorCommunicator>(id, rank, world_size, device);
}

}  // namespace praetor::testing
