#include <algorithm>
#include <map>
#include <utility>

#include "core/ledger/ledger_impl.h"
#include "core/ledger/rollout_codec.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

/// More findings of one kind say nothing new.
constexpr int kMaxOfAKind = 20;

/// A query that gives rows exactly when something is wrong: stage, then what the text's $1, $2 ...
/// stand for.
struct Rule {
  const char* problem;
  const char* sql;
  int values;
};

constexpr Rule kRules[] = {
    {"prompt $1 was issued, but prompt $2 before it was not",
     "SELECT p.stage, p.ordinal, p.ordinal - 1 FROM prompts p WHERE p.ordinal > 0 AND NOT EXISTS "
     "(SELECT 1 FROM prompts q WHERE q.stage = p.stage AND q.ordinal = p.ordinal - 1)",
     2},
    {"rollout of prompt $1, sample $2, which was never issued",
     "SELECT r.stage, r.ordinal, r.sample FROM rollouts r LEFT JOIN prompts p ON p.stage = r.stage "
     "AND p.ordinal = r.ordinal WHERE p.samples IS NULL OR r.sample < 0 OR r.sample >= p.samples",
     2},
    {"drop of prompt $1, sample $2, which was never issued",
     "SELECT r.stage, r.ordinal, r.sample FROM drops r LEFT JOIN prompts p ON p.stage = r.stage "
     "AND p.ordinal = r.ordinal WHERE p.samples IS NULL OR r.sample < 0 OR r.sample >= p.samples",
     2},
    {"prompt $1, sample $2 stands in a batch, but was never issued",
     "SELECT r.stage, r.ordinal, r.sample FROM batch_samples r LEFT JOIN prompts p "
     "ON p.stage = r.stage AND p.ordinal = r.ordinal "
     "WHERE p.samples IS NULL OR r.sample < 0 OR r.sample >= p.samples",
     2},
    {"prompt $1, sample $2 has a score, but no rollout",
     "SELECT c.stage, c.ordinal, c.sample FROM scores c WHERE NOT EXISTS (SELECT 1 FROM rollouts r "
     "WHERE r.stage = c.stage AND r.ordinal = c.ordinal AND r.sample = c.sample)",
     2},
    {"prompt $1, sample $2 was dropped and stands in the batch of step $3 all the same",
     "SELECT b.stage, b.ordinal, b.sample, b.step FROM batch_samples b JOIN drops d "
     "ON d.stage = b.stage AND d.ordinal = b.ordinal AND d.sample = b.sample",
     3},
    {"prompt $1, sample $2 stands in the batch of step $3, but has no rollout",
     "SELECT b.stage, b.ordinal, b.sample, b.step FROM batch_samples b JOIN stages s "
     "ON s.stage = b.stage AND s.form = 0 WHERE NOT EXISTS (SELECT 1 FROM rollouts r "
     "WHERE r.stage = b.stage AND r.ordinal = b.ordinal AND r.sample = b.sample)",
     3},
    {"samples stand in the batch of step $1, which was not recorded",
     "SELECT DISTINCT b.stage, b.step FROM batch_samples b WHERE NOT EXISTS "
     "(SELECT 1 FROM batches t WHERE t.stage = b.stage AND t.step = b.step)",
     1},
    {"the batch of step $1 has $2 samples, its positions go up to $3",
     "SELECT t.stage, t.step, COUNT(b.position), IFNULL(MAX(b.position), -1) FROM batches t "
     "LEFT JOIN batch_samples b ON b.stage = t.stage AND b.step = t.step GROUP BY t.stage, t.step "
     "HAVING COUNT(b.position) = 0 OR COUNT(b.position) <> MAX(b.position) + 1",
     3},
    {"batch $1 is recorded, but batch $2 before it is not",
     "SELECT t.stage, t.step, t.step - 1 FROM batches t WHERE t.step > 1 AND NOT EXISTS "
     "(SELECT 1 FROM batches u WHERE u.stage = t.stage AND u.step = t.step - 1)",
     2},
    {"step $1 is recorded, but its batch is not",
     "SELECT t.stage, t.step FROM steps t WHERE NOT EXISTS "
     "(SELECT 1 FROM batches u WHERE u.stage = t.stage AND u.step = t.step)",
     1},
    {"step $1 is recorded, but step $2 before it is not, or is to be replayed",
     "SELECT t.stage, t.step, t.step - 1 FROM steps t WHERE t.step > 1 AND t.replayable = 0 AND "
     "NOT EXISTS (SELECT 1 FROM steps u WHERE u.stage = t.stage AND u.step = t.step - 1 "
     "AND u.replayable = 0)",
     2},
    {"prompt $1, sample $2: its row names the same record as another one",
     "SELECT stage, ordinal, sample FROM rollouts GROUP BY segment, position HAVING COUNT(*) > 1",
     2},
    {"prompt $1, sample $2: its row names segment $3, which the ledger does not know",
     "SELECT r.stage, r.ordinal, r.sample, r.segment FROM rollouts r WHERE NOT EXISTS "
     "(SELECT 1 FROM segments s WHERE s.segment = r.segment)",
     3},
};

