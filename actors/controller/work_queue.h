#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/ledger/records.h"

namespace praetor {

/// Which samples wait for which work, and who holds what until when. Bookkeeping alone: nothing is
/// recorded, nothing is locked.
///
/// A prompt whose lease was held by a worker that died is a suspect: it is handed out alone from
/// then on, and a prompt that ends `kMostDeaths` workers is condemned.
class WorkQueue {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr int kMostDeaths = 3;

  struct Held {
    std::string worker;
    LeaseKind kind = LeaseKind::kGenerate;
    std::vector<SampleId> items;
    Clock::time_point deadline;
    bool alone = false;  ///< its items are of one prompt
  };

  void clear();
  /// Wanted again or for the first time; kept in sample order.
  void want(LeaseKind kind, SampleId id);
  /// Wanted no more, by nobody.
  void forget(LeaseKind kind, SampleId id);
  void forget_prompt(int64_t ordinal);
  /// Prompts before `ordinal` are over. @return leases that are out no more, having held nothing
  /// else
  std::vector<int64_t> forget_before(int64_t ordinal);

  /// Takes up to `most` waiting items for one lease: the first in order; none when nothing waits.
  std::vector<SampleId> take(LeaseKind kind, int64_t most);
  void hold(int64_t lease, Held held);
  /// Null for a lease that is not out.
  const Held* find(int64_t lease) const;
  /// Items are done. True when they were the last of the lease, which then is out no more.
  bool finish(int64_t lease, const std::vector<SampleId>& done);
  /// Ends a lease; what is left of it waits again. With `died`, its prompts are suspects.
  void give_back(int64_t lease, bool died);

  std::vector<int64_t> late(Clock::time_point now) const;
  std::vector<int64_t> of_worker(const std::string& worker) const;
  /// Prompts that ended too many workers since the last call; forgotten here already.
  std::vector<int64_t> take_condemned();

  int64_t waiting(LeaseKind kind) const { return static_cast<int64_t>(queue(kind).size()); }
  int64_t held(LeaseKind kind) const;  ///< samples
  /// Leases of a kind that a worker holds.
  std::vector<int64_t> of_worker(const std::string& worker, LeaseKind kind) const;
  /// Workers that hold a lease of a kind.
  void add_holders(LeaseKind kind, std::set<std::string>& names) const {
    for (const auto& [name, leases] : holders_of(kind)) names.insert(name);
  }
  bool idle() const { return held_.empty(); }

 private:
  std::set<SampleId>& queue(LeaseKind kind) {
    return kind == LeaseKind::kGenerate ? to_generate_ : to_score_;
  }
  const std::set<SampleId>& queue(LeaseKind kind) const {
    return kind == LeaseKind::kGenerate ? to_generate_ : to_score_;
  }

  std::set<SampleId> to_generate_, to_score_;
  using Holders = std::map<std::string, std::set<int64_t>>;
  Holders& holders_of(LeaseKind kind) {
    return kind == LeaseKind::kGenerate ? generating_ : scoring_;
  }
  const Holders& holders_of(LeaseKind kind) const {
    return kind == LeaseKind::kGenerate ? generating_ : scoring_;
  }
  void release(std::map<int64_t, Held>::iterator lease);

  std::map<int64_t, Held> held_;
  /// No lease is late before. Asked about with every lease, of a thousand that are out.
  mutable Clock::time_point none_late_before_ = Clock::time_point::min();
  Holders generating_, scoring_;   ///< leases by worker
  std::map<int64_t, int> deaths_;  ///< by prompt ordinal
  std::vector<int64_t> condemned_;
};

}  // namespace praetor
