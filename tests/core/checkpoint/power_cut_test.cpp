// Checkpoints after a power cut at any moment of their making, replacement and removal.
#include "tests/support/power_cut.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/checkpoint/checkpoint.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace fs = std::filesystem;
using testing::FileOperation;
using testing::Survival;

namespace {

constexpr int32_t kRanks = 2;

/// What rank `rank` saves when it says `value`.
std::vector<NamedTensor> tensors(int32_t rank, double value) {
  const auto begin = std::to_string(rank * 8), end = std::to_string(rank * 8 + 8);
  return {{"policy/weight@" + begin + "-" + end, at::full({8}, value, at::kFloat)},
          {"moments/weight@" + begin + "-" + end, at::full({8}, value, at::kDouble)}};
}

void save(const fs::path& run, int64_t step, double value, testing::RecordingFiles& files) {
  CheckpointWriter writer(run, "ppo", step, kRanks);
  for (int32_t rank = 0; rank < kRanks; ++rank)
    writer.add_shard(
        CheckpointWriter::write_shard(writer.folder(), rank, kRanks, tensors(rank, value)));
  writer.add_blob("config.json", std::to_string(value));
  writer.set_state({{"value", value}});
  writer.set_metrics({{"eval/score", value}});
  const fs::path folder = writer.commit();
  files.mark(std::to_string(step) + " " + std::to_string(value));
  const BestBy best{.metric = "eval/score"};
  point_best_at(run, best_checkpoints(run, "ppo", best).front());
  apply_retention(run, "ppo", {.keep_last = 1, .best = best});
}

/// The value of which all of a checkpoint is; an exception says what is not whole.
double value_of(const fs::path& folder) {
  const CheckpointReader reader(folder);
  const double value = reader.state().at("value").get<double>();
  const auto source = reader.tensors();
  if (source->forms().size() != 2 * kRanks) throw CheckpointError("tensors are missing");
  for (size_t i = 0; i < source->forms().size(); ++i) {
    at::Tensor read = at::empty(source->forms()[i].shape, source->forms()[i].dtype);
    source->read(i, 0, read.numel(), read);
    if (!at::equal(read, at::full_like(read, value))) throw CheckpointError("tensors of two saves");
  }
  if (read_file(reader.file("config.json")) != std::to_string(value))
    throw CheckpointError("a file of another save");
  return value;
}

/// What a resumed run would meet; empty: all is well.
std::string trouble_of(const fs::path& run, int64_t saved_step, double saved_value) {
  try {
    clean_checkpoints(run);
    const auto found = resolve_checkpoint(run, "auto");
    if (!found) return saved_step > 0 ? "no checkpoint is found" : "";
    const int64_t step = CheckpointReader(*found).manifest().step;
    const double value = value_of(*found);
    // The save that was under way may have come through.
    if (value < saved_value) return str("step ", step, " of an earlier save is found");
    for (const fs::path& one : list_checkpoints(run, "ppo")) value_of(one);
    if (fs::is_symlink(run / "best")) value_of(run / "best");
    return "";
  } catch (const Error& failure) {
    return failure.what();
  }
}

}  // namespace

namespace {

void save_several(const fs::path& run, testing::RecordingFiles& files) {
  const ScopedFileLayer recording(files);
  save(run, 1, 0.5, files);
  save(run, 2, 1.5, files);
  {
    CheckpointWriter given_up(run, "ppo", 3, kRanks);
    given_up.add_shard(0, tensors(0, 9.0));
  }
  save(run, 3, 2.5, files);
  save(run, 2, 3.5, files);  // a replay takes the place of the older one
  save(run, 3, 4.5, files);
  save(run, 4, 5.5, files);
}

/// Cuts the power after each operation, in all ways; what a resumed run would meet that is wrong.
std::set<std::string> troubles_of(const testing::RecordingFiles& files,
                                  uint64_t mixtures,
                                  FileOperation::Kind forgotten = FileOperation::Kind::kMark) {
  std::set<std::string> troubles;
  int64_t saved_step = 0;
  double saved_value = 0;
  for (size_t count = 0; count <= files.operations().size(); ++count) {
    if (count > 0) {
      const FileOperation& last = files.operations()[count - 1];
      if (last.kind == FileOperation::Kind::kMark) {
        saved_step = std::stoll(last.other);
        saved_value = std::stod(last.other.substr(last.other.find(' ')));
      }
    }
    const auto cut = [&](Survival survival, uint64_t seed) {
      const testing::TempDir after;
      testing::replay_power_cut(files, count, survival, seed, after.path(), forgotten);
      const std::string trouble = trouble_of(after.path(), saved_step, saved_value);
      if (!trouble.empty())
        troubles.insert(str("after ", count, ", ", static_cast<int>(survival), ": ", trouble));
    };
    for (const Survival extreme :
         {Survival::kNothing, Survival::kAll, Survival::kNames, Survival::kBytes})
      cut(extreme, 0);
    for (uint64_t seed = 0; seed < mixtures; ++seed) {
      cut(Survival::kInOrder, 1000 * count + seed);
      cut(Survival::kArbitrary, 1000 * count + seed);
    }
  }
  return troubles;
}

}  // namespace

TEST_CASE("a power cut at any moment leaves the checkpoint before it, or the new one, whole",
          "[core][cpu][checkpoint]") {
  const testing::TempDir dir;
  fs::create_directory(dir / "run");
  testing::RecordingFiles files(dir / "run");
  save_several(dir / "run", files);
  CHECK(files.operations().size() > 150);
  std::string told;
  for (const std::string& one : troubles_of(files, 3)) told += one + "\n";
  CHECK(told.substr(0, 3000) == "");
  // It would not, were any of the syncs not there.
  CHECK(troubles_of(files, 0, FileOperation::Kind::kSyncFile).size() > 10);
  CHECK(troubles_of(files, 0, FileOperation::Kind::kSyncFolder).size() > 10);
}

TEST_CASE("the model of a power cut loses what was not synced", "[core][cpu][checkpoint]") {
  // A file written and renamed with no sync is absent or zeros in one of the cuts, and whole in
  // another.
  const testing::TempDir dir;
  fs::create_directory(dir / "run");
  testing::RecordingFiles files(dir / "run");
  const int fd = files.create(dir / "run" / "part");
  REQUIRE(files.write_at(fd, "whole", 5, 0) == 5);
  files.close(fd);
  REQUIRE(files.rename(dir / "run" / "part", dir / "run" / "file") == 0);
  const auto after = [&](Survival survival) -> std::string {
    const testing::TempDir to;
    testing::replay_power_cut(files, files.operations().size(), survival, 0, to.path());
    return fs::exists(to / "file") ? read_file(to / "file") : "absent";
  };
  CHECK(after(Survival::kNothing) == "absent");
  CHECK(after(Survival::kAll) == "whole");
  CHECK(after(Survival::kNames) == std::string(5, '\0'));
  CHECK(after(Survival::kBytes) == "absent");
  files.sync_folder(dir / "run");
  CHECK(after(Survival::kNothing) == "");
  CHECK(after(Survival::kBytes) == "whole");
}

}  // namespace praetor
