#include "core/collective/exchange_collective.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>

#include "core/base/error.h"

namespace praetor {
namespace {

using Operation = CollectiveCall::Operation;

/// Up to here every rank adds everything itself, which saves an exchange; the sums are the same.
constexpr int64_t kSmallReduction = 4096;

/// How long before its deadline, at most, an exchange asks who else waits.
constexpr std::chrono::milliseconds kAsking{5000};

/// Memory for the others' parts that is kept from one sum to the next.
constexpr size_t kKeptScratch = size_t{64} << 20;

int64_t element_bytes(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
    case ElementType::kInt32:
      return 4;
    case ElementType::kBFloat16:
      return 2;
    case ElementType::kByte:
      return 1;
    case ElementType::kFloat64:
    case ElementType::kInt64:
      break;
  }
  return 8;
}

/// sum[i] = ((sum[i] + parts[0][i]) + parts[1][i]) + ...
template <typename T>
void add(void* to, const std::vector<const void*>& parts, int64_t count) {
  T* __restrict sum = static_cast<T*>(to);
  for (const void* part : parts) {
    const T* __restrict term = static_cast<const T*>(part);
    for (int64_t i = 0; i < count; ++i) sum[i] += term[i];
  }
}

/// The same in float32, rounded once.
void add_bfloat16(void* to, const std::vector<const void*>& parts, int64_t count) {
  auto* const sum = static_cast<c10::BFloat16*>(to);
  for (int64_t i = 0; i < count; ++i) {
    float wide = sum[i];
    for (const void* part : parts) wide += static_cast<const c10::BFloat16*>(part)[i];
    sum[i] = wide;
  }
}

void add(ElementType type, void* to, const std::vector<const void*>& parts, int64_t count) {
  switch (type) {
    case ElementType::kFloat32:
      return add<float>(to, parts, count);
    case ElementType::kFloat64:
      return add<double>(to, parts, count);
    case ElementType::kBFloat16:
      return add_bfloat16(to, parts, count);
    case ElementType::kInt64:
      return add<uint64_t>(to, parts, count);  // wraps instead of overflowing
    case ElementType::kInt32:
      return add<uint32_t>(to, parts, count);
    case ElementType::kByte:
      break;
  }
  throw InternalError("bytes are not summed");
}

/// Holds the place of an operation on the group's thread.
class Background final : public PendingCollective {
 public:
  explicit Background(std::shared_future<void> done) : done_(std::move(done)) {}
  ~Background() override { done_.wait(); }
  void wait() override { done_.get(); }

 private:
  std::shared_future<void> done_;
};

}  // namespace

ExchangeCollective::ExchangeCollective(int32_t rank,
                                       int32_t world_size,
                                       CollectiveOptions options,
                                       std::shared_ptr<SideChannel> channel)
    : group_(Membership::whole(rank, world_size)),
      options_(options),
      state_(std::make_shared<RankState>(rank, world_size, std::move(channel), options.debug)),
      numbers_(group_) {
  if (options.deadline.count() <= 0) {
    throw InvalidArgument(
        "collective: deadline is ", options.deadline.count(), " ms, but must be above 0");
  }
  if (options.chunk_bytes < 1 || options.chunk_bytes >= int64_t{1} << 31) {
    throw InvalidArgument(
        "collective: chunk_bytes is ", options.chunk_bytes, ", but must be in [1, 2^31)");
  }
  set_routes();
}

ExchangeCollective::ExchangeCollective(const ExchangeCollective& whole, Membership group)
    : group_(std::move(group)), options_(whole.options_), state_(whole.state_), numbers_(group_) {
  share_step(whole);
  set_routes();
}

void ExchangeCollective::set_routes() {
  for (int32_t r = 0; r < world_size(); ++r) {
    if (r != rank()) everyone_.to.push_back(r);
  }
  everyone_.from = everyone_.to;
}

