#include "tests/support/timed_link.h"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "core/collective/exchange_collective.h"
#include "core/collective/side_channel.h"

namespace praetor::testing {
namespace {

using Clock = std::chrono::steady_clock;

/// Messages of all groups that are on their way, by group, sender and receiver.
struct Wire {
  using Way = std::pair<std::vector<int64_t>, std::pair<int32_t, int32_t>>;
  TimedLink link;
  std::vector<std::atomic<int64_t>>* sent = nullptr;
  std::mutex mutex;
  std::condition_variable arrived;
  std::map<Way, std::deque<std::string>> ways;
  bool gave_up = false;
};

/// Whoever gives up ends all waits.
class WireChannel final : public SideChannel {
 public:
  explicit WireChannel(std::shared_ptr<Wire> wire) : wire_(std::move(wire)) {}
  void send_abort(const std::string& /*reason*/) noexcept override {
    const std::lock_guard lock(wire_->mutex);
    wire_->gave_up = true;
    wire_->arrived.notify_all();
  }
  std::optional<Word> aborted() override { return std::nullopt; }
  void tell(int32_t /*to*/, const std::string& /*text*/) noexcept override {}
  std::vector<Word> heard() override { return {}; }

 private:
  std::shared_ptr<Wire> wire_;
};

class TimedCollective final : public ExchangeCollective {
 public:
  TimedCollective(std::shared_ptr<Wire> wire, int32_t rank, int32_t world_size)
      : ExchangeCollective(rank,
                           world_size,
                           {.deadline = std::chrono::seconds(120)},
                           std::make_shared<WireChannel>(wire)),
        wire_(std::move(wire)) {}
  TimedCollective(const TimedCollective& whole, Membership group)
      : ExchangeCollective(whole, std::move(group)), wire_(whole.wire_) {}
  ~TimedCollective() override { settle(); }
  std::string backend() const override { return "timed link"; }

 protected:
  void exchange(const CollectiveCall& call,
                const Routes& routes,
                const std::vector<Bytes>& send,
                const std::vector<MutableBytes>& receive) override {
    const auto begin = Clock::now();
    size_t bytes = 0;
    for (const int32_t peer : routes.to) bytes += send[static_cast<size_t>(peer)].size();
    (*wire_->sent)[static_cast<size_t>(global_rank())] += static_cast<int64_t>(bytes);
    double seconds = static_cast<double>(routes.to.size()) * wire_->link.message_seconds;
    if (wire_->link.bytes_a_second > 0)
      seconds += static_cast<double>(bytes) / wire_->link.bytes_a_second;
    std::this_thread::sleep_until(begin + std::chrono::duration_cast<Clock::duration>(
                                              std::chrono::duration<double>(seconds)));
    std::unique_lock lock(wire_->mutex);
    for (const int32_t peer : routes.to) {
      const Bytes message = send[static_cast<size_t>(peer)];
      wire_->ways[way(rank(), peer)].emplace_back(reinterpret_cast<const char*>(message.data()),
                                                  message.size());
    }
    wire_->arrived.notify_all();
    for (const int32_t peer : routes.from) {
      auto& waiting = wire_->ways[way(peer, rank())];
      const bool came = wire_->arrived.wait_until(
          lock, begin + options().deadline, [&] { return wire_->gave_up || !waiting.empty(); });
      const MutableBytes to = receive[static_cast<size_t>(peer)];
      if (!came || waiting.empty() || waiting.front().size() != to.size())
        throw CollectiveError("rank ", rank(), ": ", call.text(), ": nothing came of rank ", peer);
      if (!to.empty()) std::memcpy(to.data(), waiting.front().data(), to.size());
      waiting.pop_front();
    }
  }

  std::unique_ptr<ExchangeCollective> make_group(Membership group) override {
    return std::make_unique<TimedCollective>(*this, std::move(group));
  }

 private:
  Wire::Way way(int32_t from, int32_t to) const {
    std::vector<int64_t> of{group().id};
    of.insert(of.end(), group().members.begin(), group().members.end());
    return {std::move(of), {from, to}};
  }

  std::shared_ptr<Wire> wire_;
};

}  // namespace

std::vector<std::unique_ptr<Collective>> make_timed_group(int32_t world_size,
                                                          TimedLink link,
                                                          std::vector<std::atomic<int64_t>>& sent) {
  PRAETOR_CHECK(sent.size() == static_cast<size_t>(world_size), "a counter for each rank");
  const auto wire = std::make_shared<Wire>();
  wire->link = link;
  wire->sent = &sent;
  std::vector<std::unique_ptr<Collective>> out;
  for (int32_t rank = 0; rank < world_size; ++rank)
    out.push_back(std::make_unique<TimedCollective>(wire, rank, world_size));
  return out;
}

}  // namespace praetor::testing
