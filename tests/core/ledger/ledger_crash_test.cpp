#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/ledger/ledger.h"
#include "core/ledger/segment.h"
#include "tests/core/ledger/ledger_fixture.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using Catch::Matchers::Contains;
using testing::issue;
using testing::make_batch;
using testing::make_rollout;
using testing::make_score;
using testing::make_step;
namespace fs = std::filesystem;

namespace {

constexpr LedgerOptions kSmall{.segment_bytes = 4096};

/// Goes on with a run for ever: issue, roll out, score, train, one step after the other. After each
/// commit one byte tells the parent how far the ledger has promised to be.
[[noreturn]] void work_until_killed(const fs::path& run, int pipe) {
  try {
    auto ledger = Ledger::open(run, kSmall);
    ledger->begin_stage(0, "ppo");
    for (;;) {
      const int64_t step = ledger->last_step(0) + 1;
      const int64_t from = 2 * (step - 1);
      const int64_t next = ledger->next_ordinal(0);
      if (next < from + 2) issue(*ledger, 0, next, from + 2, 2);
      ledger->open_lease({});
      for (int64_t i = from; i < from + 2; ++i) {
        ledger->record_rollouts(0, std::vector{make_rollout(i, 0), make_rollout(i, 1)});
      }
      for (int64_t i = from; i < from + 2; ++i) {
        ledger->record_scores(0, std::vector{make_score(i, 0, 1.0), make_score(i, 1, 2.0)});
      }
      ledger->record_batch(0, make_batch(step, from, from + 2, 2));
      ledger->record_step(0, make_step(step));
      const auto promised = static_cast<int32_t>(step);
      if (write(pipe, &promised, sizeof(promised)) != sizeof(promised)) _exit(3);
    }
  } catch (const std::exception& failure) {
    const int32_t broken = -1;
    if (write(pipe, &broken, sizeof(broken)) != sizeof(broken)) _exit(3);
    fprintf(stderr, "child: %s\n", failure.what());
    _exit(2);
  }
}

}  // namespace

TEST_CASE("an owner killed at random moments loses nothing it had recorded",
          "[core][cpu][ledger]") {
  const testing::TempDir dir;
  const fs::path run = dir / "run";
  std::srand(7);
  int64_t promised = 0;
  for (int round = 0; round < 12; ++round) {
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      close(ends[0]);
      work_until_killed(run, ends[1]);
    }
    close(ends[1]);
    int32_t step = 0;
    // The first step proves that the child is under way; then it dies somewhere within the next
    // ones.
    REQUIRE(read(ends[0], &step, sizeof(step)) == sizeof(step));
    std::this_thread::sleep_for(std::chrono::microseconds(std::rand() % 20000));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    REQUIRE(WIFSIGNALED(status));
    do {
      REQUIRE(step > 0);
      promised = std::max<int64_t>(promised, step);
    } while (read(ends[0], &step, sizeof(step)) == sizeof(step));
    close(ends[0]);

    {
      // First as `praetor verify` would see it, before the next owner mends anything.
      const auto reader = Ledger::open_read_only(run);
      for (const Finding& finding : reader->verify()) {
        INFO(finding.where << ": " << finding.problem);
        CHECK(false);
      }
    }
    const auto ledger = Ledger::open(run, kSmall);
    CHECK(ledger->verify().empty());
    CHECK(ledger->last_step(0) >= promised);
    CHECK(ledger->balance(0).holds());
    CHECK(ledger->balance(0).trained == 4 * ledger->last_step(0));
    for (const SampleState& state : ledger->samples(0, 0, ledger->next_ordinal(0))) {
      if (state.rolled_out) {
        CHECK(ledger->rollout(0, state.id) == make_rollout(state.id.ordinal, state.id.sample));
      }
    }
  }
  CHECK(promised >= 12);
}

