#include "core/ledger/ledger_impl.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "core/base/fs.h"
#include "core/ledger/schema.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

fs::path prepare_folder(const fs::path& run_dir, bool owner) {
  if (!owner) {
    if (!fs::is_directory(run_dir)) throw MissingInput(run_dir.string(), ": no such folder");
    return run_dir / "ledger.db";
  }
  std::error_code failure;
  fs::create_directories(run_dir / "rollouts", failure);
  if (failure) {
    throw IoError("cannot make ", (run_dir / "rollouts").string(), ": ", failure.message());
  }
  return run_dir / "ledger.db";
}

int64_t to_ms(TimePoint time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
}

std::string items_to_json(const std::vector<SampleId>& items) {
  auto out = nlohmann::json::array();
  for (const SampleId id : items) out.push_back({id.ordinal, id.sample});
  return out.dump();
}

}  // namespace

std::string name_of(int32_t stage, SampleId id) {
  return str("stage ", stage, ", prompt ", id.ordinal, ", sample ", id.sample);
}

Ledger::Impl::Impl(const fs::path& run_dir, const LedgerOptions& ledger_options, bool owner)
    : folder(run_dir / "rollouts"),
      options(ledger_options),
      writable(owner),
      database(prepare_folder(run_dir, owner),
               owner ? Database::Mode::kOwner : Database::Mode::kReader) {
  if (options.segment_bytes < 1) {
    throw InvalidArgument("segment_bytes ", options.segment_bytes, " must be at least 1");
  }
  prepare_schema(database, owner);
  if (!owner) return;
  fsync_directory(run_dir);
  recover_segments();
  recovery.lost_leases = database.run("UPDATE leases SET state = ? WHERE state = 0",
                                      static_cast<int64_t>(LeaseState::kLost));
  // Ids of leases that a crash forgot must not come again: each owner counts in a range of its own.
  const int64_t owners = database.integer(0, "SELECT value FROM facts WHERE key = 'owners'") + 1;
  database.run("INSERT OR REPLACE INTO facts VALUES('owners', ?)", std::to_string(owners));
  next_lease = (owners << 32) + 1;
}

Ledger::Impl::~Impl() {
  try {
    if (writable) settle_leases();
  } catch (const Error&) {
    // The leases are history only; losing them here equals losing them in a crash.
  }
}

void Ledger::Impl::recover_segments() {
  int64_t last = 0;
  std::map<int64_t, int64_t> committed;
  {
    Query rows = database.query("SELECT segment, bytes, pruned FROM segments ORDER BY segment");
    while (rows.step()) {
      last = rows.integer(0);
      const fs::path file = segment_path(folder, last);
      if (rows.integer(2) != 0) {
        std::error_code ignored;  // a crash may have come between the row and the removal
        fs::remove(file, ignored);
        continue;
      }
      committed[last] = rows.integer(1);
    }
  }
  for (const auto& [segment, bytes] : committed) {
    const fs::path file = segment_path(folder, segment);
    std::error_code missing;
    const auto size = static_cast<int64_t>(fs::file_size(file, missing));
    if (missing || size < bytes) {
      throw DataError(file.string(),
                      missing ? std::string(": is missing") : str(": has ", size, " bytes"),
                      ", the ledger has committed ",
                      bytes,
                      "; restore it from a copy: recorded samples cannot be replayed without it");
    }
    if (size == bytes) continue;
    const SegmentScan scan =
        scan_segment(folder, segment, [&, end = bytes](SegmentPosition at, std::string_view) {
          if (at.offset >= end) ++recovery.cut_records;
        });
    recovery.cut_bytes += scan.file_bytes - bytes;
    SegmentWriter tail(folder, segment);
    tail.cut(bytes);
    tail.sync();
  }
  // A file that no row names was begun by a commit that never was.
  for (int64_t next = last + 1;; ++next) {
    const fs::path file = segment_path(folder, next);
    if (!fs::exists(file)) break;
    const SegmentScan scan = scan_segment(folder, next);
    recovery.cut_bytes += scan.file_bytes;
    recovery.cut_records += scan.records;
    fs::remove(file);
    fsync_directory(folder);
  }
}

