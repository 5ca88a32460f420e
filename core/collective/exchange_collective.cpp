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

/// Memory for the others' parts that is kept from one sum to the next.
constexpr size_t kKeptScratch = size_t{64} << 20;

int64_t element_bytes(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return 4;
    case ElementType::kByte:
      return 1;
    default:
      return 8;
  }
}

const char* name_of(ElementType type) {
  constexpr const char* kNames[] = {"float32", "float64", "int64", "bytes"};
  return kNames[static_cast<int32_t>(type)];
}

const char* name_of(Operation operation) {
  constexpr const char* kNames[] = {"reduce_scatter",
                                    "all_gather",
                                    "all_reduce",
                                    "all_gather_bytes",
                                    "broadcast",
                                    "barrier",
                                    "close",
                                    "abort"};
  return kNames[static_cast<int32_t>(operation)];
}

/// to[i] += from[i]
template <typename T>
void add(void* to, const void* from, int64_t count) {
  T* __restrict sum = static_cast<T*>(to);
  const T* __restrict term = static_cast<const T*>(from);
  for (int64_t i = 0; i < count; ++i) sum[i] += term[i];
}

void add(ElementType type, void* to, const void* from, int64_t count) {
  switch (type) {
    case ElementType::kFloat32:
      return add<float>(to, from, count);
    case ElementType::kFloat64:
      return add<double>(to, from, count);
    case ElementType::kInt64:
      return add<uint64_t>(to, from, count);  // wraps instead of overflowing
    case ElementType::kByte:
      break;
  }
  throw InternalError("bytes are not summed");
}

std::string ranks_text(const std::vector<int32_t>& ranks) {
  std::string out = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size(); ++i) out += (i > 0 ? ", " : "") + str(ranks[i]);
  return out;
}

}  // namespace

std::string CollectiveCall::text() const {
  std::string out = str(name_of(operation), " #", sequence);
  if (count > 0) out += str(" of ", count, " ", name_of(type));
  if (operation == Operation::kBroadcast) out += str(" from rank ", root);
  return out;
}

