#include <string>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/ledger/ledger.h"
#include "core/ledger/segment.h"
#include "core/ledger/sqlite.h"
#include "tests/core/ledger/ledger_fixture.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

void make_run(const fs::path& run) {
  auto ledger = Ledger::open(run);
  testing::two_steps(*ledger);
  testing::issue(*ledger, 0, 4, 5, 2);
  ledger->record_rollouts(0, std::vector{testing::make_rollout(4, 0)});
  ledger->drop(0, std::vector{SampleId{4, 1}}, "too long");
}

std::string all_findings(const fs::path& run) {
  std::string out;
  for (const Finding& finding : Ledger::open_read_only(run)->verify()) {
    out += finding.where + ": " + finding.problem + "\n";
  }
  return out;
}

}  // namespace

TEST_CASE("verify names what is wrong with a ledger's rows", "[core][cpu][ledger]") {
  struct Damage {
    const char* sql;
    const char* finding;
  };
  const Damage damages[] = {
      {"DELETE FROM prompts WHERE ordinal = 1",
       "prompt 2 was issued, but prompt 1 before it was not"},
      {"UPDATE prompts SET samples = 1 WHERE ordinal = 0",
       "rollout of prompt 0, sample 1, which was never issued"},
      {"INSERT INTO drops VALUES(0, 9, 0, 'x')",
       "drop of prompt 9, sample 0, which was never issued"},
      {"INSERT INTO batch_samples VALUES(0, 9, 0, 2, 4)",
       "prompt 9, sample 0 stands in a batch, but was never issued"},
      {"INSERT INTO scores VALUES(0, 4, 1, 1.0, '[]', '')",
       "prompt 4, sample 1 has a score, but no rollout"},
      {"INSERT INTO drops VALUES(0, 1, 1, 'x')",
       "prompt 1, sample 1 was dropped and stands in the batch of step 1"},
      {"DELETE FROM rollouts WHERE ordinal = 2 AND sample = 0",
       "prompt 2, sample 0 stands in the batch of step 2, but has no rollout"},
      {"DELETE FROM batches WHERE step = 2",
       "samples stand in the batch of step 2, which was not recorded"},
      {"DELETE FROM batch_samples WHERE step = 2 AND position = 1",
       "the batch of step 2 has 3 samples, its positions go up to 3"},
      {"UPDATE batches SET step = 3 WHERE step = 2",
       "batch 3 is recorded, but batch 2 before it is not"},
      {"DELETE FROM steps WHERE step = 1", "step 2 is recorded, but step 1 before it is not"},
      {"UPDATE steps SET replayable = 1 WHERE step = 1",
       "step 2 is recorded, but step 1 before it is not, or is to be replayed"},
      {"UPDATE steps SET step = 7 WHERE step = 2", "step 7 is recorded, but its batch is not"},
      {"UPDATE rollouts SET segment = 8 WHERE ordinal = 3 AND sample = 1",
       "prompt 3, sample 1: its row names segment 8"},
      {"UPDATE rollouts SET position = 17 WHERE ordinal = 3 AND sample = 1",
       "offset 17: no whole record of stage 0, prompt 3, sample 1"},
      {"UPDATE rollouts SET bytes = 9 WHERE ordinal = 0 AND sample = 0", "bytes, its row says 9"},
      {"UPDATE rollouts SET position = (SELECT position FROM rollouts WHERE ordinal = 1 AND sample "
       "= 1) "
       "WHERE ordinal = 0 AND sample = 0",
       "its row names the same record as another one"},
      {"INSERT INTO drops VALUES(0, 0, 1, 'x')",
       "10 samples issued, but 8 trained + 2 dropped + 1 pending"},
  };
  for (const Damage& damage : damages) {
    INFO(damage.sql);
    const testing::TempDir dir;
    make_run(dir / "run");
    REQUIRE(all_findings(dir / "run").empty());
    Database(dir / "run/ledger.db", Database::Mode::kOwner).exec(damage.sql);
    CHECK_THAT(all_findings(dir / "run"), Contains(damage.finding));
  }
}

TEST_CASE("verify names what is wrong with a ledger's files", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  const fs::path run = dir / "run";
  make_run(run);
  const fs::path file = segment_path(run / "rollouts", 1);
  const std::string good = read_file(file);

  std::string bad = good;
  bad[good.size() / 2] ^= 4;
  write_file_atomic(file, bad);
  CHECK_THAT(all_findings(run),
             Contains("000001.seg: offset") && Contains("checksum does not match"));

  write_file_atomic(file, good.substr(0, good.size() - 1));
  CHECK_THAT(all_findings(run),
             Contains("torn") && Contains("no whole record of stage 0, prompt 4, sample 0"));
  CHECK_THROWS_WITH(Ledger::open(run),
                    Contains("000001.seg: has") && Contains("the ledger has committed"));

  write_file_atomic(file, "another file altogether");
  CHECK_THAT(all_findings(run), Contains("is not a segment file"));

  fs::remove(file);
  CHECK_THAT(all_findings(run), Contains("000001.seg: no such file"));
  CHECK_THROWS_WITH(Ledger::open(run), Contains("000001.seg: is missing"));

  // Two records exchanged by hand, each whole: the payload says whose it is.
  write_file_atomic(file, good);
  REQUIRE(all_findings(run).empty());
  Database(run / "ledger.db", Database::Mode::kOwner)
      .exec(
          "CREATE TEMP TABLE was AS SELECT 1 - ordinal AS other, position FROM rollouts "
          "WHERE ordinal IN (0, 1) AND sample = 0;"
          "UPDATE rollouts SET position = (SELECT position FROM was WHERE other = ordinal) "
          "WHERE ordinal IN (0, 1) AND sample = 0");
  CHECK_THAT(all_findings(run),
             Contains("holds stage 0, prompt 0, sample 0") ||
                 Contains("holds stage 0, prompt 1, sample 0"));
  CHECK_THROWS_WITH(Ledger::open_read_only(run)->rollout(0, {0, 0}),
                    Contains("the ledger expects"));
}

TEST_CASE("a damaged database page is found", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  const fs::path run = dir / "run";
  make_run(run);
  std::string bytes = read_file(run / "ledger.db");
  for (size_t at = 2 * 4096 + 100; at < bytes.size(); ++at) {
    if (at % 512 < 16) bytes[at] = 'Z';
  }
  write_file_atomic(run / "ledger.db", bytes);
  std::string told;
  try {
    told = all_findings(run);
  } catch (const Error& failure) {
    CHECK(failure.exit_status() == kExitBadData);
    told = failure.what();
  }
  CHECK_THAT(told, Contains("ledger.db"));
  write_file_atomic(run / "ledger.db", bytes.substr(0, 5000));
  CHECK_THROWS_AS(Ledger::open(run), DataError);
}

TEST_CASE("a later version's ledger is refused with its number", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  make_run(dir / "run");
  Database(dir / "run/ledger.db", Database::Mode::kOwner).exec("PRAGMA user_version = 2");
  CHECK_THROWS_WITH(Ledger::open(dir / "run"),
                    Contains("ledger version 2, this program reads version 1"));
}

}  // namespace praetor
