#include "tests/support/processor_communicator.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/cuda/bfloat16.h"
#include "core/cuda/device.h"

namespace praetor::testing {
namespace {

using cuda::DeviceError;
using Operation = cuda::Communicator::Operation;
using Element = cuda::Communicator::Element;
using Work = cuda::Communicator::Work;
using Bytes = std::vector<char>;

/// What a rank says first.
struct Hello {
  int32_t rank, world, device;
};
/// What goes before the bytes of a message.
struct Lead {
  int64_t number, send_count, receive_count;
  Operation operation;
  Element type;
  int32_t root, unused;
  bool operator==(const Lead&) const = default;
};
constexpr char kWelcome = 'w';
constexpr char kSameDevice = 'd';
/// Most bytes of one write, so that a message can be held in its middle.
constexpr size_t kPart = 16384;
constexpr std::chrono::milliseconds kPause{1};
/// How long a message that stands still is waited for before somebody is asked whether to stop.
constexpr int kPollMs = 10;

/// The thread is to end.
struct Stopped {};

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

size_t width_of(Element type) {
  return static_cast<size_t>(cuda::bytes_of(type));
}

/// out[i] = ((parts[0][at + i] + parts[1][at + i]) + ...), each term taken for a Sum.
template <typename T, typename Sum, typename In, typename Out>
Bytes sum(const std::vector<Bytes>& parts, size_t at, size_t count, In in, Out out) {
  Bytes result(count * sizeof(T));
  for (size_t i = 0; i < count; ++i) {
    Sum total{};
    for (size_t r = 0; r < parts.size(); ++r) {
      T term;
      std::memcpy(&term, parts[r].data() + (at + i) * sizeof(T), sizeof(T));
      // The first is taken as it is: 0 + -0 would be 0.
      total = r == 0 ? in(term) : static_cast<Sum>(total + in(term));
    }
    const T rounded = out(total);
    std::memcpy(result.data() + i * sizeof(T), &rounded, sizeof(T));
  }
  return result;
}
template <typename T>
Bytes sum(const std::vector<Bytes>& parts, size_t at, size_t count) {
  const auto same = [](T value) { return value; };
  return sum<T, T>(parts, at, count, same, same);
}

Bytes sum(Element type, const std::vector<Bytes>& parts, size_t at, size_t count) {
  switch (type) {
    case Element::kFloat32:
      return sum<float>(parts, at, count);
    case Element::kFloat64:
      return sum<double>(parts, at, count);
    case Element::kInt64:
      return sum<uint64_t>(parts, at, count);  // wraps
    case Element::kInt32:
      return sum<uint32_t>(parts, at, count);
    case Element::kBFloat16:
      return sum<cuda::Bfloat16, float>(
          parts,
          at,
          count,
          [](cuda::Bfloat16 value) { return cuda::to_float(value); },
          cuda::to_bfloat16);
    case Element::kByte:
      break;
  }
  throw DeviceError("bytes are not summed");
}

/// What rank `rank` receives, of all ranks' parts.
Bytes result_of(const Work& work, const std::vector<Bytes>& parts, size_t rank) {
  const auto count = static_cast<size_t>(work.receive_count);
  Bytes out;
  switch (work.operation) {
    case Operation::kReduceScatter:
      return sum(work.type, parts, rank * count, count);
    case Operation::kAllReduce:
      return sum(work.type, parts, 0, count);
    case Operation::kAllGather:
      for (const Bytes& part : parts) out.insert(out.end(), part.begin(), part.end());
      return out;
    case Operation::kAllToAll:
      for (const Bytes& part : parts) {
        const size_t size = part.size() / parts.size();
        const char* const mine = part.data() + rank * size;
        out.insert(out.end(), mine, mine + size);
      }
      return out;
    case Operation::kBroadcast:
      return parts[static_cast<size_t>(work.root)];
    case Operation::kSend:
    case Operation::kReceive:
      break;
  }
  throw DeviceError("the processor's NCCL has nothing between two ranks alone");
}

/// A message on its way between the first rank and another.
struct Transfer {
  int32_t rank;  ///< the other
  const Connection* peer;
  char* bytes;
  size_t size, done = 0;
  bool known = false;  ///< its lead has come, and is the one that is wanted
  bool through() const { return done == size; }
};

class ProcessorCommunicator final : public cuda::Communicator {
 public:
  ProcessorCommunicator(
      const std::string& id, int32_t rank, int32_t world, int32_t device, Translate translate)
      : id_(id), rank_(rank), world_(world), device_(device), translate_(translate) {
    if (rank < 0 || rank >= world) throw DeviceError(str("NCCL: rank ", rank, " of ", world));
    address_of(id);
    if (rank == 0) {
      const std::lock_guard lock(listeners_mutex);
      const auto found = listeners.find(id);
      if (found == listeners.end()) throw DeviceError("NCCL: the id is not of this process");
      peers_.emplace_back(found->second);  // the listening socket, in its own place
      listeners.erase(found);
    }
    thread_ = std::thread([this] { run(); });
  }
  ~ProcessorCommunicator() override { stop(); }

