#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/ledger/ledger.h"
#include "core/ledger/segment.h"
#include "core/ledger/sqlite.h"

namespace praetor {

/// "stage 0, prompt 12, sample 3", for messages.
std::string name_of(int32_t stage, SampleId id);

/// What became of leases since the last commit, in order.
struct LeaseNews {
  std::vector<LeaseRecord> opened;
  std::vector<std::pair<int64_t, LeaseState>> closed;
};

/// State behind Ledger; included by ledger*.cpp alone.
struct Ledger::Impl {
  Impl(const std::filesystem::path& run_dir, const LedgerOptions& ledger_options, bool owner);
  ~Impl();

  /// Runs `body` in a database transaction; see Ledger::transaction.
  void commit(const std::function<void()>& body);
  /// Appends to the segments within `commit`.
  SegmentPosition append(std::string_view payload);
  /// Writes rows of leases; runs within `commit`.
  void write(const LeaseNews& some);
  LeaseNews take_news();
  /// Of a commit that failed: they wait for the next one.
  void put_back(LeaseNews&& some);
  /// Gives waiting leases a commit of their own, so that readers see them.
  void settle_leases();
  void recover_segments();

  void require_stage(int32_t stage) const;
  /// @throws InvalidArgument when the sample was never issued
  void require_issued(int32_t stage, SampleId id) const;
  bool dropped(int32_t stage, SampleId id) const;
  bool has_rollout(int32_t stage, SampleId id) const;
  /// Step of the batch that a sample stands in, 0 when in none.
  int64_t batch_of(int32_t stage, SampleId id) const;
  StageForm form(int32_t stage) const;

  std::filesystem::path folder;  ///< of the segments
  LedgerOptions options;
  bool writable;
  mutable std::recursive_mutex mutex;
  mutable Database database;
  Recovery recovery;

  int depth = 0;        ///< of nested commits
  bool failed = false;  ///< an inner commit threw
  bool dirty = false;   ///< something was appended since the last sync
  std::unique_ptr<SegmentWriter> writer;
  std::map<int64_t, int64_t> grown;  ///< segment -> size, to be written with the commit

  /// Leases have a lock of their own, so that whoever asks for one waits for no commit. Taken after
  /// `mutex`, or alone.
  std::mutex lease_mutex;
  int64_t next_lease = 1;
  std::set<int64_t> open_leases;
  LeaseNews news;  ///< not yet written
};

}  // namespace praetor
