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

/// The id of this rank's group, which the rank `leader` of `meeting` makes; all its ranks call it.
std::string id_of_group(Collective& meeting, const NcclGroup& nccl, int32_t leader) {
  // A leader's failure must not leave the others waiting: it is handed round in the id's place.
  std::string id, failure;
  if (meeting.rank() == leader) {
    try {
      id = nccl.make_id();
    } catch (const Error& error) {
      failure = error.what();
    }
  }
  id = meeting.all_gather_bytes(id)[static_cast<size_t>(leader)];
  const std::vector<std::string> failures = meeting.all_gather_bytes(failure);
  for (size_t r = 0; r < failures.size(); ++r) {
    if (failures[r].empty()) continue;
    throw CollectiveError(
        "rank ", meeting.members()[r], " could not name the NCCL group: ", failures[r]);
  }
  return id;
}

/// What the groups of this rank have in common; one thread.
struct NcclRank {
  NcclGroup nccl;
  CollectiveOptions options;
  std::string failure;                      ///< why no further call is possible
  int64_t last_id = 0;                      ///< the largest of a group so far
  std::vector<cuda::Communicator*> groups;  ///< that exist
};

class NcclCollective final : public Collective {
 public:
  NcclCollective(std::shared_ptr<NcclRank> mine,
                 Membership group,
                 std::unique_ptr<cuda::Communicator> nccl)
      : mine_(std::move(mine)), group_(std::move(group)), nccl_(std::move(nccl)) {
    mine_->groups.push_back(nccl_.get());
    try {
      wait("joining the group");
    } catch (...) {
      std::erase(mine_->groups, nccl_.get());
      throw;
    }
  }
  ~NcclCollective() override { std::erase(mine_->groups, nccl_.get()); }

  int32_t rank() const override { return group_.rank; }
  int32_t world_size() const override { return group_.world_size(); }
  const std::vector<int32_t>& members() const override { return group_.members; }
  std::string backend() const override { return "nccl"; }

  using Collective::all_gather_bytes;
  std::vector<std::string> all_gather_bytes(std::span<const std::byte> send) override {
    const size_t world = group_.members.size();
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
         world_size()});
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
           longest * world_size()});
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

  std::unique_ptr<Collective> split(const std::string& name, int64_t colour, int64_t key) override {
    const int64_t mine[] = {colour, key, mine_->last_id};
    std::vector<int64_t> wishes(3 * group_.members.size());
    run(next(Operation::kSplit, ElementType::kInt64, 3),
        {cuda::Communicator::Operation::kAllGather,
         Element::kInt64,
         mine,
         3,
         wishes.data(),
         3 * world_size()});
    Membership part = Membership::part(group_, name, wishes);
    mine_->last_id = part.id;
    const auto leader = std::ranges::find(group_.members, part.members[0]);
    const std::string id =
        id_of_group(*this, mine_->nccl, static_cast<int32_t>(leader - group_.members.begin()));
    auto joined = mine_->nccl.join(id, part.rank, part.world_size());
    auto out = std::make_unique<NcclCollective>(mine_, std::move(part), std::move(joined));
    out->share_step(*this);
    return out;
  }

  void abort(const std::string& reason) noexcept override {
    if (mine_->failure.empty()) mine_->failure = reason.empty() ? "it was given up" : reason;
    for (cuda::Communicator* group : mine_->groups) group->abort();
  }

 protected:
  void do_reduce_scatter(ElementType type,
                         const void* send,
                         int64_t send_count,
                         void* receive,
                         int64_t receive_count) override {
    require_even(group_, "reduce_scatter", send_count, receive_count);
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
    require_even(group_, "all_gather", receive_count, send_count);
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
    if (root < 0 || root >= world_size()) {
      throw InvalidArgument(
          group_.who(), ": broadcast from rank ", root, " of ", world_size(), " ranks");
    }
    CollectiveCall call = next(Operation::kBroadcast, type, count);
    call.root = group_.global(root);
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
    if (!mine_->failure.empty()) {
      throw CollectiveError(
          group_.who(), ": ", call.text(), ": the group has failed before: ", mine_->failure);
    }
    return call;
  }

  void run(const CollectiveCall& call, const cuda::Communicator::Work& work) {
    if (work.send_count == 0 && work.receive_count == 0) return;
    try {
      nccl_->start(work);
      wait(call.text());
      nccl_->finish(work);
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
      const State state = nccl_->poll();
      if (state == State::kDone) return;
      if (state == State::kFailed)
        fail(str(group_.who(), ": ", what, ": NCCL: ", nccl_->failure()));
      const auto waited = Clock::now() - start;
      if (waited >= mine_->options.deadline) {
        fail(str(group_.who(),
                 group_.id == 0 ? str(" of ", world_size()) : "",
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

  std::shared_ptr<NcclRank> mine_;
  Membership group_;
  std::unique_ptr<cuda::Communicator> nccl_;
  int64_t sequence_ = 0;
};

}  // namespace

std::unique_ptr<Collective> make_nccl_collective(Collective& meeting,
                                                 const NcclGroup& group,
                                                 CollectiveOptions options) {
  if (options.deadline.count() <= 0) {
    throw InvalidArgument(
        "collective: deadline is ", options.deadline.count(), " ms, but must be above 0");
  }
  const std::string id = id_of_group(meeting, group, 0);
  const Membership whole = Membership::whole(meeting.rank(), meeting.world_size());
  return std::make_unique<NcclCollective>(
      std::make_shared<NcclRank>(NcclRank{.nccl = group, .options = options}),
      whole,
      group.join(id, whole.rank, whole.world_size()));
}

}  // namespace praetor