void apply(Database& database, const Rule& rule, Findings& findings) {
  Query row = database.query(rule.sql);
  int count = 0;
  for (; row.step(); ++count) {
    if (count >= kMaxOfAKind) continue;
    std::string problem = str("stage ", row.integer(0), ": ", rule.problem);
    for (int i = 1; i <= rule.values; ++i) {
      const std::string mark = str("$", i);
      if (const size_t at = problem.find(mark); at != std::string::npos) {
        problem.replace(at, mark.size(), std::to_string(row.integer(i)));
      }
    }
    findings.push_back({database.file().string(), std::move(problem)});
  }
  if (count > kMaxOfAKind) {
    findings.push_back(
        {database.file().string(), str("... and ", count - kMaxOfAKind, " more of these")});
  }
}

struct Expected {
  int64_t bytes = 0;
  int32_t stage = 0;
  SampleId id;
};

/// Checks one segment file against the rows that name it.
void verify_segment(const fs::path& folder,
                    int64_t segment,
                    int64_t committed,
                    std::map<int64_t, Expected> rows,
                    Findings& findings) {
  const std::string file = segment_path(folder, segment).string();
  SegmentScan scan;
  try {
    scan = scan_segment(folder, segment, [&](SegmentPosition at, std::string_view payload) {
      const auto row = rows.find(at.offset);
      if (row == rows.end()) return;  // left by a commit that failed: harmless
      const Expected expected = row->second;
      rows.erase(row);
      if (expected.bytes != at.bytes) {
        findings.push_back({file,
                            str("offset ",
                                at.offset,
                                ": the record has ",
                                at.bytes,
                                " bytes, its row says ",
                                expected.bytes)});
        return;
      }
      try {
        const StagedRollout staged = decode_rollout(payload);
        if (staged.stage != expected.stage || staged.rollout.id != expected.id) {
          findings.push_back({file,
                              str("offset ",
                                  at.offset,
                                  ": holds ",
                                  name_of(staged.stage, staged.rollout.id),
                                  ", its row is that of ",
                                  name_of(expected.stage, expected.id))});
        }
      } catch (const DataError& failure) {
        findings.push_back({file, str("offset ", at.offset, ": ", failure.what())});
      }
    });
  } catch (const Error& failure) {
    findings.push_back({file, failure.what()});
    return;
  }
  if (!scan.problem.empty() && scan.good_bytes < committed) {
    findings.push_back({file, scan.problem});
  } else if (scan.file_bytes < committed) {
    findings.push_back(
        {file, str("has ", scan.file_bytes, " bytes, the ledger has committed ", committed)});
  }
  int missing = 0;
  for (const auto& [offset, expected] : rows) {
    if (missing++ >= kMaxOfAKind) break;
    findings.push_back({file,
                        str("offset ",
                            offset,
                            ": no whole record of ",
                            name_of(expected.stage, expected.id),
                            " stands there")});
  }
}

}  // namespace

