#include "actors/train/checkpoint_saver.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/base/file_layer.h"
#include "learners/algorithms/sft.h"
#include "tests/actors/rpc/fake_services.h"
#include "tests/support/catch.h"
#include "tests/support/ranks.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

namespace fs = std::filesystem;
using testing::run_ranks;
using testing::TempDir;

namespace {

Learner learner_on(Collective& ranks, int64_t sharding = 1, int64_t group = 0) {
  LearnerConfig config;
  config.sharding = {.stage = sharding, .group = group};
  LearnerModels models;
  models.policy = std::make_unique<Transformer>(testing::tiny_model());
  return Learner(config, make_sft(SftConfig{}), std::move(models), &ranks);
}

CheckpointContext context_in(const fs::path& run) {
  return {.run_dir = run,
          .stage_name = "sft",
          .tokenizer = run,
          .environment = {{"ranks", "2"}},
          .resolved_job = "name: job\n"};
}

/// Adds one to every weight of this rank, in place.
void change(const Learner& learner) {
  const at::NoGradGuard no_grad;
  for (const NamedTensor& t : learner.state()) t.tensor.detach().add_(1);
}

/// A disk on which one file has no room.
class FullDisk final : public FileLayer {
 public:
  std::string full;  ///< part of a file's name; empty: there is room

  int create(const fs::path& file) override {
    if (!full.empty() && file.filename().string().find(full) != std::string::npos) {
      errno = ENOSPC;
      return -1;
    }
    return posix_files().create(file);
  }
  ssize_t write_at(int fd, const void* bytes, size_t size, uint64_t at) override {
    return posix_files().write_at(fd, bytes, size, at);
  }
  int sync(int fd) override { return posix_files().sync(fd); }
  int close(int fd) override { return posix_files().close(fd); }
  int sync_folder(const fs::path& folder) override { return posix_files().sync_folder(folder); }
  int make_folder(const fs::path& folder) override { return posix_files().make_folder(folder); }
  int link(const fs::path& target, const fs::path& name) override {
    return posix_files().link(target, name);
  }
  int rename(const fs::path& from, const fs::path& to) override {
    return posix_files().rename(from, to);
  }
  int exchange(const fs::path& one, const fs::path& other) override {
    return posix_files().exchange(one, other);
  }
  int remove_file(const fs::path& file) override { return posix_files().remove_file(file); }
  int remove_folder(const fs::path& folder) override { return posix_files().remove_folder(folder); }
};

/// Hashes of the shards, by rank.
std::vector<std::string> shards_of(const fs::path& folder) {
  std::vector<std::string> out;
  const CheckpointReader reader(folder);
  for (const CheckpointFile& file : reader.manifest().files) {
    if (file.name.starts_with("shard-")) out.push_back(file.sha256);
  }
  return out;
}

}  // namespace

TEST_CASE("what the background writes is the state at the save, whatever training does meanwhile",
          "[actors][cpu]") {
  for (const int32_t world : {1, 2}) {
    const TempDir calm, busy;
    std::vector<int64_t> durable;
    testing::FakeServices run;
    std::vector<std::string> early(static_cast<size_t>(world), "unset");
    const auto errors = run_ranks(world, [&](Collective& ranks) {
      Learner learner = learner_on(ranks, world == 1 ? 1 : 3);
      testing::FakeServices unused;
      CheckpointSaver direct(unused, ranks, {});
      CheckpointSaver saver(run, ranks, {.background = true, .on_durable = [&](int64_t step) {
                                           durable.push_back(step);
                                         }});
      for (int64_t step = 1; step <= 3; ++step) {
        direct.save(context_in(calm.path()), learner, step, {{"eval/loss", 0.5}});
        saver.save(context_in(busy.path()), learner, step, {{"eval/loss", 0.5}});
        // Nothing is durable until the ranks say so together, be the thread ever so quick.
        if (step == 1) {
          const bool there = fs::exists(fs::symlink_status(busy / "latest"));
          early[static_cast<size_t>(ranks.rank())] = there ? "durable at once" : "";
        }
        change(learner);
      }
      saver.finish();
      saver.finish();  // of nothing
      saver.poll();
    });
    CHECK(errors == std::vector<std::string>(static_cast<size_t>(world)));
    CHECK(early == std::vector<std::string>(static_cast<size_t>(world)));
    CHECK(durable == std::vector<int64_t>{1, 2, 3});
    CHECK((run.checkpoint.durable && run.checkpoint.step == 3));
    std::set<std::string> different;
    for (const char* step : {"step-000001", "step-000002", "step-000003"}) {
      const auto written = shards_of(busy / "checkpoints" / "sft" / step);
      CHECK(written == shards_of(calm / "checkpoints" / "sft" / step));
      CHECK(written.size() == static_cast<size_t>(world));
      different.insert(written.front());
    }
    CHECK(different.size() == 3);
    CHECK(fs::read_symlink(busy / "latest") == "checkpoints/sft/step-000003");
  }
}

