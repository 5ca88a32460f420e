#include "core/collective/nccl_collective.h"

#include <algorithm>
#include <exception>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "core/collective/exchange_collective.h"

namespace praetor {
namespace {

using Operation = CollectiveCall::Operation;
using Step = cuda::Communicator::Operation;
using Clock = std::chrono::steady_clock;
using State = cuda::Communicator::State;
using Work = cuda::Communicator::Work;
using Element = cuda::Communicator::Element;
using std::chrono::microseconds;
using std::chrono::milliseconds;

/// How long a wait sleeps between two questions: an eighth of what it has waited, within these.
constexpr microseconds kShortestPause{20}, kLongestPause{2000};

/// How long before its deadline a wait asks who else waits; of a short deadline half of it.
constexpr milliseconds kAsking{10'000};
/// How long answers are waited for when NCCL itself says that it failed: MPI, which ends a job that
/// has lost a process, leaves about a second.
constexpr milliseconds kAskingAtFailure{300};

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
  std::shared_ptr<RankState> state;         ///< of the groups of the meeting, too
  bool joined = false;                      ///< the whole has come together
  std::string failure;                      ///< why no further call is possible
  int64_t last_id = 0;                      ///< the largest of a group so far
  std::vector<cuda::Communicator*> groups;  ///< that exist
};

class NcclCollective final : public Collective {
 public:
  NcclCollective(std::shared_ptr<NcclRank> mine,
                 Membership group,
                 std::unique_ptr<cuda::Communicator> nccl)
      : mine_(std::move(mine)), group_(std::move(group)), nccl_(std::move(nccl)), numbers_(group_) {
    mine_->groups.push_back(nccl_.get());
    try {
      CollectiveCall join;
      join.operation = Operation::kJoin;
      wait(join, 0);
      mine_->joined = true;
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
    run_on_host(call,
                {Step::kAllGather, Element::kInt64, &length, 1, lengths.data(), world_size()});
    const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
    std::vector<std::byte> mine(static_cast<size_t>(longest)), all(mine.size() * world);
    std::copy(send.begin(), send.end(), mine.begin());
    if (longest > 0) {
      run_on_host(call,
                  {Step::kAllGather,
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
    run_on_host(next(Operation::kBarrier, ElementType::kByte, 0),
                {Step::kAllReduce, Element::kInt64, &one, 1, &one, 1});
  }

 protected:
  std::unique_ptr<Collective> do_split(const std::string& name,
                                       int64_t colour,
                                       int64_t key) override {
    const int64_t mine[] = {colour, key, mine_->last_id};
    std::vector<int64_t> wishes(3 * group_.members.size());
    run_on_host(next(Operation::kSplit, ElementType::kInt64, 3),
                {Step::kAllGather, Element::kInt64, mine, 3, wishes.data(), 3 * world_size()});
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

  /// While the whole still comes together the ranks have its meeting to agree in.
  void do_abort(const std::string& reason) noexcept override {
    if (mine_->failure.empty()) {
      mine_->failure = reason.empty() ? "it was given up" : reason;
      if (mine_->joined) mine_->state->roll_call().give_up(mine_->failure);
    }
    for (cuda::Communicator* group : mine_->groups) group->abort();
  }

  void do_reduce_scatter(ElementType type,
                         const void* send,
                         int64_t send_count,
                         void* receive,
                         int64_t receive_count) override {
    do_start_reduce_scatter(type, send, send_count, receive, receive_count)->wait();
  }

  void do_all_gather(ElementType type,
                     const void* send,
                     int64_t send_count,
                     void* receive,
                     int64_t receive_count) override {
    do_start_all_gather(type, send, send_count, receive, receive_count)->wait();
  }

  std::unique_ptr<PendingCollective> do_start_reduce_scatter(ElementType type,
                                                             const void* send,
                                                             int64_t send_count,
                                                             void* receive,
                                                             int64_t receive_count) override {
    require_even(group_, "reduce_scatter", send_count, receive_count);
    return begin(next(Operation::kReduceScatter, type, send_count),
                 {Step::kReduceScatter, element(type), send, send_count, receive, receive_count});
  }

  std::unique_ptr<PendingCollective> do_start_all_gather(ElementType type,
                                                         const void* send,
                                                         int64_t send_count,
                                                         void* receive,
                                                         int64_t receive_count) override {
    require_even(group_, "all_gather", receive_count, send_count);
    return begin(next(Operation::kAllGather, type, receive_count),
                 {Step::kAllGather, element(type), send, send_count, receive, receive_count});
  }

  void do_all_reduce(ElementType type, void* values, int64_t count) override {
    run(next(Operation::kAllReduce, type, count),
        {Step::kAllReduce, element(type), values, count, values, count});
  }

  void do_broadcast(ElementType type, void* values, int64_t count, int32_t root) override {
    require_rank("broadcast from", root);
    run(next(Operation::kBroadcast, type, count, root),
        {Step::kBroadcast, element(type), values, count, values, count, root});
  }

  void do_all_to_all(ElementType type,
                     const void* send,
                     int64_t send_count,
                     void* receive,
                     int64_t receive_count) override {
    require_even(group_, "all_to_all", send_count, receive_count / world_size());
    require_even(group_, "all_to_all", receive_count, send_count / world_size());
    run(next(Operation::kAllToAll, type, send_count),
        {Step::kAllToAll, element(type), send, send_count, receive, receive_count});
  }

  void do_send(ElementType type, const void* values, int64_t count, int32_t to) override {
    run(transfer(type, count, rank(), to),
        {Step::kSend, element(type), values, count, nullptr, 0, to});
  }

  void do_receive(ElementType type, void* values, int64_t count, int32_t from) override {
    run(transfer(type, count, from, rank()),
        {Step::kReceive, element(type), nullptr, 0, values, count, from});
  }

 private:
  class Pending final : public PendingCollective {
   public:
    Pending(NcclCollective& group, CollectiveCall call, int64_t number)
        : group_(group), call_(std::move(call)), number_(number) {}
    ~Pending() override {
      if (waited_) return;
      try {
        if (std::uncaught_exceptions() > 0) {
          group_.abort(str(call_.text(), " was given up"));
        } else {
          wait();
        }
      } catch (const std::exception&) {  // the group's next call says it
      }
    }
    void wait() override {
      waited_ = true;
      if (number_ < 0) return;
      group_.require_alive(call_);
      group_.wait(call_, number_);
    }

   private:
    NcclCollective& group_;
    CollectiveCall call_;
    int64_t number_;  ///< of the piece of work; below 0: there was none to do
    bool waited_ = false;
  };

  CollectiveCall transfer(ElementType type, int64_t count, int32_t from, int32_t to) {
    const int32_t peer = from == rank() ? to : from;
    require_rank(from == rank() ? "send to" : "receive from", peer);
    if (peer == rank()) throw InvalidArgument(group_.who(), ": another rank than this is wanted");
    return next(Operation::kTransfer, type, count, from, to);
  }

  void require_rank(const char* what, int32_t other) const {
    if (other >= 0 && other < world_size()) return;
    throw InvalidArgument(
        group_.who(), ": ", what, " rank ", other, " of ", world_size(), " ranks");
  }

  void require_alive(const CollectiveCall& call) {
    // The GPU must not go on with what this rank has under way when another of its groups fails.
    if (mine_->failure.empty() && mine_->state->failed()) abort(mine_->state->failure());
    if (mine_->failure.empty()) return;
    throw CollectiveError(
        group_.who(), ": ", call.text(), ": the group has failed before: ", mine_->failure);
  }

  CollectiveCall next(
      Operation operation, ElementType type, int64_t count, int32_t root = 0, int32_t to = 0) {
    CollectiveCall call = numbers_.next(group_, operation, type, count, root, to);
    call.step = step();
    if (mine_->state->debug())
      mine_->state->record(str("nccl ", group_.name, group_.name.empty() ? "" : ": ", call.text()));
    require_alive(call);
    return call;
  }

  /// Hands over work on memory of the GPU. What the GPU still does for a group that lacks a rank
  /// would never end, so that whatever fails from here on ends the group.
  std::unique_ptr<PendingCollective> begin(const CollectiveCall& call, Work work) {
    if (!mine_->nccl.on_device) {
      run_on_host(call, work);
      return std::make_unique<Pending>(*this, call, -1);
    }
    if (work.send_count == 0 && work.receive_count == 0)
      return std::make_unique<Pending>(*this, call, -1);
    work.on_device = work.after_compute = true;
    wait_until(call, 0, State::kRunning);
    start(work);
    return std::make_unique<Pending>(*this, call, started_ - 1);
  }

  void run(const CollectiveCall& call, const Work& work) { begin(call, work)->wait(); }

  void run_on_host(const CollectiveCall& call, const Work& work) {
    if (work.send_count == 0 && work.receive_count == 0) return;
    wait(call, started_ - 1);
    start(work);
    wait(call, started_ - 1);
    ending_failures([&] { nccl_->finish(work); });
  }

  void start(const Work& work) {
    ending_failures([&] { nccl_->start(work); });
    ++started_;
  }

  /// Until the work of that number is through.
  void wait(const CollectiveCall& call, int64_t number) {
    wait_until(call, started_ - 1 - number, State::kDone);
  }

  /// Until all work but the last few is done, or at least handed over.
  void wait_until(const CollectiveCall& call, int64_t last, State enough) {
    const auto start = Clock::now();
    milliseconds deadline = mine_->options.deadline;
    if (call.operation == Operation::kJoin) deadline /= 2;
    const milliseconds quiet = deadline - std::min(deadline / 2, kAsking);
    RollCall& roll = mine_->state->roll_call();
    RollCall::Wait roll_call(
        roll, [&] { return call.name_in(group_, backend()); }, call.step);
    for (;;) {
      State state = State::kBusy;
      ending_failures([&] { state = nccl_->poll_but(last); });
      if (state == State::kDone || state == enough) return;
      if (state == State::kFailed) fail_with_nccl(call, roll_call);
      const auto waited = Clock::now() - start;
      if (const std::string why = ended_elsewhere(roll_call); !why.empty()) fail(call, why);
      if (waited >= quiet && roll.ask(deadline) && waited >= deadline) {
        const std::string missing = roll.missing(call.name_in(group_, backend()), peers(call));
        fail(call,
             str("timed out after ",
                 std::chrono::duration<double>(waited).count(),
                 " s (",
                 missing.empty() ? "all its ranks wait: a GPU or a link between them stands still"
                                 : missing,
                 ")"));
      }
      std::this_thread::sleep_for(
          std::clamp<Clock::duration>(waited / 8, kShortestPause, kLongestPause));
    }
  }

  /// The ranks of the whole without which the call does not end.
  std::vector<int32_t> peers(const CollectiveCall& call) const {
    if (call.operation == Operation::kTransfer)
      return {call.root == global_rank() ? call.to : call.root};
    std::vector<int32_t> out = group_.members;
    std::erase(out, global_rank());
    return out;
  }

  /// Why no call can end any more, though NCCL does not say so; empty: it can, or the wait is
  /// short so far.
  std::string ended_elsewhere(RollCall::Wait& roll_call) {
    std::string why;
    ending_failures([&] {
      if (roll_call.attend()) why = what_ended();
    });
    return why;
  }

  std::string what_ended() {
    const auto told = [](const SideChannel::Word& word) {
      return str("rank ", word.from, " gave up: ", word.text);
    };
    if (const auto other = mine_->state->roll_call().given_up()) return told(*other);
    if (const auto other = mine_->state->another_gave_up()) {
      // Taken here, it would be lost to the meeting's groups.
      mine_->state->fail(told(*other));
      return told(*other);
    }
    return mine_->state->ended();
  }

  /// With NCCL's words, and with who is missing as far as that is known soon.
  [[noreturn]] void fail_with_nccl(const CollectiveCall& call, RollCall::Wait& roll_call) {
    RollCall& roll = mine_->state->roll_call();
    const std::vector<int32_t> asked = peers(call);
    const auto end = Clock::now() + std::min(kAskingAtFailure, mine_->options.deadline);
    std::string why;
    roll.ask_anew();
    do {
      std::this_thread::sleep_for(kLongestPause);
      why = ended_elsewhere(roll_call);
    } while (why.empty() && !roll.all_answered(asked) && Clock::now() < end);
    if (why.empty()) why = roll.missing(call.name_in(group_, backend()), asked);
    fail(call, str("NCCL: ", nccl_->failure(), why.empty() ? "" : str(" (", why, ")")));
  }

  template <typename Call>
  void ending_failures(const Call& call) {
    try {
      call();
    } catch (const std::exception& error) {
      abort(error.what());
      throw;
    }
  }

  [[noreturn]] void fail(const CollectiveCall& call, const std::string& why) {
    const std::string message = str(group_.who(), ": ", call.text(), ": ", why);
    abort(message);
    throw CollectiveError(message, mine_->state->last_calls());
  }

  std::shared_ptr<NcclRank> mine_;
  Membership group_;
  std::unique_ptr<cuda::Communicator> nccl_;
  CallNumbers numbers_;
  int64_t started_ = 1;  ///< pieces of work; joining is the first
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
  const int32_t rank = meeting.rank(), world = meeting.world_size();
  const auto* others = dynamic_cast<const ExchangeCollective*>(&meeting);
  if (!others && world > 1)
    throw InvalidArgument("NCCL: a ", meeting.backend(), " group cannot be the meeting of ranks");
  auto state = others ? others->state() : std::make_shared<RankState>(rank, world, nullptr, false);
  if (options.debug) state->keep_calls();
  return std::make_unique<NcclCollective>(
      std::make_shared<NcclRank>(
          NcclRank{.nccl = group, .options = options, .state = std::move(state)}),
      Membership::whole(rank, world),
      group.join(id, rank, world));
}

}  // namespace praetor