TEST_CASE("a segment torn at any byte after the last commit is cut to it", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  const fs::path run = dir / "run";
  {
    auto ledger = Ledger::open(run);
    ledger->begin_stage(0, "ppo");
    issue(*ledger, 0, 0, 2, 1);
    ledger->record_rollouts(0, std::vector{make_rollout(0, 0)});
  }
  const fs::path file = segment_path(run / "rollouts", 1);
  const std::string committed = read_file(file);
  int64_t record = 0;
  {
    SegmentWriter writer(run / "rollouts", 1);
    record = writer.append("a record whose row never committed").bytes;
  }
  const std::string longer = read_file(file);
  for (int64_t extra = 1; extra <= record; ++extra) {
    write_file_atomic(file, longer.substr(0, committed.size() + static_cast<size_t>(extra)));
    const auto ledger = Ledger::open(run);
    CHECK(ledger->recovery().cut_bytes == extra);
    CHECK(ledger->recovery().cut_records == (extra == record ? 1 : 0));
    CHECK(read_file(file) == committed);
    CHECK(ledger->rollout(0, {0, 0}) == make_rollout(0, 0));
  }
  // A file that no commit ever named goes as a whole.
  { SegmentWriter(run / "rollouts", 2).append("x"); }
  CHECK(Ledger::open(run)->recovery().cut_records == 1);
  CHECK_FALSE(fs::exists(segment_path(run / "rollouts", 2)));
}

TEST_CASE("a copy of the database and its log, taken while the owner lives, is a whole ledger",
          "[core][cpu][ledger]") {
  const testing::TempDir dir;
  auto owner = Ledger::open(dir / "run");
  testing::two_steps(*owner);
  REQUIRE(fs::exists(dir / "run/ledger.db-wal"));
  CHECK_FALSE(
      fs::exists(dir / "run/ledger.db-shm"));  // no shared memory: network file systems have none
  fs::copy(dir / "run", dir / "copy", fs::copy_options::recursive);
  {
    const auto reader = Ledger::open_read_only(dir / "copy");
    CHECK(reader->last_step(0) == 2);
    CHECK(reader->verify().empty());
  }
  REQUIRE(fs::file_size(dir / "copy/ledger.db-wal") == fs::file_size(dir / "run/ledger.db-wal"));
  // The log cut in the middle of its last commit: that commit is gone, what came before it stands.
  fs::resize_file(dir / "copy/ledger.db-wal", fs::file_size(dir / "copy/ledger.db-wal") - 100);
  const auto ledger = Ledger::open(dir / "copy");
  CHECK(ledger->last_step(0) == 1);
  CHECK(ledger->balance(0).in_batch == 4);
  CHECK(ledger->verify().empty());
}

TEST_CASE("a disk that fills up ends the call, not the ledger", "[core][cpu][ledger]") {
  const testing::TempDir dir;
  auto ledger = Ledger::open(dir / "run");
  ledger->begin_stage(0, "ppo");
  issue(*ledger, 0, 0, 64, 1);
  ledger->record_rollouts(0, std::vector{make_rollout(0, 0)});
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  auto* handler = std::signal(SIGXFSZ, SIG_IGN);
  const auto with_limit = [&](uintmax_t bytes, const auto& body) {
    rlimit small = old;
    small.rlim_cur = bytes;
    REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
    std::string message;
    try {
      body();
    } catch (const IoError& failure) {
      message = failure.what();
    }
    setrlimit(RLIMIT_FSIZE, &old);
    return message;
  };
  // Neither the segment ...
  const auto record = [&](int64_t ordinal) {
    ledger->record_rollouts(0, std::vector{make_rollout(ordinal, 0)});
  };
  CHECK_THAT(with_limit(200, [&] { record(1); }), Contains("000001.seg") && Contains("make room"));
  CHECK_FALSE(ledger->rollout(0, {1, 0}));
  // ... nor the database can grow.
  const auto log = fs::file_size(dir / "run/ledger.db-wal");
  CHECK_THAT(with_limit(log, [&] { record(1); }), Contains("ledger.db") && Contains("make room"));
  std::signal(SIGXFSZ, handler);
  CHECK_FALSE(ledger->rollout(0, {1, 0}));
  CHECK(ledger->balance(0).awaiting_rollout == 63);
  record(1);
  CHECK(ledger->rollout(0, {1, 0}) == make_rollout(1, 0));
  CHECK(ledger->verify().empty());
}

}  // namespace praetor
