#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include "core/base/error.h"
#include "core/collective/exchange_collective.h"

namespace praetor {
namespace {

using Operation = CollectiveCall::Operation;

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
  std::mutex mutex;
  std::condition_variable arrived;  ///< something, somewhere
  std::map<std::pair<int64_t, std::vector<int32_t>>, std::shared_ptr<Queues>>
      groups;                              ///< by id and members
  std::map<int32_t, std::string> gave_up;  ///< ranks of the whole, with their farewells
};

class ThreadCollective final : public ExchangeCollective {
 public:
  ThreadCollective(std::shared_ptr<Process> process,
                   int32_t rank,
                   int32_t world_size,
                   CollectiveOptions options)
      : ExchangeCollective(rank, world_size, options), process_(std::move(process)) {
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
    const auto start = std::chrono::steady_clock::now();
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
        if (!missing.empty()) {
          stop_if_another_gave_up(
              call, {.missing = missing, .waited = std::chrono::steady_clock::now() - start});
        }
        return missing.empty();
      };
      if (!process_->arrived.wait_until(lock, start + options().deadline, take)) {
        lock.unlock();
        throw_late(call, {.missing = missing, .waited = std::chrono::steady_clock::now() - start});
      }
    }
    for (const int32_t peer : routes.from) {
      const auto r = static_cast<size_t>(peer);
      if (in[r].bytes.empty()) continue;
      PRAETOR_CHECK(in[r].bytes.size() == receive[r].size(), call.text());
      std::memcpy(receive[r].data(), in[r].bytes.data(), in[r].bytes.size());
    }
  }

  void send_abort(const std::string& farewell) noexcept override {
    const std::lock_guard lock(process_->mutex);
    process_->gave_up.emplace(global_rank(), farewell);
    process_->arrived.notify_all();
  }
  std::optional<std::string> farewell_of(int32_t global_peer,
                                         std::chrono::steady_clock::time_point until) override {
    std::unique_lock lock(process_->mutex);
    const auto said = [&] { return process_->gave_up.contains(global_peer); };
    if (!process_->arrived.wait_until(lock, until, said)) return std::nullopt;
    return process_->gave_up.at(global_peer);
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
  void stop_if_another_gave_up(const CollectiveCall& call, const Wait& wait) const {
    if (process_->gave_up.empty()) return;
    auto found = process_->gave_up.begin();
    for (const int32_t peer : wait.missing) {
      const auto one = process_->gave_up.find(group().global(peer));
      if (one == process_->gave_up.end()) continue;
      found = one;
      break;
    }
    throw_aborted(call, found->first, found->second, wait);
  }

  std::shared_ptr<Process> process_;
  std::shared_ptr<Queues> queues_;
};

}  // namespace

std::vector<std::unique_ptr<Collective>> make_thread_group(int32_t world_size,
                                                           CollectiveOptions options) {
  if (world_size < 1)
    throw InvalidArgument("a group of ", world_size, " threads has no ranks; wanted 1 or more");
  const auto process = std::make_shared<Process>();
  std::vector<std::unique_ptr<Collective>> out;
  for (int32_t rank = 0; rank < world_size; ++rank)
    out.push_back(std::make_unique<ThreadCollective>(process, rank, world_size, options));
  return out;
}

}  // namespace praetor