  void start(const Work& work) override {
    if (work.operation == Operation::kSend || work.operation == Operation::kReceive)
      throw DeviceError("the processor's NCCL has nothing between two ranks alone");
    const size_t size = width_of(work.type);
    Job job{.work = work};
    job.work.send = readable(const_cast<void*>(work.send), work.send_count, size);
    job.work.receive = readable(work.receive, work.receive_count, size);
    if (const char* hold = setting("PRAETOR_PROCESSOR_HOLD")) job.hold = hold;
    if (const char* file = setting("PRAETOR_PROCESSOR_CORRUPT")) job.corrupt = file;
    const std::lock_guard lock(mutex_);
    jobs_.push_back(job);
    ++started_;
    changed_.notify_all();
  }

  State poll_but(int64_t last) override {
    const std::lock_guard lock(mutex_);
    if (!failure_.empty()) return State::kFailed;
    if (done_ >= started_ - last) return State::kDone;
    return done_ == 0 ? State::kBusy : State::kRunning;
  }

  std::string failure() const override {
    const std::lock_guard lock(mutex_);
    return failure_;
  }

  void finish(const Work& /*work*/) override {}

  void abort() noexcept override {
    stop();
    const std::lock_guard lock(mutex_);
    if (failure_.empty()) failure_ = "aborted";
  }

 private:
  struct Job {
    Work work;
    std::string hold, corrupt;  ///< files; empty: none
  };

  void stop() noexcept {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      changed_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
    peers_.clear();
  }
  void stop_if_wanted() const {
    if (stopping_) throw Stopped();
  }
  [[noreturn]] static void lose(int32_t rank) {
    throw DeviceError(str("rank ", rank, " has gone"));
  }

  void* readable(void* address, int64_t count, size_t size) const {
    if (!translate_ || count == 0) return address;
    auto* const first = static_cast<char*>(translate_(address));
    const size_t last = static_cast<size_t>(count) * size - 1;
    if (translate_(static_cast<char*>(address) + last) != first + last)
      throw DeviceError(str("what lies behind ", address, " is no ", last + 1, " bytes long"));
    return first;
  }

  void run() noexcept {
    try {
      while (!joined_) {
        stop_if_wanted();
        rank_ == 0 ? gather() : knock();
        if (!joined_) std::this_thread::sleep_for(kPause);
      }
      for (;;) {
        std::unique_lock lock(mutex_);
        ++done_;
        changed_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
        stop_if_wanted();
        const Job job = std::move(jobs_.front());
        jobs_.pop_front();
        lock.unlock();
        ++number_;
        rank_ == 0 ? lead(job) : follow(job);
      }
    } catch (const Stopped&) {
    } catch (const std::exception& error) {
      const std::lock_guard lock(mutex_);
      failure_ = error.what();
    }
  }

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
      if (one.second.write(&answer, 1) != 1) lose(rank);
      peers_.push_back(std::move(one.second));
    }
    known_.clear();
    if (answer == kSameDevice) throw DeviceError(str("two ranks have device ", *twice));
    joined_ = true;
  }

