#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace praetor {

class ShardedNetwork;

/// An exchange between the ranks of a copy in the course of a pass.
struct Exchange {
  enum class Kind {
    kGather,    ///< weights of a part, for its forward
    kRegather,  ///< the same, for its backward
    kReduce,    ///< the part's backward is done: its weights go, its gradients are summed
  };
  ShardedNetwork* network = nullptr;
  size_t part = 0;
  Kind kind = Kind::kGather;
  bool operator==(const Exchange&) const = default;
};

/// Keeps the ranks of a copy (ShardingRanks) in step through forwards and backwards that exchange
/// weights and gradients on their way. A pass (one micro-batch of every rank) has a list of
/// exchanges that is the same on each of them, whatever it computes: a rank that reaches one does
/// those before it as well, and one that has no micro-batch, or whose work failed, takes part in
/// all that are left with nothing to give. So no rank waits for one that went another way.
///
/// With `prefetch` above 0 exchanges run beside the computation: at each one the next `prefetch`
/// gathers of the list are started as well, as far as they want no unit that is in use until then,
/// and sums of gradients are waited for when the network's next ones come, or at the end. What is
/// started when is read from the list alone, so that it is the same on every rank.
class LockStep {
 public:
  /// One network in a pass, in the order of their forwards.
  struct Use {
    ShardedNetwork* network = nullptr;  ///< borrowed
    bool backward = false;              ///< its backward follows
    bool apart = false;                 ///< at once, before the next network's forward
  };

  /// Calls `work` for passes 0 .. count - 1; every rank alike. Once it has thrown it is not called
  /// again, and what it threw is thrown at the end. @throws CollectiveError at once
  void run(size_t count,
           const std::function<std::vector<Use>(size_t pass)>& uses,
           const std::function<void(size_t pass)>& work);

  /// Gathers that are started before the computation comes to them; not within a pass.
  void set_prefetch(int64_t units) { prefetch_ = units; }

  bool running() const { return running_; }
  /// The computation has come to `exchange`: it and the skipped ones before it are done. Without a
  /// place for it in the rest of the pass it is @throws InternalError.
  void reach(const Exchange& exchange);

 private:
  void perform(size_t at, bool computes);
  /// Starts what is wanted at `at`, a gather, and soon after it.
  void start_gathers(size_t at);
  void finish_pass(const std::vector<Use>& networks);

  std::vector<Exchange> program_;
  size_t next_ = 0;
  size_t started_ = 0;  ///< gathers before it have been started
  int64_t prefetch_ = 0;
  bool running_ = false;
};

}  // namespace praetor