void Ledger::Impl::commit(const std::function<void()>& body) {
  const std::lock_guard lock(mutex);
  PRAETOR_CHECK(writable, database.file().string(), " was opened to read only");
  if (depth > 0) {
    try {
      body();
    } catch (...) {
      failed = true;
      throw;
    }
    return;
  }
  const int64_t segment = writer ? writer->segment() : 0;
  const int64_t size = writer ? writer->size() : 0;
  database.exec("BEGIN IMMEDIATE");
  depth = 1;
  failed = dirty = false;
  LeaseNews leases;
  try {
    body();
    PRAETOR_CHECK(!failed, "a transaction went on after a record in it had failed");
    leases = take_news();
    write(leases);
    if (dirty) writer->sync();
    for (const auto& [number, bytes] : grown) {
      database.run(
          "INSERT INTO segments(segment, bytes) VALUES(?, ?) "
          "ON CONFLICT(segment) DO UPDATE SET bytes = excluded.bytes",
          number,
          bytes);
    }
    database.exec("COMMIT");
  } catch (...) {
    depth = 0;
    grown.clear();
    put_back(std::move(leases));
    try {
      database.exec("ROLLBACK");
    } catch (const Error&) {
      // SQLite has rolled back by itself, as it does when the disk is full.
    }
    try {
      // Whole records of a commit that failed would only waste space; a new file goes at the next
      // open.
      if (writer && writer->segment() == segment) writer->cut(size);
    } catch (const Error&) {
    }
    throw;
  }
  depth = 0;
  grown.clear();
}

SegmentPosition Ledger::Impl::append(std::string_view payload) {
  if (writer && writer->size() >= options.segment_bytes) {
    writer->sync();
    const int64_t next = writer->segment() + 1;
    writer.reset();
    writer = std::make_unique<SegmentWriter>(folder, next);
  }
  if (!writer) {
    const int64_t last =
        std::max<int64_t>(1, database.integer(0, "SELECT MAX(segment) FROM segments"));
    const bool closed =
        database.integer(0,
                         "SELECT pruned OR bytes >= ? FROM segments WHERE segment = ?",
                         options.segment_bytes,
                         last) != 0;
    writer = std::make_unique<SegmentWriter>(folder, closed ? last + 1 : last);
  }
  const SegmentPosition position = writer->append(payload);
  grown[position.segment] = position.offset + position.bytes;
  dirty = true;
  return position;
}

LeaseNews Ledger::Impl::take_news() {
  const std::lock_guard lock(lease_mutex);
  return std::exchange(news, {});
}

void Ledger::Impl::put_back(LeaseNews&& some) {
  const std::lock_guard lock(lease_mutex);
  some.opened.insert(some.opened.end(), news.opened.begin(), news.opened.end());
  some.closed.insert(some.closed.end(), news.closed.begin(), news.closed.end());
  news = std::move(some);
}

void Ledger::Impl::write(const LeaseNews& some) {
  for (const LeaseRecord& lease : some.opened) {
    database.run("INSERT INTO leases VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
                 lease.id,
                 static_cast<int64_t>(lease.kind),
                 lease.stage,
                 lease.worker,
                 to_ms(lease.issued_at),
                 to_ms(lease.deadline),
                 static_cast<int64_t>(LeaseState::kOpen),
                 items_to_json(lease.items));
  }
  for (const auto& [id, state] : some.closed) {
    database.run("UPDATE leases SET state = ? WHERE id = ?", static_cast<int64_t>(state), id);
  }
}

void Ledger::Impl::settle_leases() {
  {
    const std::lock_guard lock(lease_mutex);
    if (news.opened.empty() && news.closed.empty()) return;
  }
  commit([] {});
}

void Ledger::Impl::require_stage(int32_t stage) const {
  PRAETOR_CHECK(database.integer(0, "SELECT 1 FROM stages WHERE stage = ?", stage) == 1,
                "stage ",
                stage,
                " was not begun");
}

StageForm Ledger::Impl::form(int32_t stage) const {
  return static_cast<StageForm>(
      database.integer(0, "SELECT form FROM stages WHERE stage = ?", stage));
}

void Ledger::Impl::require_issued(int32_t stage, SampleId id) const {
  const int64_t samples = database.integer(
      0, "SELECT samples FROM prompts WHERE stage = ? AND ordinal = ?", stage, id.ordinal);
  if (id.sample >= 0 && id.sample < samples) return;
  throw InvalidArgument(
      name_of(stage, id),
      ": was never issued",
      samples == 0 ? std::string() : str("; the prompt has ", samples, " samples"));
}

bool Ledger::Impl::dropped(int32_t stage, SampleId id) const {
  return database.integer(0,
                          "SELECT 1 FROM drops WHERE stage = ? AND ordinal = ? AND sample = ?",
                          stage,
                          id.ordinal,
                          id.sample) == 1;
}

bool Ledger::Impl::has_rollout(int32_t stage, SampleId id) const {
  return database.integer(0,
                          "SELECT 1 FROM rollouts WHERE stage = ? AND ordinal = ? AND sample = ?",
                          stage,
                          id.ordinal,
                          id.sample) == 1;
}

int64_t Ledger::Impl::batch_of(int32_t stage, SampleId id) const {
  return database.integer(
      0,
      "SELECT step FROM batch_samples WHERE stage = ? AND ordinal = ? AND sample = ?",
      stage,
      id.ordinal,
      id.sample);
}

}  // namespace praetor