  void knock() {
    if (peers_.empty()) {
      Connection root(new_socket());
      const auto [address, size] = address_of(id_);
      if (::connect(root.fd(), reinterpret_cast<const sockaddr*>(&address), size) != 0) {
        if (errno != EAGAIN && errno != EINTR)
          throw DeviceError(str("the first rank cannot be reached: ", std::strerror(errno)));
        return;
      }
      const Hello hello{rank_, world_, device_};
      if (root.write(&hello, sizeof(hello)) != sizeof(hello)) lose(0);
      peers_.push_back(std::move(root));
    }
    char answer = 0;
    const ssize_t got = peers_[0].read(&answer, 1);
    if (got < 0) lose(0);
    if (got == 0) return;
    if (answer == kSameDevice) throw DeviceError("two ranks have one device");
    joined_ = true;
  }

  Lead lead_of(const Work& work) const {
    return {.number = number_,
            .send_count = work.send_count,
            .receive_count = work.receive_count,
            .operation = work.operation,
            .type = work.type,
            .root = work.root,
            .unused = 0};
  }
  static void require_same(const Lead& mine, Transfer& from) {
    if (from.known || from.done < sizeof(Lead)) return;
    from.known = true;
    Lead theirs;
    std::memcpy(&theirs, from.bytes, sizeof(Lead));
    const auto text = [](const Lead& lead) {
      return str("operation ", static_cast<int>(lead.operation), " #", lead.number, " of ") +
             str(lead.send_count, " elements");
    };
    if (theirs != mine)
      throw DeviceError(
          str("rank ", from.rank, " is at ", text(theirs), ", this one at ", text(mine)));
  }
  static Bytes message(const Lead& lead, const void* bytes, size_t size) {
    Bytes out(sizeof(Lead) + size);
    std::memcpy(out.data(), &lead, sizeof(Lead));
    if (size > 0) std::memcpy(out.data() + sizeof(Lead), bytes, size);
    return out;
  }
  /// Bytes that a rank sends to the first one.
  static size_t part_bytes(const Work& work, int32_t rank) {
    if (work.operation == Operation::kBroadcast && rank != work.root) return 0;
    return static_cast<size_t>(work.send_count) * width_of(work.type);
  }
  static size_t result_bytes(const Work& work) {
    return static_cast<size_t>(work.receive_count) * width_of(work.type);
  }
  /// This rank's values are the result: who has given them up may have freed them.
  bool has_it(const Work& work) const {
    return work.operation == Operation::kBroadcast && work.root == rank_;
  }
  /// Nobody need tell the first rank anything.
  static bool only_down(const Work& work) {
    return work.operation == Operation::kBroadcast && work.root == 0;
  }

  void lead(const Job& job) {
    const Work& work = job.work;
    const Lead mine = lead_of(work);
    std::vector<Bytes> parts(static_cast<size_t>(world_)), messages = parts;
    const auto* const own = static_cast<const char*>(work.send);
    parts[0].assign(own, own + part_bytes(work, 0));
    if (!only_down(work)) {
      move(job, mine, false, messages, [&](int32_t r) {
        return sizeof(Lead) + part_bytes(work, r);
      });
      for (int32_t r = 1; r < world_; ++r) {
        const Bytes& message = messages[static_cast<size_t>(r)];
        parts[static_cast<size_t>(r)].assign(message.begin() + sizeof(Lead), message.end());
      }
    }
    for (int32_t r = 0; r < world_; ++r) {
      const auto at = static_cast<size_t>(r);
      const Bytes result = result_of(work, parts, at);
      if (r > 0) {
        messages[at] = message(mine, result.data(), result.size());
      } else {
        messages[0] = result;
      }
    }
    move(job, mine, true, messages, [&](int32_t r) {
      return messages[static_cast<size_t>(r)].size();
    });
    if (!has_it(work))
      std::copy(messages[0].begin(), messages[0].end(), static_cast<char*>(work.receive));
  }

