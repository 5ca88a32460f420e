#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/collective/collective.h"

namespace praetor {

/// What a rank calls. Sent ahead of the elements, so that ranks which call different things, or
/// have left, are told apart from late ones.
struct CollectiveCall {
  enum class Operation : int32_t {
    kReduceScatter,
    kAllGather,
    kAllReduce,
    kAllGatherBytes,
    kBroadcast,
    kBarrier,
    kClose,  ///< the barrier before a group ends
    kAbort   ///< this rank gave up; `count` bytes of reason follow
  };
  Operation operation = Operation::kBarrier;
  ElementType type = ElementType::kByte;
  int32_t root = 0;      ///< of broadcast
  int32_t stage = 0;     ///< an operation may exchange more than once
  int64_t sequence = 0;  ///< of the operation, from 0
  int64_t count = 0;     ///< elements of the operation; 0 where ranks may differ

  bool operator==(const CollectiveCall&) const = default;
  /// "all_gather #12 of 3 float64"
  std::string text() const;
};

/// All operations made of one, an exchange of bytes between all pairs of ranks; a backend adds the
/// exchange.
class ExchangeCollective : public Collective {
 public:
  ExchangeCollective(int32_t rank, int32_t world_size, CollectiveOptions options);

  int32_t rank() const override { return rank_; }
  int32_t world_size() const override { return world_size_; }
  using Collective::all_gather_bytes;
  std::vector<std::string> all_gather_bytes(std::span<const std::byte> send) override;
  void barrier() override;
  void abort(const std::string& reason) noexcept override;

 protected:
  using Bytes = std::span<const std::byte>;
  using MutableBytes = std::span<std::byte>;

  /// Sends send[r] to rank r and fills receive[r] with what rank r sends here, for all r but this
  /// rank. Lengths agree when `call` does; a length of 0 is no message, but every call waits for
  /// every rank. @throws CollectiveError
  virtual void exchange(const CollectiveCall& call,
                        const std::vector<Bytes>& send,
                        const std::vector<MutableBytes>& receive) = 0;
  /// Tells the other ranks.
  virtual void send_abort(const std::string& reason) noexcept = 0;

  void do_reduce_scatter(ElementType type,
                         const void* send,
                         int64_t send_count,
                         void* receive,
                         int64_t receive_count) override;
  void do_all_gather(ElementType type,
                     const void* send,
                     int64_t send_count,
                     void* receive,
                     int64_t receive_count) override;
  void do_all_reduce(ElementType type, void* values, int64_t count) override;
  void do_broadcast(ElementType type, void* values, int64_t count, int32_t root) override;

  /// One more exchange of this group, own part included; what fails, fails for ever.
  void run(CollectiveCall call,
           const std::vector<Bytes>& send,
           const std::vector<MutableBytes>& receive);
  CollectiveCall next(CollectiveCall::Operation operation, ElementType type, int64_t count);

  /// @throws CollectiveError when `theirs` is another call than `mine`
  void require_same(const CollectiveCall& mine, int32_t peer, const CollectiveCall& theirs) const;
  [[noreturn]] void throw_aborted(const CollectiveCall& mine,
                                  int32_t peer,
                                  const std::string& reason) const;
  /// `missing`: ranks that have not come; `silent`: ranks that came, but did not send all.
  [[noreturn]] void throw_late(const CollectiveCall& mine,
                               const std::vector<int32_t>& missing,
                               const std::vector<int32_t>& silent,
                               std::chrono::steady_clock::duration waited) const;

  const CollectiveOptions& options() const { return options_; }
  bool failed() const { return !failure_.empty(); }

 private:
  /// At least `bytes`, until the next call.
  std::byte* scratch(size_t bytes);

  int32_t rank_;
  int32_t world_size_;
  CollectiveOptions options_;
  int64_t sequence_ = 0;
  std::unique_ptr<std::byte[]> scratch_;
  size_t scratch_bytes_ = 0;
  std::string failure_;  ///< why no further call is possible
};

}  // namespace praetor
