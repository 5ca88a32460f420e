#include "core/metrics/metrics_writer.h"

#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/metrics/event_file.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

MetricsOptions fixed_time() {
  MetricsOptions options;
  options.wall_time = [] { return 1700000000.5; };
  return options;
}

std::string event_bytes(const fs::path& run, const std::string& stage) {
  return read_file(run / "tensorboard" / stage / "events.out.tfevents.praetor");
}

void append(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::app | std::ios::binary) << bytes;
}

}  // namespace

TEST_CASE("a line holds the numbers in their order and to the last bit", "[core][cpu][metrics]") {
  const MetricList metrics = {{"policy/loss", 0.1},
                              {"lr", 1e-7},
                              {"a", 3.0},
                              {"b", std::numeric_limits<double>::quiet_NaN()},
                              {"c", -std::numeric_limits<double>::infinity()},
                              {"d", 1.0 / 3.0},
                              {"e", std::numeric_limits<double>::denorm_min()},
                              {"sync/bytes", 9007199254740993.0}};
  const std::string line = metrics_line("p\"po", 12, metrics);
  CHECK(line ==
        "{\"stage\": \"p\\\"po\", \"step\": 12, \"policy/loss\": 0.1, \"lr\": 1e-07, \"a\": 3, "
        "\"b\": null, "
        "\"c\": null, \"d\": 0.3333333333333333, \"e\": 5e-324, \"sync/bytes\": 9007199254740992}");
  const auto row = nlohmann::json::parse(line);
  CHECK(row["d"].get<double>() == 1.0 / 3.0);
  CHECK(row["e"].get<double>() == std::numeric_limits<double>::denorm_min());
}

TEST_CASE("event files are byte for byte what TensorBoard was seen to read",
          "[core][cpu][metrics]") {
  // tests/golden/make_events.py wrote the fixture after TensorBoard's own reader had given these
  // values back.
  const testing::TempDir dir;
  {
    MetricsWriter writer(dir.path(), fixed_time());
    writer.write("ppo", 1, {{"policy/loss", 0.25}, {"reward/mean", -1.5}});
    writer.write("ppo", 2, {{"policy/loss", std::nan("")}, {"perf/tokens_per_second", 123456.789}});
    writer.write("ppo", 300, {{"policy/loss", 1e-9}});
  }
  CHECK(event_bytes(dir.path(), "ppo") == read_file(testing::golden("events.out.tfevents.golden")));
}

TEST_CASE("a replay writes each step once", "[core][cpu][metrics]") {
  const testing::TempDir dir;
  const auto write_steps = [](MetricsWriter& writer, const std::string& stage, int from, int to) {
    for (int step = from; step <= to; ++step)
      writer.write(stage, step, {{"policy/loss", step * 0.5}});
  };
  std::string lines, sft, ppo;
  {
    MetricsWriter writer(dir.path(), fixed_time());
    write_steps(writer, "sft", 1, 4);
    write_steps(writer, "ppo", 1, 3);
    writer.sync();
    lines = read_file(dir / "metrics.jsonl");
    sft = event_bytes(dir.path(), "sft");
    ppo = event_bytes(dir.path(), "ppo");
  }
  {
    MetricsWriter writer(dir.path(), fixed_time());
    writer.truncate_after("ppo", 1);
    CHECK(read_file(dir / "metrics.jsonl").size() < lines.size());
    write_steps(writer, "ppo", 2, 3);
  }
  CHECK(read_file(dir / "metrics.jsonl") == lines);
  CHECK(event_bytes(dir.path(), "ppo") == ppo);
  {
    // Back into the first stage: what the second one wrote goes as well.
    MetricsWriter writer(dir.path(), fixed_time());
    writer.truncate_after("sft", 2);
    const std::string kept = read_file(dir / "metrics.jsonl");
    CHECK(std::count(kept.begin(), kept.end(), '\n') == 2);
    write_steps(writer, "sft", 3, 4);
    write_steps(writer, "ppo", 1, 3);
  }
  CHECK(read_file(dir / "metrics.jsonl") == lines);
  CHECK(event_bytes(dir.path(), "sft") == sft);
  CHECK(event_bytes(dir.path(), "ppo") == ppo);
  {
    MetricsWriter writer(dir.path(), fixed_time());
    writer.truncate_after("ppo", 0);
    writer.truncate_after("ppo", 0);
    writer.truncate_after("never", 0);
    writer.truncate_after("sft", 4);
    write_steps(writer, "ppo", 1, 3);
  }
  CHECK(read_file(dir / "metrics.jsonl") == lines);
  CHECK(event_bytes(dir.path(), "ppo") == ppo);
}