  void follow(const Job& job) {
    const Work& work = job.work;
    const Lead mine = lead_of(work);
    std::vector<Bytes> messages(1);
    if (!only_down(work)) {
      messages[0] = message(mine, work.send, part_bytes(work, rank_));
      move(job, mine, true, messages, [&](int32_t) { return messages[0].size(); });
    }
    move(job, mine, false, messages, [&](int32_t) { return sizeof(Lead) + result_bytes(work); });
    if (has_it(work)) return;
    auto* const to = static_cast<char*>(work.receive);
    std::copy(messages[0].begin() + sizeof(Lead), messages[0].end(), to);
    if (work.on_device && !job.corrupt.empty() && ::unlink(job.corrupt.c_str()) == 0) {
      const auto middle = static_cast<size_t>(work.receive_count) / 2;
      to[(middle + 1) * width_of(work.type) - 1] ^= static_cast<char>(0x80);
    }
  }

  /// Every message to the other end, or from it: the first rank's by rank, without its own; else
  /// one to or from the first rank.
  template <typename SizeOf>
  void move(
      const Job& job, const Lead& lead, bool out, std::vector<Bytes>& messages, SizeOf size_of) {
    std::vector<Transfer> transfers;
    for (size_t i = rank_ == 0 ? 1 : 0; i < peers_.size(); ++i) {
      const auto rank = static_cast<int32_t>(i);
      messages[i].resize(size_of(rank));
      transfers.push_back({rank, &peers_[i], messages[i].data(), messages[i].size()});
    }
    for (;;) {
      stop_if_wanted();
      const bool held =
          rank_ == 0 && out && !job.hold.empty() && ::access(job.hold.c_str(), F_OK) == 0;
      for (Transfer& each : transfers) out ? give(each, held) : take(each, lead);
      std::erase_if(transfers, [](const Transfer& each) { return each.through(); });
      if (transfers.empty()) return;
      std::vector<pollfd> waited;
      for (const Transfer& each : transfers)
        waited.push_back({each.peer->fd(), static_cast<int16_t>(out ? POLLOUT : POLLIN), 0});
      if (held) {
        std::this_thread::sleep_for(kPause);
      } else {
        ::poll(waited.data(), waited.size(), kPollMs);
      }
    }
  }

  static void give(Transfer& to, bool held) {
    if (to.peer->gone()) lose(to.rank);
    while (!to.through() && !(held && to.done > 0)) {
      const size_t part = held ? sizeof(Lead) : kPart;
      const ssize_t put = to.peer->write(to.bytes + to.done, std::min(to.size - to.done, part));
      if (put < 0) lose(to.rank);
      if (put == 0) return;
      to.done += static_cast<size_t>(put);
    }
  }

  static void take(Transfer& from, const Lead& wanted) {
    while (!from.through()) {
      const ssize_t got = from.peer->read(from.bytes + from.done, from.size - from.done);
      if (got < 0) lose(from.rank);
      if (got == 0) return;
      from.done += static_cast<size_t>(got);
      require_same(wanted, from);
    }
  }

  const std::string id_;
  const int32_t rank_, world_, device_;
  const Translate translate_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;            ///< that the thread has not begun
  int64_t started_ = 1, done_ = 0;  ///< pieces of work; joining is the first
  std::string failure_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
  // The thread's.
  /// The first rank: by rank, the listening socket in its own place until all have come. The
  /// others: the first rank alone.
  std::vector<Connection> peers_;
  std::vector<Connection> strangers_;                        ///< that have not said who they are
  std::map<int32_t, std::pair<int32_t, Connection>> known_;  ///< rank to device and connection
  bool joined_ = false;
  int64_t number_ = 0;
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

std::unique_ptr<cuda::Communicator> join_processor_group(
    const std::string& id, int32_t rank, int32_t world_size, int32_t device, Translate translate) {
  return std::make_unique<ProcessorCommunicator>(id, rank, world_size, device, translate);
}

}  // namespace praetor::testing
