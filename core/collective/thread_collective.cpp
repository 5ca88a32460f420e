#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/collective/exchange_collective.h"

namespace praetor {
namespace {

using Operation = CollectiveCall::Operation;
using Clock = std::chrono::steady_clock;

/// How often a rank that waits looks whether it was asked something.
constexpr std::chrono::milliseconds kLook{20};

struct Message {
  CollectiveCall call;
  std::string bytes;
};

/// Of one group: a queue for each ordered pair of its ranks. Messages are copies, so that a rank
/// which fails leaves nothing behind that another still reads.
struct Queues {
  explicit Queues(size_t world) : of(world, std::vector<std::deque<Message>>(world)) {}
  std::vector<std::vector<std::deque<Message>>> of;  ///< [from][to]
};

/// What all ranks and groups have in common.
struct Process {
  explicit Process(int32_t world_size) : mail(static_cast<size_t>(world_size)) {}

  std::mutex mutex;
  std::condition_variable arrived;  ///< something, somewhere
  std::map<std::pair<int64_t, std::vector<int32_t>>, std::shared_ptr<Queues>>
      groups;                              ///< by id and members
  std::map<int32_t, std::string> gave_up;  ///< ranks of the whole, with their reasons

  std::mutex mail_mutex;                             ///< may be taken under the other
  std::vector<std::vector<SideChannel::Word>> mail;  ///< by receiver
};

class ThreadChannel final : public SideChannel {
 public:
  ThreadChannel(std::shared_ptr<Process> process, int32_t rank)
      : process_(std::move(process)), rank_(rank) {}

  void send_abort(const std::string& reason) noexcept override {
    const std::lock_guard lock(process_->mutex);
    process_->gave_up.emplace(rank_, reason);
    process_->arrived.notify_all();
  }
  std::optional<Word> aborted() override {
    const std::lock_guard lock(process_->mutex);
    for (const auto& [rank, reason] : process_->gave_up) {
      if (rank != rank_) return Word{rank, reason};
    }
    return std::nullopt;
  }
  void tell(int32_t to, const std::string& text) noexcept override {
    const std::lock_guard lock(process_->mail_mutex);
    process_->mail[static_cast<size_t>(to)].push_back({rank_, text});
  }
  std::vector<Word> heard() override {
    const std::lock_guard lock(process_->mail_mutex);
    return std::exchange(process_->mail[static_cast<size_t>(rank_)], {});
  }

 private:
  std::shared_ptr<Process> process_;
  int32_t rank_;
};

class ThreadCollective final : public ExchangeCollective {
 public:
  ThreadCollective(std::shared_ptr<Process> process,
                   int32_t rank,
                   int32_t world_size,
                   CollectiveOptions options)
      : ExchangeCollective(
            rank, world_size, options, std::make_shared<ThreadChannel>(process, rank)),
        process_(std::move(process)) {
    join();
  }
  ThreadCollective(const ThreadCollective& whole, Membership group)
      : ExchangeCollective(whole, std::move(group)), process_(whole.process_) {
    join();
  }
  ~ThreadCollective() override {
    settle();
    if (!failed()) leave();
  }
  std::string backend() const override { return "threads"; }

 protected:
  void exchange(const CollectiveCall& call,
                const Routes& routes,
                const std::vector<Bytes>& send,
                const std::vector<MutableBytes>& receive) override {
    const auto mine = static_cast<size_t>(rank());
    const auto world = static_cast<size_t>(world_size());
    const auto start = Clock::now();
    RollCall::Wait wait = roll_call_of(call);
    std::vector<Message> out(world), in(world);
    for (const int32_t peer : routes.to) {
      const auto r = static_cast<size_t>(peer);
      out[r].call = call;
      out[r].bytes.assign(reinterpret_cast<const char*>(send[r].data()), send[r].size());
    }
    {
      std::unique_lock lock(process_->mutex);
      for (const int32_t peer : routes.to) {
        const auto r = static_cast<size_t>(peer);
        queues_->of[mine][r].push_back(std::move(out[r]));
      }
      process_->arrived.notify_all();
      std::vector<int32_t> missing = routes.from;
      const auto take = [&] {
        stop_if_failed(call);
        std::erase_if(missing, [&](int32_t peer) {
          const auto r = static_cast<size_t>(peer);
          auto& queue = queues_->of[r][mine];
          if (queue.empty()) return false;
          in[r] = std::move(queue.front());
          queue.pop_front();
          require_same(call, peer, in[r].call);
          return true;
        });
        if (!missing.empty()) stop_if_another_gave_up(call, missing);
        return missing.empty();
      };
      while (!process_->arrived.wait_for(lock, kLook, take)) {
        wait.attend();
        const auto waited = Clock::now() - start;
        if (is_late(options().deadline, waited)) throw_late(call, missing, {}, waited);
      }
    }
    for (const int32_t peer : routes.from) {
      const auto r = static_cast<size_t>(peer);
      if (in[r].bytes.empty()) continue;
      PRAETOR_CHECK(in[r].bytes.size() == receive[r].size(), call.text());
      std::memcpy(receive[r].data(), in[r].bytes.data(), in[r].bytes.size());
    }
  }

  void wake() noexcept override {
    const std::lock_guard lock(process_->mutex);
    process_->arrived.notify_all();
  }
  std::unique_ptr<ExchangeCollective> make_group(Membership group) override {
    return std::make_unique<ThreadCollective>(*this, std::move(group));
  }

 private:
  /// Whoever comes first makes the queues.
  void join() {
    const std::lock_guard lock(process_->mutex);
    auto& queues = process_->groups[{group().id, group().members}];
    if (!queues) queues = std::make_shared<Queues>(group().members.size());
    queues_ = queues;
  }

  void leave() {
    const std::lock_guard lock(process_->mutex);
    for (std::deque<Message>& queue : queues_->of[static_cast<size_t>(rank())]) {
      Message message;
      message.call.operation = Operation::kClose;
      queue.push_back(std::move(message));
    }
    process_->arrived.notify_all();
  }

  /// One that is waited for is named before one that others may be waiting for.
  void stop_if_another_gave_up(const CollectiveCall& call,
                               const std::vector<int32_t>& missing) const {
    if (process_->gave_up.empty()) return;
    for (const int32_t peer : missing) {
      const auto found = process_->gave_up.find(group().global(peer));
      if (found != process_->gave_up.end()) throw_aborted(call, found->first, found->second);
    }
    throw_aborted(call, process_->gave_up.begin()->first, process_->gave_up.begin()->second);
  }

  std::shared_ptr<Process> process_;
  std::shared_ptr<Queues> queues_;
};

}  // namespace

std::vector<std::unique_ptr<Collective>> make_thread_group(int32_t world_size,
                                                           CollectiveOptions options) {
  if (world_size < 1)
    throw InvalidArgument("a group of ", world_size, " threads has no ranks; wanted 1 or more");
  const auto process = std::make_shared<Process>(world_size);
  std::vector<std::unique_ptr<Collective>> out;
  for (int32_t rank = 0; rank < world_size; ++rank)
    out.push_back(std::make_unique<ThreadCollective>(process, rank, world_size, options));
  return out;
}

}  // namespace praetor
