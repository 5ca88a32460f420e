#include "core/ledger/schema.h"

#include "core/base/error.h"

namespace praetor {

namespace {

constexpr int64_t kApplicationId = 0x50525452;  // "PRTR"
constexpr int64_t kVersion = 1;

// Tables are append-only in meaning: a later version adds columns and tables, and never reuses a
// name.
constexpr const char* kSchema = R"sql(
PRAGMA application_id = 1347572818;
PRAGMA user_version = 1;
CREATE TABLE facts(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE stages(
  stage INTEGER PRIMARY KEY, name TEXT NOT NULL, form INTEGER NOT NULL,
  finished INTEGER NOT NULL DEFAULT 0, result TEXT NOT NULL DEFAULT '');
CREATE TABLE prompts(
  stage INTEGER NOT NULL, ordinal INTEGER NOT NULL, epoch INTEGER NOT NULL, row INTEGER NOT NULL,
  samples INTEGER NOT NULL, PRIMARY KEY(stage, ordinal)) WITHOUT ROWID;
CREATE TABLE rollouts(
  stage INTEGER NOT NULL, ordinal INTEGER NOT NULL, sample INTEGER NOT NULL,
  segment INTEGER NOT NULL, position INTEGER NOT NULL, bytes INTEGER NOT NULL,
  prompt_length INTEGER NOT NULL, response_length INTEGER NOT NULL, finish INTEGER NOT NULL,
  weight_version INTEGER NOT NULL, worker TEXT NOT NULL,
  PRIMARY KEY(stage, ordinal, sample)) WITHOUT ROWID;
CREATE TABLE scores(
  stage INTEGER NOT NULL, ordinal INTEGER NOT NULL, sample INTEGER NOT NULL,
  score REAL, parts TEXT NOT NULL, worker TEXT NOT NULL,
  PRIMARY KEY(stage, ordinal, sample)) WITHOUT ROWID;
CREATE TABLE drops(
  stage INTEGER NOT NULL, ordinal INTEGER NOT NULL, sample INTEGER NOT NULL, reason TEXT NOT NULL,
  PRIMARY KEY(stage, ordinal, sample)) WITHOUT ROWID;
CREATE TABLE leases(
  id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, stage INTEGER NOT NULL, worker TEXT NOT NULL,
  issued_ms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL, state INTEGER NOT NULL,
  items TEXT NOT NULL);
CREATE INDEX leases_open ON leases(state) WHERE state = 0;
CREATE TABLE batches(
  stage INTEGER NOT NULL, step INTEGER NOT NULL, manifest TEXT NOT NULL,
  PRIMARY KEY(stage, step)) WITHOUT ROWID;
CREATE TABLE batch_samples(
  stage INTEGER NOT NULL, ordinal INTEGER NOT NULL, sample INTEGER NOT NULL,
  step INTEGER NOT NULL, position INTEGER NOT NULL,
  PRIMARY KEY(stage, ordinal, sample)) WITHOUT ROWID;
CREATE UNIQUE INDEX batch_order ON batch_samples(stage, step, position);
CREATE TABLE steps(
  stage INTEGER NOT NULL, step INTEGER NOT NULL, loss_digest TEXT NOT NULL,
  gradient_digest TEXT NOT NULL, metrics TEXT NOT NULL, replayable INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(stage, step)) WITHOUT ROWID;
CREATE TABLE checkpoints(
  path TEXT PRIMARY KEY, stage INTEGER NOT NULL, step INTEGER NOT NULL, durable INTEGER NOT NULL)
  WITHOUT ROWID;
CREATE TABLE segments(
  segment INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, pruned INTEGER NOT NULL DEFAULT 0);
)sql";

}  // namespace

void prepare_schema(Database& database, bool writable) {
  const int64_t version = database.integer(0, "PRAGMA user_version");
  const int64_t application = database.integer(0, "PRAGMA application_id");
  const int64_t tables = database.integer(0, "SELECT COUNT(*) FROM sqlite_master");
  if (writable && version == 0 && application == 0 && tables == 0) {
    database.exec("BEGIN IMMEDIATE");
    database.exec(kSchema);
    database.exec("COMMIT");
    return;
  }
  if (application != kApplicationId) {
    throw DataError(database.file().string(), ": this is not a Praetor ledger");
  }
  if (version != kVersion) {
    throw DataError(database.file().string(),
                    ": ledger version ",
                    version,
                    ", this program reads version ",
                    kVersion,
                    "; use the program that wrote it");
  }
}

}  // namespace praetor
