#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <utility>

#include "core/base/error.h"
#include "core/collective/exchange_collective.h"

namespace praetor {
namespace {

using Operation = CollectiveCall::Operation;

/// A queue for each ordered pair of ranks. Messages are copies, so that a rank which fails leaves
/// nothing behind that another still reads.
struct Group {
  struct Message {
    CollectiveCall call;
    std::string bytes;  ///< or the reason of an abort
  };
  explicit Group(size_t world) : queues(world, std::vector<std::deque<Message>>(world)) {}

  std::mutex mutex;
  std::condition_variable arrived;
  std::vector<std::vector<std::deque<Message>>> queues;  ///< [from][to]
};

class ThreadCollective final : public ExchangeCollective {
 public:
  ThreadCollective(std::shared_ptr<Group> group,
                   int32_t rank,
                   int32_t world_size,
                   CollectiveOptions options)
      : ExchangeCollective(rank, world_size, options), group_(std::move(group)) {}
  ~ThreadCollective() override {
    settle();
    if (!failed()) post(Operation::kClose, "");
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
    std::vector<Group::Message> out(world), in(world);
    for (const int32_t peer : routes.to) {
      const auto r = static_cast<size_t>(peer);
      out[r].call = call;
      out[r].bytes.assign(reinterpret_cast<const char*>(send[r].data()), send[r].size());
    }
    {
      std::unique_lock lock(group_->mutex);
      for (const int32_t peer : routes.to) {
        const auto r = static_cast<size_t>(peer);
        group_->queues[mine][r].push_back(std::move(out[r]));
      }
      group_->arrived.notify_all();
      // In the order of arrival as far as errors go: one that gave up is not waited for.
      std::vector<int32_t> missing = routes.from;
      const auto take = [&] {
        stop_if_given_up(call);
        std::erase_if(missing, [&](int32_t peer) {
          const auto r = static_cast<size_t>(peer);
          auto& queue = group_->queues[r][mine];
          if (queue.empty()) return false;
          in[r] = std::move(queue.front());
          queue.pop_front();
          if (in[r].call.operation == Operation::kAbort) throw_aborted(call, peer, in[r].bytes);
          require_same(call, peer, in[r].call);
          return true;
        });
        return missing.empty();
      };
      if (!group_->arrived.wait_until(lock, start + options().deadline, take))
        throw_late(call, missing, {}, std::chrono::steady_clock::now() - start);
    }
    for (const int32_t peer : routes.from) {
      const auto r = static_cast<size_t>(peer);
      if (in[r].bytes.empty()) continue;
      PRAETOR_CHECK(in[r].bytes.size() == receive[r].size(), call.text());
      std::memcpy(receive[r].data(), in[r].bytes.data(), in[r].bytes.size());
    }
  }

  void send_abort(const std::string& reason) noexcept override { post(Operation::kAbort, reason); }
  void wake() noexcept override {
    const std::lock_guard lock(group_->mutex);
    group_->arrived.notify_all();
  }

 private:
  void post(Operation operation, const std::string& text) noexcept {
    const std::lock_guard lock(group_->mutex);
    for (size_t r = 0; r < group_->queues.size(); ++r) {
      if (r == static_cast<size_t>(rank())) continue;
      Group::Message message;
      message.call.operation = operation;
      message.bytes = text;
      group_->queues[static_cast<size_t>(rank())][r].push_back(std::move(message));
    }
    group_->arrived.notify_all();
  }

  std::shared_ptr<Group> group_;
};

}  // namespace

std::vector<std::unique_ptr<Collective>> make_thread_group(int32_t world_size,
                                                           CollectiveOptions options) {
  if (world_size < 1)
    throw InvalidArgument("a group of ", world_size, " threads has no ranks; wanted 1 or more");
  const auto group = std::make_shared<Group>(static_cast<size_t>(world_size));
  std::vector<std::unique_ptr<Collective>> out;
  for (int32_t rank = 0; rank < world_size; ++rank)
    out.push_back(std::make_unique<ThreadCollective>(group, rank, world_size, options));
  return out;
}

}  // namespace praetor