TEST_CASE("what a crash tore off is cut when the writer comes back", "[core][cpu][metrics]") {
  const testing::TempDir dir;
  const auto write = [&](int64_t step) {
    MetricsWriter(dir.path(), fixed_time()).write("ppo", step, {{"policy/loss", 0.5}});
  };
  write(1);
  const std::string line = read_file(dir / "metrics.jsonl");
  const std::string events = event_bytes(dir.path(), "ppo");
  write(2);
  const std::string two_lines = read_file(dir / "metrics.jsonl");
  const std::string two_events = event_bytes(dir.path(), "ppo");
  const fs::path event_file = dir / "tensorboard/ppo/events.out.tfevents.praetor";
  for (const size_t torn : {size_t{1}, size_t{11}, two_events.size() - events.size() - 1}) {
    write_file_atomic(dir / "metrics.jsonl", two_lines.substr(0, line.size() + torn % 20));
    write_file_atomic(event_file, two_events.substr(0, events.size() + torn));
    write(2);
    CHECK(read_file(dir / "metrics.jsonl") == two_lines);
    CHECK(event_bytes(dir.path(), "ppo") == two_events);
  }
  // Bytes that are no frame at all.
  append(event_file, "garbage at the end of the file");
  write(3);
  CHECK(scan_events(event_bytes(dir.path(), "ppo"), 100).last_step == 3);
}

TEST_CASE("steps ascend and names stand once", "[core][cpu][metrics]") {
  const testing::TempDir dir;
  MetricsWriter writer(dir.path(), fixed_time());
  writer.write("ppo", 2, {{"a", 1.0}});
  CHECK_THROWS_WITH(writer.write("ppo", 2, {{"a", 1.0}}), Contains("step 2 came after step 2"));
  CHECK_THROWS_WITH(writer.write("ppo", 3, {{"a", 1.0}, {"a", 2.0}}),
                    Contains("\"a\" stands twice"));
  CHECK_THROWS_AS(writer.write("ppo", 3, {{"step", 1.0}}), InvalidArgument);
  writer.write("ppo", 3, {{"a", 1.0}});
  CHECK_THROWS_AS(MetricsWriter(dir.path(), fixed_time()).write("ppo", 3, {}), InvalidArgument);
  CHECK_THROWS_AS(MetricsWriter(dir / "metrics.jsonl"), IoError);
}

TEST_CASE("without TensorBoard there is no folder of it", "[core][cpu][metrics]") {
  const testing::TempDir dir;
  MetricsOptions options = fixed_time();
  options.tensorboard = false;
  MetricsWriter writer(dir.path(), options);
  writer.write("ppo", 1, {{"a", 1.0}});
  writer.truncate_after("ppo", 0);
  CHECK(fs::file_size(dir / "metrics.jsonl") == 0);
  CHECK_FALSE(fs::exists(dir / "tensorboard"));
}

TEST_CASE("a full disk leaves no half line", "[core][cpu][metrics]") {
  const testing::TempDir dir;
  MetricsWriter writer(dir.path(), fixed_time());
  writer.write("ppo", 1, {{"a", 1.0}});
  const auto size = fs::file_size(dir / "metrics.jsonl");
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  auto* handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = old;
  small.rlim_cur = size + 5;
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  bool failed = false;
  try {
    writer.write("ppo", 2, {{"a", 1.0}});
  } catch (const IoError&) {
    failed = true;
  }
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  CHECK(failed);
  CHECK(fs::file_size(dir / "metrics.jsonl") == size);
  writer.write("ppo", 2, {{"a", 1.0}});
}

}  // namespace praetor