std::unique_ptr<Collective> ExchangeCollective::do_split(const std::string& name,
                                                         int64_t colour,
                                                         int64_t key) {
  const int64_t mine[] = {colour, key, state_->last_id};
  std::vector<int64_t> wishes(3 * group_.members.size());
  all_gather_now(next(Operation::kSplit, ElementType::kInt64, 3), mine, 3, wishes.data());
  Membership group = Membership::part(group_, name, wishes);
  state_->last_id = group.id;
  return make_group(std::move(group));
}

std::unique_ptr<ExchangeCollective> ExchangeCollective::make_group(Membership /*group*/) {
  throw InvalidArgument("the ", backend(), " backend has no groups");
}

std::byte* ExchangeCollective::scratch(size_t bytes) {
  // Fresh pages cost about as much as the sum; only a very long vector's are given back.
  if (bytes > scratch_bytes_ || scratch_bytes_ > kKeptScratch) {
    scratch_.reset();
    scratch_ = std::make_unique_for_overwrite<std::byte[]>(bytes);
    scratch_bytes_ = bytes;
  }
  return scratch_.get();
}

CollectiveCall ExchangeCollective::numbered(
    Operation operation, ElementType type, int64_t count, int32_t root, int32_t to) {
  CollectiveCall call = numbers_.next(group_, operation, type, count, root, to);
  call.step = step();
  if (state_->debug())
    state_->record(group_.name.empty() ? call.text() : str(group_.name, ": ", call.text()));
  return call;
}

void ExchangeCollective::require_whole(const CollectiveCall& call) const {
  if (!failed()) return;
  throw CollectiveError(
      group_.who(), ": ", call.text(), ": the group has failed before: ", state_->failure());
}

CollectiveCall ExchangeCollective::next(
    Operation operation, ElementType type, int64_t count, int32_t root, int32_t to) {
  const CollectiveCall call = numbered(operation, type, count, root, to);
  settle();
  require_whole(call);
  return call;
}

void ExchangeCollective::run(CollectiveCall call,
                             const std::vector<Bytes>& send,
                             const std::vector<MutableBytes>& receive) {
  const auto mine = static_cast<size_t>(rank());
  // The same place when the caller gathers in place.
  if (!send[mine].empty() && send[mine].data() != receive[mine].data())
    std::memmove(receive[mine].data(), send[mine].data(), send[mine].size());
  if (world_size() > 1) run_on(call, everyone_, send, receive);
}

void ExchangeCollective::run_on(const CollectiveCall& call,
                                const Routes& routes,
                                const std::vector<Bytes>& send,
                                const std::vector<MutableBytes>& receive) {
  require_whole(call);
  try {
    if (state_->probe) state_->probe(call);
    exchange(call, routes, send, receive);
  } catch (const std::exception& error) {
    state_->fail(state_->gives_up() ? state_->reason() : error.what());
    throw;
  }
}

void ExchangeCollective::stop_if_failed(const CollectiveCall& call) const {
  const std::string why = state_->ended();
  if (!why.empty()) throw CollectiveError(group_.who(), ": ", call.text(), ": ", why);
}

RollCall::Wait ExchangeCollective::roll_call_of(const CollectiveCall& call) const {
  return {state_->roll_call(), [&] { return call.name_in(group_, backend()); }, call.step};
}

bool ExchangeCollective::is_late(std::chrono::milliseconds deadline,
                                 std::chrono::steady_clock::duration waited) const {
  if (waited < deadline - std::min(deadline / 4, kAsking)) return false;
  return state_->roll_call().ask(deadline) && waited >= deadline;
}

std::unique_ptr<PendingCollective> ExchangeCollective::start(std::function<void()> work) {
  if (world_size() > 1 && runs_beside())
    return std::make_unique<Background>(background_.post(std::move(work)));
  std::packaged_task<void()> now(std::move(work));
  now();
  return std::make_unique<Background>(now.get_future().share());
}