Balance Ledger::balance(int32_t stage) const {
  const std::lock_guard lock(impl_->mutex);
  Database& database = impl_->database;
  Balance out;
  out.prompts = database.integer(0, "SELECT COUNT(*) FROM prompts WHERE stage = ?", stage);
  out.issued = database.integer(0, "SELECT SUM(samples) FROM prompts WHERE stage = ?", stage);
  out.trained = database.integer(0,
                                 "SELECT COUNT(*) FROM batch_samples b JOIN steps t "
                                 "ON t.stage = b.stage AND t.step = b.step AND t.replayable = 0 "
                                 "WHERE b.stage = ?",
                                 stage);
  out.in_batch = database.integer(0,
                                  "SELECT COUNT(*) FROM batch_samples b LEFT JOIN steps t "
                                  "ON t.stage = b.stage AND t.step = b.step AND t.replayable = 0 "
                                  "WHERE b.stage = ? AND t.step IS NULL",
                                  stage);
  {
    Query row =
        database.query("SELECT reason, COUNT(*) FROM drops WHERE stage = ? GROUP BY reason", stage);
    while (row.step()) out.dropped[row.text(0)] = row.integer(1);
  }
  if (impl_->form(stage) == StageForm::kOffline) {
    out.ready = database.integer(
        0,
        "SELECT SUM(p.samples - (SELECT COUNT(*) FROM "
        "(SELECT d.sample FROM drops d WHERE d.stage = p.stage AND d.ordinal = p.ordinal UNION "
        " SELECT b.sample FROM batch_samples b WHERE b.stage = p.stage AND b.ordinal = "
        "p.ordinal))) "
        "FROM prompts p WHERE p.stage = ?",
        stage);
    return out;
  }
  out.awaiting_rollout = database.integer(
      0,
      "SELECT SUM(p.samples - (SELECT COUNT(*) FROM "
      "(SELECT r.sample FROM rollouts r WHERE r.stage = p.stage AND r.ordinal = p.ordinal UNION "
      " SELECT d.sample FROM drops d WHERE d.stage = p.stage AND d.ordinal = p.ordinal UNION "
      " SELECT b.sample FROM batch_samples b WHERE b.stage = p.stage AND b.ordinal = p.ordinal))) "
      "FROM prompts p WHERE p.stage = ?",
      stage);
  Query row = database.query(
      "SELECT COUNT(c.ordinal), COUNT(*) - COUNT(c.ordinal) FROM rollouts r LEFT JOIN scores c "
      "ON c.stage = r.stage AND c.ordinal = r.ordinal AND c.sample = r.sample WHERE r.stage = ? "
      "AND NOT EXISTS (SELECT 1 FROM drops d WHERE d.stage = r.stage AND d.ordinal = r.ordinal "
      "AND d.sample = r.sample) AND NOT EXISTS (SELECT 1 FROM batch_samples b "
      "WHERE b.stage = r.stage AND b.ordinal = r.ordinal AND b.sample = r.sample)",
      stage);
  if (row.step()) {
    out.ready = row.integer(0);
    out.awaiting_score = row.integer(1);
  }
  return out;
}

Findings Ledger::verify() const {
  const std::lock_guard lock(impl_->mutex);
  Database& database = impl_->database;
  const std::string file = database.file().string();
  Findings findings;
  {
    Query row = database.query("PRAGMA integrity_check(20)");
    while (row.step()) {
      if (row.text(0) != "ok") findings.push_back({file, row.text(0)});
    }
  }
  for (const Rule& rule : kRules) apply(database, rule, findings);
  for (const StageRecord& stage : stages()) {
    const Balance sum = balance(stage.stage);
    if (!sum.holds()) {
      findings.push_back({file,
                          str("stage ",
                              stage.stage,
                              ": ",
                              sum.issued,
                              " samples issued, but ",
                              sum.trained,
                              " trained + ",
                              sum.total_dropped(),
                              " dropped + ",
                              sum.pending(),
                              " pending")});
    }
  }
  std::map<int64_t, int64_t> segments;
  {
    Query row = database.query("SELECT segment, bytes FROM segments WHERE pruned = 0");
    while (row.step()) segments[row.integer(0)] = row.integer(1);
  }
  for (const auto& [segment, bytes] : segments) {
    std::map<int64_t, Expected> rows;
    Query row = database.query(
        "SELECT position, bytes, stage, ordinal, sample FROM rollouts WHERE segment = ?", segment);
    while (row.step()) {
      rows[row.integer(0)] = {row.integer(1),
                              static_cast<int32_t>(row.integer(2)),
                              {row.integer(3), static_cast<int32_t>(row.integer(4))}};
    }
    verify_segment(impl_->folder, segment, bytes, std::move(rows), findings);
  }
  return findings;
}

}  // namespace praetor
