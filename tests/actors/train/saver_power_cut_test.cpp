// What a learner of two ranks finds again after a power cut at any moment of its saving.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "actors/train/checkpoint_saver.h"
#include "actors/train/checkpointing.h"
#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/checkpoint/checkpoint.h"
#include "learners/algorithms/sft.h"
#include "tests/actors/rpc/fake_services.h"
#include "tests/support/catch.h"
#include "tests/support/power_cut.h"
#include "tests/support/ranks.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

namespace fs = std::filesystem;
using testing::FileOperation;
using testing::RecordingFiles;
using testing::Survival;
using testing::TempDir;

namespace {

constexpr int64_t kSteps = 2;

/// One layer: each tensor of a shard is a write, and so a moment more to cut at.
Learner small_learner(Collective& ranks) {
  ModelConfig model = testing::tiny_config();
  model.num_layers = 1;
  LearnerConfig config;
  config.sharding.stage = 3;
  LearnerModels models;
  models.policy = std::make_unique<Transformer>(model, testing::stream(1));
  return Learner(config, make_sft(SftConfig{}), std::move(models), &ranks);
}

/// A step of training, for what matters here: all weights and moments are others.
void change(const Learner& learner) {
  const at::NoGradGuard no_grad;
  for (const NamedTensor& t : learner.state()) t.tensor.detach().add_(1);
}

/// SHA-256 over weights and moments of a learner of one rank.
std::string bits_of(const Learner& learner) {
  Sha256 digest;
  for (const NamedTensor& t : learner.state()) {
    const at::Tensor values = t.tensor.detach().contiguous();
    digest.update(t.name);
    digest.update(
        std::span(static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()));
  }
  return digest.hex();
}

/// Two ranks save and train, and the older checkpoint goes when the newer one is durable. Marks are
/// what the ledger says from there on: "durable N", "forgotten N".
void save_several(const fs::path& run, bool background, RecordingFiles& files) {
  const ScopedFileLayer recording(files);
  testing::FakeServices services;
  const CheckpointContext context{.run_dir = run,
                                  .stage_name = "sft",
                                  .tokenizer = run,
                                  .environment = {{"ranks", "2"}},
                                  .resolved_job = "name: job\n"};
  const auto retain = [&](int64_t step) {
    files.mark("durable " + std::to_string(step));
    apply_retention(run, "sft", {.keep_last = 1}, [&](const fs::path& folder) {
      const int64_t old = CheckpointReader(folder, {.parts = 0}).manifest().step;
      files.mark("forgotten " + std::to_string(old));
    });
  };
  CHECK(testing::run_ranks(2, [&](Collective& ranks) {
          const Learner learner = small_learner(ranks);
          CheckpointSaver saver(services, ranks, {.background = background, .on_durable = retain});
          for (int64_t step = 1; step <= kSteps; ++step) {
            saver.save(context, learner, step, {});
            change(learner);
          }
          saver.finish();
        }) == std::vector<std::string>(2));
}

/// A resumed run, and what it may find.
class Resumption {
 public:
  Resumption() : ranks_(make_local_collective()), learner_(small_learner(*ranks_)) {
    const Learner trained = small_learner(*ranks_);
    for (int64_t step = 1; step <= kSteps; ++step) {
      saved_[step] = bits_of(trained);
      change(trained);
    }
  }

  /// Nothing, or what is wrong in `run`. @param durable  steps of the ledger's rows
  std::string trouble_in(const fs::path& run, const std::set<int64_t>& durable) {
    try {
      clean_checkpoints(run);
      std::set<int64_t> whole;
      for (const fs::path& folder : list_checkpoints(run, "sft")) whole.insert(load(folder));
      // As a run goes on (newest_checkpoint), and as one does that is told to.
      if (!durable.empty() && !whole.contains(*durable.rbegin()))
        return str("step ", *durable.rbegin(), " is durable, but not there");
      const auto latest = resolve_checkpoint(run, "auto");
      if (!latest) return durable.empty() ? "" : "nothing is the latest";
      const int64_t step = load(*latest);
      if (!durable.empty() && step < *durable.rbegin()) return str("step ", step, " is the latest");
      return "";
    } catch (const Error& failure) {
      return failure.what();
    }
  }

 private:
  /// The step, whose very bits the learner has then.
  int64_t load(const fs::path& folder) {
    change(learner_);
    const int64_t step = load_checkpoint(folder, "sft", *ranks_, learner_);
    if (!saved_.contains(step) || bits_of(learner_) != saved_[step])
      throw CheckpointError(folder.string(), ": step ", step, " has other weights than were saved");
    return step;
  }

  std::unique_ptr<Collective> ranks_;
  Learner learner_;
  std::map<int64_t, std::string> saved_;
};

/// Cuts the power after every operation, in each of the extreme ways and in one mixture of each
/// kind. Returns what a resumed run would meet that is wrong.
/// @param forgotten  syncs of this kind do nothing; two of the extremes are enough then
std::set<std::string> troubles_of(const RecordingFiles& files,
                                  Resumption& resumed,
                                  std::optional<FileOperation::Kind> forgotten = std::nullopt) {
  std::set<std::string> troubles;
  std::set<int64_t> durable;
  for (size_t count = 0; count <= files.operations().size(); ++count) {
    if (count > 0 && files.operations()[count - 1].kind == FileOperation::Kind::kMark) {
      const std::string& said = files.operations()[count - 1].other;
      const int64_t step = std::stoll(said.substr(said.find(' ')));
      if (said.starts_with("durable")) {
        durable.insert(step);
      } else {
        durable.erase(step);
      }
    }
    std::vector<Survival> ways = {Survival::kNothing,
                                  Survival::kAll,
                                  Survival::kNames,
                                  Survival::kBytes,
                                  Survival::kInOrder,
                                  Survival::kArbitrary};
    if (forgotten) ways = {Survival::kNames, Survival::kBytes};
    for (const Survival survival : ways) {
      const TempDir after;
      testing::replay_power_cut(files,
                                count,
                                survival,
                                count,
                                after.path(),
                                forgotten.value_or(FileOperation::Kind::kMark));
      const std::string trouble = resumed.trouble_in(after.path(), durable);
      if (!trouble.empty())
        troubles.insert(str("after ", count, ", ", static_cast<int>(survival), ": ", trouble));
    }
  }
  return troubles;
}

}  // namespace

TEST_CASE("ranks find a whole checkpoint of one of their saves after a power cut at any moment",
          "[actors][cpu][checkpoint]") {
  Resumption resumed;
  for (const bool background : {false, true}) {
    CAPTURE(background);
    const TempDir dir;
    fs::create_directory(dir / "run");
    RecordingFiles files(dir / "run");
    save_several(dir / "run", background, files);
    CHECK(files.operations().size() > 100);
    CHECK(list_checkpoints(dir / "run", "sft").size() == 1);
    std::string told;
    for (const std::string& one : troubles_of(files, resumed)) told += one + "\n";
    CHECK(told.substr(0, 3000) == "");
    // It would not, were any of the syncs not there.
    CHECK(troubles_of(files, resumed, FileOperation::Kind::kSyncFile).size() > 10);
    CHECK(troubles_of(files, resumed, FileOperation::Kind::kSyncFolder).size() > 10);
  }
}

}  // namespace praetor