void require_even(const Membership& group, const char* operation, int64_t whole, int64_t part) {
  if (whole == part * group.world_size()) return;
  throw InvalidArgument(group.who(),
                        ": ",
                        operation,
                        " of ",
                        whole,
                        " elements, ",
                        part,
                        " on each of ",
                        group.world_size(),
                        " ranks, does not come out even");
}

void ExchangeCollective::reduce_scatter_now(const CollectiveCall& call,
                                            const void* send,
                                            void* receive,
                                            int64_t receive_count) {
  const auto part = static_cast<size_t>(receive_count * element_bytes(call.type));
  const size_t world = group_.members.size();
  const auto* from = static_cast<const std::byte*>(send);
  auto* to = static_cast<std::byte*>(receive);
  // Rank 0's part lands in the result, the others' beside it, and they are added to it in order.
  std::byte* const others = scratch(part * (world - 1));
  std::vector<Bytes> out(world);
  std::vector<MutableBytes> in(world);
  std::vector<const void*> terms;
  for (size_t r = 0; r < world; ++r) {
    out[r] = {from + r * part, part};
    in[r] = r == 0 ? MutableBytes{to, part} : MutableBytes{others + (r - 1) * part, part};
    if (r > 0) terms.push_back(in[r].data());
  }
  run(call, out, in);
  add(call.type, to, terms, receive_count);
}

void ExchangeCollective::do_reduce_scatter(
    ElementType type, const void* send, int64_t send_count, void* receive, int64_t receive_count) {
  require_even(group_, "reduce_scatter", send_count, receive_count);
  reduce_scatter_now(
      next(Operation::kReduceScatter, type, send_count), send, receive, receive_count);
}

std::unique_ptr<PendingCollective> ExchangeCollective::do_start_reduce_scatter(
    ElementType type, const void* send, int64_t send_count, void* receive, int64_t receive_count) {
  require_even(group_, "reduce_scatter", send_count, receive_count);
  const CollectiveCall call = numbered(Operation::kReduceScatter, type, send_count);
  return start([=, this] { reduce_scatter_now(call, send, receive, receive_count); });
}

void ExchangeCollective::all_gather_now(const CollectiveCall& call,
                                        const void* send,
                                        int64_t send_count,
                                        void* receive) {
  const auto part = static_cast<size_t>(send_count * element_bytes(call.type));
  const size_t world = group_.members.size();
  auto* to = static_cast<std::byte*>(receive);
  std::vector<MutableBytes> in(world);
  for (size_t r = 0; r < world; ++r) in[r] = {to + r * part, part};
  run(call, std::vector<Bytes>(world, {static_cast<const std::byte*>(send), part}), in);
}

void ExchangeCollective::do_all_gather(
    ElementType type, const void* send, int64_t send_count, void* receive, int64_t receive_count) {
  require_even(group_, "all_gather", receive_count, send_count);
  all_gather_now(next(Operation::kAllGather, type, receive_count), send, send_count, receive);
}

std::unique_ptr<PendingCollective> ExchangeCollective::do_start_all_gather(
    ElementType type, const void* send, int64_t send_count, void* receive, int64_t receive_count) {
  require_even(group_, "all_gather", receive_count, send_count);
  const CollectiveCall call = numbered(Operation::kAllGather, type, receive_count);
  return start([=, this] { all_gather_now(call, send, send_count, receive); });
}

void ExchangeCollective::do_all_to_all(
    ElementType type, const void* send, int64_t send_count, void* receive, int64_t receive_count) {
  const size_t world = group_.members.size();
  require_even(group_, "all_to_all", send_count, receive_count / world_size());
  require_even(group_, "all_to_all", receive_count, send_count / world_size());
  const auto part = static_cast<size_t>(send_count * element_bytes(type)) / world;
  const auto* from = static_cast<const std::byte*>(send);
  auto* to = static_cast<std::byte*>(receive);
  std::vector<Bytes> out(world);
  std::vector<MutableBytes> in(world);
  for (size_t r = 0; r < world; ++r) {
    out[r] = {from + r * part, part};
    in[r] = {to + r * part, part};
  }
  run(next(Operation::kAllToAll, type, send_count), out, in);
}