TEST_CASE("of ranks that keep copies the first copy's write it, once", "[actors][cpu]") {
  for (const bool background : {false, true}) {
    const TempDir whole, copies;
    testing::FakeServices run;
    std::vector<std::string> loaded(4);
    const auto save = [&](Collective& ranks, const fs::path& folder, int64_t group) {
      const Learner learner = learner_on(ranks, 3, group);
      CheckpointSaver saver(run, ranks, {.background = background});
      saver.save(context_in(folder), learner, 1, {});
      saver.finish();
    };
    CHECK(run_ranks(2, [&](Collective& ranks) { save(ranks, whole.path(), 0); }) ==
          std::vector<std::string>(2));
    CHECK(run_ranks(4, [&](Collective& ranks) {
            save(ranks, copies.path(), 2);
            Learner learner = learner_on(ranks, 2, 1);
            change(learner);
            load_checkpoint(copies / "latest", "sft", ranks, learner);
            loaded[static_cast<size_t>(ranks.rank())] = learner.policy().digest();
          }) == std::vector<std::string>(4));
    // Two shards, of the bits that two ranks without copies write.
    CHECK(shards_of(copies / "latest").size() == 2);
    CHECK(shards_of(copies / "latest") == shards_of(whole / "latest"));
    CHECK(loaded == std::vector<std::string>(4, testing::tiny_model().digest()));
  }
}

TEST_CASE("polling ends a background save once every rank has written", "[actors][cpu]") {
  const TempDir dir;
  testing::FakeServices run;
  std::vector<std::string> problem(2);
  const auto errors = run_ranks(2, [&](Collective& ranks) {
    const Learner learner = learner_on(ranks);
    CheckpointSaver saver(run, ranks, {.background = true});
    saver.save(context_in(dir.path()), learner, 4, {});
    const fs::path latest = dir / "latest";
    for (int64_t there = 0; there < ranks.world_size();) {
      saver.poll();
      there = fs::is_directory(latest) ? 1 : 0;
      ranks.all_reduce(std::span(&there, 1));
    }
    if (CheckpointReader(latest).manifest().step != 4) throw InternalError("another step");
  });
  CHECK(errors == std::vector<std::string>(2));
}

TEST_CASE("a rank that cannot write fails the save on every rank and leaves the one before",
          "[actors][cpu]") {
  for (const bool background : {false, true}) {
    const TempDir dir;
    testing::FakeServices run;
    FullDisk disk;
    std::vector<std::string> told(2);
    {
      const ScopedFileLayer layer(disk);
      const auto errors = run_ranks(2, [&](Collective& ranks) {
        const Learner learner = learner_on(ranks);
        CheckpointSaver saver(run, ranks, {.background = background});
        saver.save(context_in(dir.path()), learner, 1, {});
        saver.finish();
        ranks.barrier();
        if (ranks.rank() == 0) disk.full = "shard-00001";
        ranks.barrier();
        try {
          saver.save(context_in(dir.path()), learner, 2, {});
          saver.finish();
        } catch (const IoError& failure) {
          told[static_cast<size_t>(ranks.rank())] = failure.what();
        }
      });
      CHECK(errors == std::vector<std::string>(2));
    }
    CHECK(told[0] == told[1]);
    CHECK_THAT(told[0], Catch::Contains("shard-00001") && Catch::Contains("No space left"));
    CHECK((run.checkpoint.step == 2 && !run.checkpoint.durable));
    CHECK(CheckpointReader(dir / "latest").manifest().step == 1);
    CHECK(std::distance(fs::directory_iterator(dir / "checkpoints" / "sft"), {}) == 1);
  }
}

TEST_CASE("a save that is given up leaves the one before it", "[actors][cpu]") {
  const TempDir dir;
  testing::FakeServices run;
  const auto ranks = make_local_collective();
  const Learner learner = learner_on(*ranks);
  {
    CheckpointSaver saver(run, *ranks, {.background = true});
    saver.save(context_in(dir.path()), learner, 1, {});
    saver.save(context_in(dir.path()), learner, 2, {});
  }
  CHECK(CheckpointReader(dir / "latest").manifest().step == 1);
  CHECK(std::distance(fs::directory_iterator(dir / "checkpoints" / "sft"), {}) == 1);
}

}  // namespace praetor