ExchangeCollective::ExchangeCollective(int32_t rank, int32_t world_size, CollectiveOptions options)
    : rank_(rank), world_size_(world_size), options_(options) {
  if (world_size < 1 || rank < 0 || rank >= world_size)
    throw InvalidArgument("collective: rank ", rank, " of ", world_size, " is not a rank");
  if (options.deadline.count() <= 0) {
    throw InvalidArgument(
        "collective: deadline is ", options.deadline.count(), " ms, but must be above 0");
  }
  if (options.chunk_bytes < 1 || options.chunk_bytes >= int64_t{1} << 31) {
    throw InvalidArgument(
        "collective: chunk_bytes is ", options.chunk_bytes, ", but must be in [1, 2^31)");
  }
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

CollectiveCall ExchangeCollective::next(Operation operation, ElementType type, int64_t count) {
  CollectiveCall call;
  call.operation = operation;
  call.type = type;
  call.count = count;
  call.sequence = sequence_++;
  if (failed()) {
    throw CollectiveError(
        "rank ", rank_, ": ", call.text(), ": the group has failed before: ", failure_);
  }
  return call;
}

void ExchangeCollective::run(CollectiveCall call,
                             const std::vector<Bytes>& send,
                             const std::vector<MutableBytes>& receive) {
  const auto mine = static_cast<size_t>(rank_);
  // The same place when the caller gathers in place.
  if (!send[mine].empty() && send[mine].data() != receive[mine].data())
    std::memmove(receive[mine].data(), send[mine].data(), send[mine].size());
  if (world_size_ == 1) return;
  try {
    exchange(call, send, receive);
  } catch (const std::exception& error) {
    if (!failed()) {
      failure_ = error.what();
      send_abort(failure_);
    }
    throw;
  }
}

void ExchangeCollective::do_reduce_scatter(
    ElementType type, const void* send, int64_t send_count, void* receive, int64_t receive_count) {
  if (send_count != receive_count * world_size_) {
    throw InvalidArgument("rank ",
                          rank_,
                          ": reduce_scatter of ",
                          send_count,
                          " elements into ",
                          receive_count,
                          " on each of ",
                          world_size_,
                          " ranks does not come out even");
  }
  const auto part = static_cast<size_t>(receive_count * element_bytes(type));
  const auto world = static_cast<size_t>(world_size_);
  const CollectiveCall call = next(Operation::kReduceScatter, type, send_count);
  const auto* from = static_cast<const std::byte*>(send);
  auto* to = static_cast<std::byte*>(receive);
  // Rank 0's part lands in the result, the others' beside it, and they are added to it in order.
  std::byte* const others = scratch(part * (world - 1));
  std::vector<Bytes> out(world);
  std::vector<MutableBytes> in(world);
  for (size_t r = 0; r < world; ++r) {
    out[r] = {from + r * part, part};
    in[r] = r == 0 ? MutableBytes{to, part} : MutableBytes{others + (r - 1) * part, part};
  }
  run(call, out, in);
  for (size_t r = 1; r < world; ++r) add(type, to, in[r].data(), receive_count);
}

void ExchangeCollective::do_all_gather(
    ElementType type, const void* send, int64_t send_count, void* receive, int64_t receive_count) {
  if (receive_count != send_count * world_size_) {
    throw InvalidArgument("rank ",
                          rank_,
                          ": all_gather of ",
                          send_count,
                          " elements from each of ",
                          world_size_,
                          " ranks does not fill ",
                          receive_count);
  }
  const auto part = static_cast<size_t>(send_count * element_bytes(type));
  const auto world = static_cast<size_t>(world_size_);
  auto* to = static_cast<std::byte*>(receive);
  std::vector<MutableBytes> in(world);
  for (size_t r = 0; r < world; ++r) in[r] = {to + r * part, part};
  run(next(Operation::kAllGather, type, receive_count),
      std::vector<Bytes>(world, {static_cast<const std::byte*>(send), part}),
      in);
}

void ExchangeCollective::do_all_reduce(ElementType type, void* values, int64_t count) {
  CollectiveCall call = next(Operation::kAllReduce, type, count);
  if (world_size_ == 1) return;
  const int64_t size = element_bytes(type);
  const auto world = static_cast<size_t>(world_size_);
  auto* data = static_cast<std::byte*>(values);

  // Parts of the owners; a small vector is everybody's.
  const bool small = count <= kSmallReduction;
  const int64_t part = (count + world_size_ - 1) / world_size_;
  const auto begin = [&](size_t r) {
    return small ? 0 : std::min(count, part * static_cast<int64_t>(r));
  };
  const auto end = [&](size_t r) {
    return small ? count : std::min(count, part * static_cast<int64_t>(r + 1));
  };
  const auto mine = static_cast<size_t>(rank_);
  const int64_t own = end(mine) - begin(mine);
  std::byte* const parts = scratch(static_cast<size_t>(own * size) * world);
  std::vector<Bytes> out(world);
  std::vector<MutableBytes> in(world);
  for (size_t r = 0; r < world; ++r) {
    out[r] = {data + begin(r) * size, static_cast<size_t>((end(r) - begin(r)) * size)};
    in[r] = {parts + r * static_cast<size_t>(own * size), static_cast<size_t>(own * size)};
  }
  run(call, out, in);
  for (size_t r = 1; r < world; ++r) add(type, in[0].data(), in[r].data(), own);
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
  const auto world = static_cast<size_t>(world_size_);
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
  if (root < 0 || root >= world_size_) {
    throw InvalidArgument(
        "rank ", rank_, ": broadcast from rank ", root, " of a world of ", world_size_);
  }
  CollectiveCall call = next(Operation::kBroadcast, type, count);
  call.root = root;
  const auto world = static_cast<size_t>(world_size_);
  const MutableBytes all{static_cast<std::byte*>(values),
                         static_cast<size_t>(count * element_bytes(type))};
  std::vector<Bytes> out(world);
  std::vector<MutableBytes> in(world);
  if (rank_ == root) {
    out.assign(world, all);
    in[static_cast<size_t>(rank_)] = all;
  } else {
    in[static_cast<size_t>(root)] = all;
  }
  run(call, out, in);
}

void ExchangeCollective::barrier() {
  const auto world = static_cast<size_t>(world_size_);
  run(next(Operation::kBarrier, ElementType::kByte, 0),
      std::vector<Bytes>(world),
      std::vector<MutableBytes>(world));
}

void ExchangeCollective::abort(const std::string& reason) noexcept {
  if (failed()) return;
  failure_ = reason.empty() ? "aborted" : reason;
  send_abort(failure_);
}

void ExchangeCollective::require_same(const CollectiveCall& mine,
                                      int32_t peer,
                                      const CollectiveCall& theirs) const {
  if (mine == theirs) return;
  if (theirs.operation == Operation::kClose) throw_aborted(mine, peer, "it has left the group");
  throw CollectiveError("rank ",
                        rank_,
                        ": ",
                        mine.text(),
                        " meets another call: rank ",
                        peer,
                        " calls ",
                        theirs.text());
}

void ExchangeCollective::throw_aborted(const CollectiveCall& mine,
                                       int32_t peer,
                                       const std::string& reason) const {
  throw CollectiveError("rank ", rank_, ": ", mine.text(), ": rank ", peer, " gave up: ", reason);
}

void ExchangeCollective::throw_late(const CollectiveCall& mine,
                                    const std::vector<int32_t>& missing,
                                    const std::vector<int32_t>& silent,
                                    std::chrono::steady_clock::duration waited) const {
  std::string who;
  if (!missing.empty()) who = ranks_text(missing) + " did not come";
  if (!silent.empty())
    who += (who.empty() ? "" : "; ") + ranks_text(silent) + " came, but did not finish";
  throw CollectiveError("rank ",
                        rank_,
                        ": ",
                        mine.text(),
                        " timed out after ",
                        std::chrono::duration<double>(waited).count(),
                        " s (",
                        who,
                        ")");
}

}  // namespace praetor