CollectiveCall ExchangeCollective::transfer(int32_t from,
                                            int32_t to,
                                            ElementType type,
                                            int64_t count) {
  const int32_t peer = from == rank() ? to : from;
  if (peer < 0 || peer >= world_size() || peer == rank()) {
    throw InvalidArgument(group_.who(),
                          from == rank() ? ": send to rank " : ": receive from rank ",
                          peer,
                          " of a world of ",
                          world_size(),
                          "; another rank of it is wanted");
  }
  return next(Operation::kTransfer, type, count, from, to);
}

void ExchangeCollective::do_send(ElementType type, const void* values, int64_t count, int32_t to) {
  const CollectiveCall call = transfer(rank(), to, type, count);
  const size_t world = group_.members.size();
  std::vector<Bytes> out(world);
  out[static_cast<size_t>(to)] = {static_cast<const std::byte*>(values),
                                  static_cast<size_t>(count * element_bytes(type))};
  run_on(call, {{to}, {}}, out, std::vector<MutableBytes>(world));
}

void ExchangeCollective::do_receive(ElementType type, void* values, int64_t count, int32_t from) {
  const CollectiveCall call = transfer(from, rank(), type, count);
  const size_t world = group_.members.size();
  std::vector<MutableBytes> in(world);
  in[static_cast<size_t>(from)] = {static_cast<std::byte*>(values),
                                   static_cast<size_t>(count * element_bytes(type))};
  run_on(call, {{}, {from}}, std::vector<Bytes>(world), in);
}

void ExchangeCollective::do_all_reduce(ElementType type, void* values, int64_t count) {
  CollectiveCall call = next(Operation::kAllReduce, type, count);
  if (world_size() == 1) return;
  const int64_t size = element_bytes(type);
  const size_t world = group_.members.size();
  auto* data = static_cast<std::byte*>(values);

  // Parts of the owners; a small vector is everybody's.
  const bool small = count <= kSmallReduction;
  const int64_t part = (count + world_size() - 1) / world_size();
  const auto begin = [&](size_t r) {
    return small ? 0 : std::min(count, part * static_cast<int64_t>(r));
  };
  const auto end = [&](size_t r) {
    return small ? count : std::min(count, part * static_cast<int64_t>(r + 1));
  };
  const auto mine = static_cast<size_t>(rank());
  const int64_t own = end(mine) - begin(mine);
  std::byte* const parts = scratch(static_cast<size_t>(own * size) * world);
  std::vector<Bytes> out(world);
  std::vector<MutableBytes> in(world);
  for (size_t r = 0; r < world; ++r) {
    out[r] = {data + begin(r) * size, static_cast<size_t>((end(r) - begin(r)) * size)};
    in[r] = {parts + r * static_cast<size_t>(own * size), static_cast<size_t>(own * size)};
  }
  run(call, out, in);
  std::vector<const void*> terms;
  for (size_t r = 1; r < world; ++r) terms.push_back(in[r].data());
  add(type, in[0].data(), terms, own);
  std::byte* sum = data + begin(mine) * size;
  if (own > 0) std::memcpy(sum, in[0].data(), in[0].size());
  if (small) return;

  call.stage = 1;
  for (size_t r = 0; r < world; ++r) {
    in[r] = {data + begin(r) * size, static_cast<size_t>((end(r) - begin(r)) * size)};
  }
  out.assign(world, in[mine]);
  run(call, out, in);
}

std::vector<std::string> ExchangeCollective::all_gather_bytes(std::span<const std::byte> send) {
  CollectiveCall call = next(Operation::kAllGatherBytes, ElementType::kByte, 0);
  const size_t world = group_.members.size();
  const auto length = static_cast<int64_t>(send.size());
  std::vector<int64_t> lengths(world);
  std::vector<MutableBytes> in(world);
  for (size_t r = 0; r < world; ++r) in[r] = std::as_writable_bytes(std::span(&lengths[r], 1));
  run(call, std::vector<Bytes>(world, std::as_bytes(std::span(&length, 1))), in);

  call.stage = 1;
  std::vector<std::string> out(world);
  for (size_t r = 0; r < world; ++r) {
    out[r].resize(static_cast<size_t>(lengths[r]));
    in[r] = std::as_writable_bytes(std::span(out[r]));
  }
  run(call, std::vector<Bytes>(world, send), in);
  return out;
}

