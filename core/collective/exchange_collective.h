#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/collective/collective.h"
#include "core/collective/collective_call.h"
#include "core/collective/membership.h"
#include "core/collective/rank_state.h"
#include "core/collective/serial_thread.h"

namespace praetor {

/// @throws InvalidArgument unless `whole` elements are `part` on each rank
void require_even(const Membership& group, const char* operation, int64_t whole, int64_t part);

/// All operations made of one, an exchange of bytes between pairs of ranks; a backend adds the
/// exchange. Operations that are started run on one thread of the group's own, in order, and no
/// exchange of the group is made anywhere else meanwhile; those of a rank's other groups may be.
class ExchangeCollective : public Collective {
 public:
  /// The whole. `channel` is this rank's; null: the others hear of nothing but its exchanges.
  ExchangeCollective(int32_t rank,
                     int32_t world_size,
                     CollectiveOptions options,
                     std::shared_ptr<SideChannel> channel = nullptr);

  int32_t rank() const override { return group_.rank; }
  int32_t world_size() const override { return group_.world_size(); }
  const std::vector<int32_t>& members() const override { return group_.members; }
  using Collective::all_gather_bytes;
  std::vector<std::string> all_gather_bytes(std::span<const std::byte> send) override;
  void barrier() override;

  /// Of the rank, for groups of other backends beside this one.
  const std::shared_ptr<RankState>& state() const { return state_; }

 protected:
  std::unique_ptr<Collective> do_split(const std::string& name,
                                       int64_t colour,
                                       int64_t key) override;
  void do_abort(const std::string& reason) noexcept override;

  /// A group that a split of `whole` makes.
  ExchangeCollective(const ExchangeCollective& whole, Membership group);
  using Bytes = std::span<const std::byte>;
  using MutableBytes = std::span<std::byte>;

  /// Who exchanges with this rank: the ranks it sends to and those it waits for, but never itself.
  struct Routes {
    std::vector<int32_t> to, from;
  };
  /// Sends send[r] to the ranks of routes.to and fills receive[r] with what those of routes.from
  /// send here. Lengths agree when `call` does; a length of 0 is no message, but every call waits
  /// for every rank of routes.from. @throws CollectiveError
  virtual void exchange(const CollectiveCall& call,
                        const Routes& routes,
                        const std::vector<Bytes>& send,
                        const std::vector<MutableBytes>& receive) = 0;
  /// Exchanges of this rank that wait are to look at stop_if_failed again.
  virtual void wake() noexcept {}
  /// @throws InvalidArgument where the backend has no groups
  virtual std::unique_ptr<ExchangeCollective> make_group(Membership group);
  /// False: what is started is done at once.
  virtual bool runs_beside() const { return true; }

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
  std::unique_ptr<PendingCollective> do_start_reduce_scatter(ElementType type,
                                                             const void* send,
                                                             int64_t send_count,
                                                             void* receive,
                                                             int64_t receive_count) override;
  std::unique_ptr<PendingCollective> do_start_all_gather(ElementType type,
                                                         const void* send,
                                                         int64_t send_count,
                                                         void* receive,
                                                         int64_t receive_count) override;
  void do_all_to_all(ElementType type,
                     const void* send,
                     int64_t send_count,
                     void* receive,
                     int64_t receive_count) override;
  void do_send(ElementType type, const void* values, int64_t count, int32_t to) override;
  void do_receive(ElementType type, void* values, int64_t count, int32_t from) override;

  /// One more exchange of this group, own part included; what fails, fails for ever.
  void run(CollectiveCall call,
           const std::vector<Bytes>& send,
           const std::vector<MutableBytes>& receive);
  /// A call that is made now: what was started is done.
  CollectiveCall next(CollectiveCall::Operation operation,
                      ElementType type,
                      int64_t count,
                      int32_t root = 0,
                      int32_t to = 0);
  /// Before the backend's part of the object ends: no exchange runs any more.
  void settle() { background_.drain(); }
  /// Of an exchange that waits. @throws CollectiveError when this rank has called abort, or another
  /// of its groups has failed
  void stop_if_failed(const CollectiveCall& call) const;
  /// What an exchange that waits for `call` attends to. Borrows both.
  RollCall::Wait roll_call_of(const CollectiveCall& call) const;
  /// Again and again, as all ranks are asked before its deadline what they wait in. @return whether
  /// it is past, and they could answer
  bool is_late(std::chrono::milliseconds deadline,
               std::chrono::steady_clock::duration waited) const;

  /// @throws CollectiveError when `theirs` is another call than `mine`
  /// @param peer  rank in this group
  void require_same(const CollectiveCall& mine, int32_t peer, const CollectiveCall& theirs) const;
  /// @param global_peer  rank in the whole, which may be outside of this group
  [[noreturn]] void throw_aborted(const CollectiveCall& mine,
                                  int32_t global_peer,
                                  const std::string& reason) const;
  /// Where all that are missing wait elsewhere, those are named that do not, one of them at least
  /// for good reason.
  /// @param missing  ranks of this group that have not come
  /// @param silent   that came, but did not send all
  [[noreturn]] void throw_late(const CollectiveCall& mine,
                               const std::vector<int32_t>& missing,
                               const std::vector<int32_t>& silent,
                               std::chrono::steady_clock::duration waited) const;

  const CollectiveOptions& options() const { return options_; }
  const Membership& group() const { return group_; }
  bool failed() const { return state_->failed(); }

 private:
  /// At least `bytes`, until the next call.
  std::byte* scratch(size_t bytes);
  CollectiveCall numbered(CollectiveCall::Operation operation,
                          ElementType type,
                          int64_t count,
                          int32_t root = 0,
                          int32_t to = 0);
  void require_whole(const CollectiveCall& call) const;
  CollectiveCall transfer(int32_t from, int32_t to, ElementType type, int64_t count);
  std::unique_ptr<PendingCollective> start(std::function<void()> work);
  void reduce_scatter_now(const CollectiveCall& call,
                          const void* send,
                          void* receive,
                          int64_t receive_count);
  void all_gather_now(const CollectiveCall& call,
                      const void* send,
                      int64_t send_count,
                      void* receive);
  void run_on(const CollectiveCall& call,
              const Routes& routes,
              const std::vector<Bytes>& send,
              const std::vector<MutableBytes>& receive);
  void set_routes();

  Membership group_;
  CollectiveOptions options_;
  std::shared_ptr<RankState> state_;  ///< of all groups of this rank
  Routes everyone_;
  CallNumbers numbers_;
  std::unique_ptr<std::byte[]> scratch_;
  size_t scratch_bytes_ = 0;
  SerialThread background_;
};

}  // namespace praetor
