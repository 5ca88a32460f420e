#include <algorithm>

#include "core/base/fs.h"
#include "core/ledger/ledger_impl.h"

namespace praetor {

namespace fs = std::filesystem;

void Ledger::rewind(int32_t stage, int64_t step) {
  impl_->commit([&] {
    impl_->require_stage(stage);
    Database& database = impl_->database;
    const int64_t known = database.integer(0, "SELECT MAX(step) FROM steps WHERE stage = ?", stage);
    if (step < 0 || step > known) {
      throw CheckpointError(database.file().string(),
                            ": stage ",
                            stage,
                            " has ",
                            known,
                            " steps, so it cannot go on from step ",
                            step,
                            ": is the checkpoint from another run?");
    }
    {
      Query pruned = database.query(
          "SELECT b.stage, b.step FROM batch_samples b "
          "JOIN rollouts r ON r.stage = b.stage AND r.ordinal = b.ordinal AND r.sample = b.sample "
          "JOIN segments s ON s.segment = r.segment "
          "WHERE s.pruned = 1 AND (b.stage > ?1 OR (b.stage = ?1 AND b.step > ?2)) "
          "ORDER BY b.stage DESC, b.step DESC LIMIT 1",
          stage,
          step);
      if (pruned.step()) {
        throw CheckpointError(database.file().string(),
                              ": cannot go back to step ",
                              step,
                              " of stage ",
                              stage,
                              ": the samples of step ",
                              pruned.integer(1),
                              " of stage ",
                              pruned.integer(0),
                              " were pruned after a later checkpoint; resume from that one");
      }
    }
    const int64_t replay =
        database.run("UPDATE steps SET replayable = 1 WHERE stage = ? AND step > ?", stage, step);
    database.run("UPDATE steps SET replayable = 1 WHERE stage > ?", stage);
    database.run("UPDATE stages SET finished = 0, result = '' WHERE stage > ?", stage);
    if (replay > 0) {
      database.run("UPDATE stages SET finished = 0, result = '' WHERE stage = ?", stage);
    }
    database.run(
        "UPDATE checkpoints SET durable = 0 WHERE stage > ?1 OR (stage = ?1 AND step > ?2)",
        stage,
        step);
  });
}

void Ledger::record_checkpoint(const CheckpointRecord& checkpoint) {
  impl_->commit([&] {
    impl_->require_stage(checkpoint.stage);
    const int64_t done = last_step(checkpoint.stage);
    PRAETOR_CHECK(checkpoint.step <= done,
                  checkpoint.path,
                  ": checkpoint of step ",
                  checkpoint.step,
                  ", but step ",
                  done,
                  " is the last one recorded");
    impl_->database.run("INSERT OR REPLACE INTO checkpoints VALUES(?, ?, ?, ?)",
                        checkpoint.path,
                        checkpoint.stage,
                        checkpoint.step,
                        checkpoint.durable);
  });
}

void Ledger::forget_checkpoint(std::string_view path) {
  impl_->commit([&] { impl_->database.run("DELETE FROM checkpoints WHERE path = ?", path); });
}

std::vector<CheckpointRecord> Ledger::checkpoints() const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<CheckpointRecord> out;
  Query row = impl_->database.query(
      "SELECT stage, step, path, durable FROM checkpoints ORDER BY stage, step, path");
  while (row.step()) {
    out.push_back(
        {static_cast<int32_t>(row.integer(0)), row.integer(1), row.text(2), row.integer(3) != 0});
  }
  return out;
}

int64_t Ledger::prune_payload(int32_t stage, int64_t step) {
  std::vector<int64_t> gone;
  impl_->commit([&] {
    Database& database = impl_->database;
    const bool covered =
        database.integer(0,
                         "SELECT 1 FROM checkpoints WHERE durable = 1 AND (stage > ?1 OR "
                         "(stage = ?1 AND step >= ?2)) LIMIT 1",
                         stage,
                         step) == 1;
    PRAETOR_CHECK(covered, "stage ", stage, ", step ", step, ": no durable checkpoint covers it");
    const int64_t active = impl_->writer ? impl_->writer->segment()
                                         : database.integer(0, "SELECT MAX(segment) FROM segments");
    Query rows = database.query(
        "SELECT segment FROM segments WHERE pruned = 0 AND segment <> ?3 AND segment NOT IN ("
        "  SELECT r.segment FROM rollouts r WHERE r.stage > ?1 OR (r.stage = ?1"
        "    AND NOT EXISTS (SELECT 1 FROM drops d WHERE d.stage = r.stage"
        "      AND d.ordinal = r.ordinal AND d.sample = r.sample)"
        "    AND NOT EXISTS (SELECT 1 FROM batch_samples b JOIN steps t"
        "      ON t.stage = b.stage AND t.step = b.step WHERE b.stage = r.stage"
        "      AND b.ordinal = r.ordinal AND b.sample = r.sample AND b.step <= ?2"
        "      AND t.replayable = 0)))",
        stage,
        step,
        active);
    while (rows.step()) gone.push_back(rows.integer(0));
    for (const int64_t segment : gone) {
      database.run("UPDATE segments SET pruned = 1 WHERE segment = ?", segment);
    }
  });
  // After the commit: a crash here leaves files that the next opening removes.
  int64_t freed = 0;
  for (const int64_t segment : gone) {
    const fs::path file = segment_path(impl_->folder, segment);
    std::error_code failure;
    const auto size = static_cast<int64_t>(fs::file_size(file, failure));
    if (!failure && fs::remove(file, failure)) freed += size;
  }
  if (!gone.empty()) fsync_directory(impl_->folder);
  return freed;
}

}  // namespace praetor