void ExchangeCollective::do_broadcast(ElementType type, void* values, int64_t count, int32_t root) {
  if (root < 0 || root >= world_size()) {
    throw InvalidArgument(
        group_.who(), ": broadcast from rank ", root, " of a world of ", world_size());
  }
  const CollectiveCall call = next(Operation::kBroadcast, type, count, root);
  const size_t world = group_.members.size();
  const MutableBytes all{static_cast<std::byte*>(values),
                         static_cast<size_t>(count * element_bytes(type))};
  std::vector<Bytes> out(world);
  std::vector<MutableBytes> in(world);
  if (rank() == root) {
    out.assign(world, all);
    in[static_cast<size_t>(rank())] = all;
  } else {
    in[static_cast<size_t>(root)] = all;
  }
  run(call, out, in);
}

void ExchangeCollective::barrier() {
  const size_t world = group_.members.size();
  run(next(Operation::kBarrier, ElementType::kByte, 0),
      std::vector<Bytes>(world),
      std::vector<MutableBytes>(world));
}

void ExchangeCollective::do_abort(const std::string& reason) noexcept {
  const std::string why = reason.empty() ? "aborted" : reason;
  state_->give_up(why);
  wake();
  settle();
  state_->fail(why);
}

void ExchangeCollective::require_same(const CollectiveCall& mine,
                                      int32_t peer,
                                      const CollectiveCall& theirs) const {
  if (mine == theirs) return;
  if (theirs.operation == Operation::kClose)
    throw_aborted(mine, group_.global(peer), "it has left the group");
  throw CollectiveError(group_.who(),
                        ": ",
                        mine.text(),
                        " meets another call: rank ",
                        group_.global(peer),
                        " calls ",
                        theirs.text(),
                        state_->last_calls());
}

void ExchangeCollective::throw_aborted(const CollectiveCall& mine,
                                       int32_t global_peer,
                                       const std::string& reason) const {
  throw CollectiveError(group_.who(),
                        ": ",
                        mine.text(),
                        ": rank ",
                        global_peer,
                        " gave up: ",
                        reason,
                        state_->last_calls());
}

void ExchangeCollective::throw_late(const CollectiveCall& mine,
                                    const std::vector<int32_t>& missing,
                                    const std::vector<int32_t>& silent,
                                    std::chrono::steady_clock::duration waited) const {
  const auto named = [&](std::vector<int32_t> ranks) {
    for (int32_t& rank : ranks) rank = group_.global(rank);
    return ranks;
  };
  const std::vector<int32_t> absent = named(missing);
  const RollCall& roll = state_->roll_call();
  // Who waits elsewhere would have come, but for others; its own time may be up a little later.
  std::vector<int32_t> causes = roll.not_waiting(absent);
  std::string who;
  if (causes.empty() && !absent.empty()) {
    causes = roll.not_waiting(state_->others());
    if (causes.size() > 1) who = "some of ";  // the others have nothing to wait for
    if (causes.empty()) causes = absent;
  }
  if (!causes.empty()) who += ranks_text(causes) + " did not come";
  if (!silent.empty())
    who += (who.empty() ? "" : "; ") + ranks_text(named(silent)) + " came, but did not finish";
  if (const std::string waits = roll.waits_of(absent); !waits.empty()) who += "; " + waits;
  throw CollectiveError(group_.who(),
                        ": ",
                        mine.text(),
                        " timed out after ",
                        std::chrono::duration<double>(waited).count(),
                        " s (",
                        who,
                        ")",
                        state_->last_calls());
}

}  // namespace praetor
