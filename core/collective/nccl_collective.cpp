#include "core/collective/nccl_collective.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "core/collective/exchange_collective.h"

namespace praetor {
namespace {

using Operation = CollectiveCall::Operation;
using Clock = std::chrono::steady_clock;
using State = cuda::Communicator::State;
using Element = cuda::Communicator::Element;
using std::chrono::microseconds;

/// How long a wait sleeps between two questions: short at first, as most operations are.
constexpr microseconds kFirstPause{20}, kLongestPause{2000};

static_assert(static_cast<int32_t>(ElementType::kInt64) == static_cast<int32_t>(Element::kInt64) &&
              static_cast<int32_t>(ElementType::kByte) == static_cast<int32_t>(Element::kByte));

Element element(ElementType type) {
  return static_cast<Element>(type);
}

class NcclCollective final : public Collective {
 public:
  NcclCollective(int32_t rank,
                 int32_t world_size,
                 CollectiveOptions options,
                 std::unique_ptr<cuda::Communicator> group)
      : rank_(rank), world_size_(world_size), options_(options), group_(std::move(group)) {
    wait("joining the group");
  }

  int32_t rank() const override { return rank_; }
  int32_t world_size() const override { return world_size_; }
  std::string backend() const override { return "nccl"; }

  using Collective::all_gather_bytes;
  std::vector<std::string> all_gather_bytes(std::span<const std::byte> send) override {
    const auto world = static_cast<size_t>(world_size_);
    const CollectiveCall call = next(Operation::kAllGatherBytes, ElementType::kByte, 0);
    // Lengths first, then all of them at the longest one's length.
    const auto length = static_cast<int64_t>(send.size());
    std::vector<int64_t> lengths(world);
    run(call,
        {cuda::Communicator::Operation::kAllGather,
         Element::kInt64,
         &length,
         1,
         lengths.data(),
         world_size_});
    const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
    std::vector<std::byte> mine(static_cast<size_t>(longest)), all(mine.size() * world);
    std::copy(send.begin(), send.end(), mine.begin());
    if (longest > 0) {
      run(call,
          {cuda::Communicator::Operation::kAllGather,
           Element::kByte,
           mine.data(),
           longest,
           all.data(),
           longest * world_size_});
    }
    std::vector<std::string> out;
    for (size_t r = 0; r < world; ++r) {
      out.emplace_back(reinterpret_cast<const char*>(all.data() + r * mine.size()),
                       static_cast<size_t>(lengths[r]));
    }
    return out;
  }

  void barrier() override {
    int64_t one = 1;
    run(next(Operation::kBarrier, ElementType::kByte, 0),
        {cuda::Communicator::Operation::kAllReduce, Element::kInt64, &one, 1, &one, 1});
  }

  void abort(const std::string& reason) noexcept override {
    if (failure_.empty()) failure_ = reason.empty() ? "it was given up" : reason;
    group_->abort();
  }

 protected:
  void do_reduce_scatter(ElementType type,
                         const void* send,
                         int64_t send_count,
                         void* receive,
                         int64_t receive_count) override {
    require_even(rank_, world_size_, "reduce_scatter", send_count, receive_count);
    run(next(Operation::kReduceScatter, type, send_count),
        {cuda::Communicator::Operation::kReduceScatter,
         element(type),
         send,
         send_count,
         receive,
         receive_count});
  }

  void do_all_gather(ElementType type,
                     const void* send,
                     int64_t send_count,
                     void* receive,
                     int64_t receive_count) override {
    require_even(rank_, world_size_, "all_gather", receive_count, send_count);
    run(next(Operation::kAllGather, type, receive_count),
        {cuda::Communicator::Operation::kAllGather,
         element(type),
         send,
         send_count,
         receive,
         receive_count});
  }

  void do_all_reduce(ElementType type, void* values, int64_t count) override {
    run(next(Operation::kAllReduce, type, count),
        {cuda::Communicator::Operation::kAllReduce, element(type), values, count, values, count});
  }

  void do_broadcast(ElementType type, void* values, int64_t count, int32_t root) override {
    if (root < 0 || root >= world_size_) {
      throw InvalidArgument(
          "rank ", rank_, ": broadcast from rank ", root, " of ", world_size_, " ranks");
    }
    CollectiveCall call = next(Operation::kBroadcast, type, count);
    call.root = root;
    run(call,
        {cuda::Communicator::Operation::kBroadcast,
         element(type),
         values,
         count,
         values,
         count,
         root});
  }

 private:
  CollectiveCall next(Operation operation, ElementType type, int64_t count) {
    CollectiveCall call;
    call.operation = operation;
    call.type = type;
    call.count = count;
    call.sequence = sequence_++;
    call.step = step();
    if (!failure_.empty()) {
      throw CollectiveError(
          "rank ", rank_, ": ", call.text(), ": the group has failed before: ", failure_);
    }
    return call;
  }

  void run(const CollectiveCall& call, const cuda::Communicator::Work& work) {
    if (work.send_count == 0 && work.receive_count == 0) return;
    try {
      group_->start(work);
      wait(call.text());
      group_->finish(work);
    } catch (const std::exception& error) {
      // What the GPU still does for a group that lacks a rank would never end.
      abort(error.what());
      throw;
    }
  }

  void wait(const std::string& what) {
    const auto start = Clock::now();
    microseconds pause = kFirstPause;
    for (;;) {
      const State state = group_->poll();
      if (state == State::kDone) return;
      if (state == State::kFailed)
        fail(str("rank ", rank_, ": ", what, ": NCCL: ", group_->failure()));
      const auto waited = Clock::now() - start;
      if (waited >= options_.deadline) {
        fail(str("rank ",
                 rank_,
                 " of ",
                 world_size_,
                 ": ",
                 what,
                 ": timed out after ",
                 std::chrono::duration<double>(waited).count(),
                 " s: a rank has not come, or called something else (NCCL does not say which: see "
                 "the ranks' logs)"));
      }
      std::this_thread::sleep_for(pause);
      pause = std::min(pause * 2, kLongestPause);
    }
  }

  [[noreturn]] void fail(const std::string& message) {
    abort(message);
    throw CollectiveError(message);
  }

  int32_t rank_;
  int32_t world_size_;
  CollectiveOptions options_;
  std::unique_ptr<cuda::Communicator> group_;
  int64_t sequence_ = 0;
  std::string failure_;  ///< why no further call is possible
};

}  // namespace

std::unique_ptr<Collective> make_nccl_collective(Collective& meeting,
                                                 const NcclGroup& group,
                                                 CollectiveOptions options) {
  if (options.deadline.count() <= 0) {
    throw InvalidArgument(
        "collective: deadline is ", options.deadline.count(), " ms, but must be above 0");
  }
  // Rank 0's failure must not leave the others waiting: it is handed round in the id's place.
  std::string id, failure;
  if (meeting.rank() == 0) {
    try {
      id = group.make_id();
    } catch (const Error& error) {
      failure = error.what();
    }
  }
  id = meeting.all_gather_bytes(id)[0];
  failure = meeting.all_gather_bytes(failure)[0];
  if (!failure.empty()) throw CollectiveError("rank 0 could not name the NCCL group: ", failure);
  return std::make_unique<NcclCollective>(meeting.rank(),
                                          meeting.world_size(),
                                          options,
                                          group.join(id, meeting.rank(), meeting.world_size()));
}

}  // namespace praetor
