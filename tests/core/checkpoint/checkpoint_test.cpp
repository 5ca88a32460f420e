#include "core/checkpoint/checkpoint.h"

#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/sha256.h"
#include "core/checkpoint/manifest.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

std::vector<NamedTensor> tensors(double value) {
  return {{"weight", at::full({3, 2}, value, at::kFloat)},
          {"optimizer.exp_avg.weight", at::full({3, 2}, value / 2, at::kBFloat16)},
          {"step", at::full({1}, 7, at::kLong)}};
}

fs::path save(const fs::path& run,
              int64_t step,
              double value = 1.5,
              std::map<std::string, double> metrics = {}) {
  CheckpointWriter writer(run, "ppo", step);
  writer.add_shard(0, tensors(value));
  writer.add_blob("config.json", "{\"hidden_size\": 2}");
  writer.set_state({{"step", step}, {"ledger", {{"stage", 0}, {"next_ordinal", 4}}}});
  writer.set_metrics(std::move(metrics));
  return writer.commit();
}

/// The tensors of one name, in the order of the shards.
std::vector<at::Tensor> loaded(const CheckpointReader& reader, const std::string& name) {
  std::vector<at::Tensor> out;
  const auto source = reader.tensors();
  for (size_t i = 0; i < source->forms().size(); ++i) {
    const TensorSource::Form& form = source->forms()[i];
    if (form.name != name) continue;
    out.push_back(at::empty(form.shape, form.dtype));
    source->read(i, 0, form.numel(), out.back());
  }
  return out;
}

std::string findings_of(const fs::path& folder) {
  std::string out;
  for (const Finding& finding : verify_checkpoint(folder))
    out += finding.where + ": " + finding.problem + "\n";
  return out;
}

}  // namespace

TEST_CASE("a checkpoint comes back as it was", "[core][cpu][checkpoint]") {
  const testing::TempDir dir;
  const fs::path folder = save(dir.path(), 100);
  CHECK(folder == dir / "checkpoints/ppo/step-000100");
  const CheckpointReader reader(folder);
  CHECK(reader.manifest().stage == "ppo");
  CHECK(reader.manifest().step == 100);
  CHECK(reader.manifest().world_size == 1);
  CHECK(reader.state()["ledger"]["next_ordinal"] == 4);
  CHECK(read_file(reader.file("config.json")) == "{\"hidden_size\": 2}");
  CHECK(reader.has_file("shard-00000-of-00001.safetensors"));
  CHECK_FALSE(reader.has_file("tokenizer.json"));
  CHECK_THROWS_AS(reader.file("tokenizer.json"), CheckpointError);
  CHECK(reader.tensors()->forms().size() == tensors(1.5).size());
  for (const NamedTensor& one : tensors(1.5)) {
    INFO(one.name);
    const auto back = loaded(reader, one.name);
    REQUIRE(back.size() == 1);
    CHECK(back[0].scalar_type() == one.tensor.scalar_type());
    CHECK(at::equal(back[0], one.tensor));
  }
  CHECK(findings_of(folder).empty());
  CHECK(fs::read_symlink(dir / "latest") == "checkpoints/ppo/step-000100");
  CHECK(std::distance(fs::directory_iterator(dir / "checkpoints/ppo"), {}) == 1);
}

TEST_CASE("ranks write their shards apart and one commits", "[core][cpu][checkpoint]") {
  const testing::TempDir dir;
  CheckpointWriter writer(dir.path(), "ppo", 1, 2);
  writer.set_state(nlohmann::json::object());
  writer.add_shard(0, tensors(1.0));
  CHECK_THROWS_WITH(writer.commit(), Contains("shard-00001-of-00002.safetensors is missing"));
  writer.add_shard(CheckpointWriter::write_shard(writer.folder(), 1, 2, tensors(2.0)));
  const CheckpointReader reader(writer.commit());
  const auto weights = loaded(reader, "weight");
  REQUIRE(weights.size() == 2);
  CHECK(weights[0].max().item<float>() == 1.0f);
  CHECK(weights[1].min().item<float>() == 2.0f);
}

TEST_CASE("what was not committed leaves nothing", "[core][cpu][checkpoint]") {
  const testing::TempDir dir;
  {
    CheckpointWriter writer(dir.path(), "ppo", 1);
    writer.add_shard(0, tensors(1.0));
    CHECK_THROWS_AS(writer.commit(), InternalError);  // no state
    CHECK_THROWS_AS(writer.add_shard(0, tensors(1.0)), InternalError);
    CHECK_THROWS_AS(writer.add_blob("../evil", "x"), InvalidArgument);
    CHECK_THROWS_AS(writer.add_blob("manifest.json", "x"), InvalidArgument);
    CHECK_THROWS_AS(writer.add_file(dir / "none.json"), MissingInput);
    CHECK(list_checkpoints(dir.path(), "ppo").empty());
  }
  CHECK(fs::is_empty(dir / "checkpoints/ppo"));
  CHECK_FALSE(fs::exists(fs::symlink_status(dir / "latest")));
  CHECK_THROWS_AS(CheckpointWriter(dir.path(), "../ppo", 1), InvalidArgument);
  CHECK_THROWS_AS(CheckpointWriter(dir.path(), "ppo", -1), InvalidArgument);
  // A crash leaves the temporary folder; it is no checkpoint, and the next writer or the clean-up
  // removes it.
  fs::create_directories(dir / "checkpoints/ppo/.making-step-000001");
  write_file_atomic(dir / "checkpoints/ppo/.making-step-000001/shard-00000-of-00001.safetensors",
                    "half");
  CHECK(list_checkpoints(dir.path(), "ppo").empty());
  CHECK_FALSE(resolve_checkpoint(dir.path(), "auto"));
  fs::create_directories(dir / "checkpoints/ppo/.removing-step-000000");
  CHECK(findings_of(save(dir.path(), 1)).empty());
  clean_checkpoints(dir.path());
  CHECK(std::distance(fs::directory_iterator(dir / "checkpoints/ppo"), {}) == 1);
}

TEST_CASE("a replayed step takes the place of its checkpoint", "[core][cpu][checkpoint]") {
  const testing::TempDir dir;
  save(dir.path(), 1, 1.0);
  save(dir.path(), 2, 2.0);
  const fs::path again = save(dir.path(), 1, 3.0);
  const auto weights = loaded(CheckpointReader(again), "weight");
  REQUIRE(weights.size() == 1);
  CHECK(weights[0].max().item<float>() == 3.0f);
  CHECK(list_checkpoints(dir.path(), "ppo").size() == 2);
  CHECK(std::distance(fs::directory_iterator(dir / "checkpoints/ppo"), {}) == 2);
  CHECK(*resolve_checkpoint(dir.path(), "latest") == again);
}

TEST_CASE("a torn, edited or foreign file of a checkpoint is named", "[core][cpu][checkpoint]") {
  const testing::TempDir dir;
  const auto broken = [&](const auto& damage) {
    const fs::path folder = save(dir.path(), 5);
    damage(folder);
    std::string told;
    try {
      CheckpointReader reader(folder);
    } catch (const CheckpointError& failure) {
      told = failure.what();
    }
    REQUIRE_FALSE(told.empty());
    CHECK_FALSE(findings_of(folder).empty());
    return told;
  };
  const std::string shard = "shard-00000-of-00001.safetensors";
  CHECK_THAT(
      broken([&](const fs::path& f) { fs::resize_file(f / shard, fs::file_size(f / shard) - 1); }),
      Contains(shard + ": has") && Contains("the file is torn"));
  CHECK_THAT(broken([&](const fs::path& f) {
               std::string bytes = read_file(f / shard);
               bytes.back() = static_cast<char>(bytes.back() ^ 1);
               write_file_atomic(f / shard, bytes);
             }),
             Contains(shard + ": its SHA-256 is not that of the manifest"));
  CHECK_THAT(broken([&](const fs::path& f) { fs::remove(f / shard); }),
             Contains(shard + ": is missing"));
  CHECK_THAT(broken([&](const fs::path& f) { write_file_atomic(f / "state.json", "{}"); }),
             Contains("state.json: has 2 bytes, the manifest says"));
  CHECK_THAT(broken([&](const fs::path& f) { write_file_atomic(f / "notes.txt", "hi"); }),
             Contains("notes.txt: is not in the manifest"));
  CHECK_THAT(broken([&](const fs::path& f) { fs::remove(f / "manifest.json"); }),
             Contains("it has no manifest.json"));
  CHECK_THAT(broken([&](const fs::path& f) {
               std::string text = read_file(f / "manifest.json");
               text.replace(text.find("\"step\": 5"), 9, "\"step\": 6");
               write_file_atomic(f / "manifest.json", text);
             }),
             Contains("manifest.json: was edited: its SHA-256 does not match"));
  CHECK_THAT(broken([&](const fs::path& f) {
               const std::string text = read_file(f / "manifest.json");
               write_file_atomic(f / "manifest.json", text.substr(0, text.size() / 2));
             }),
             Contains("manifest.json: not JSON"));
  CHECK_THAT(
      broken([&](const fs::path& f) { write_file_atomic(f / "manifest.json", "{\"a\": 1}"); }),
      Contains("not the manifest of a Praetor checkpoint"));
  CHECK_THAT(broken([&](const fs::path& f) {
               write_file_atomic(f / "manifest.json",
                                 R"({"format": "praetor-checkpoint", "version": 2})");
             }),
             Contains("version 2, this program reads version 1"));
  CHECK_THAT(broken([&](const fs::path& f) {
               write_file_atomic(f / "manifest.json",
                                 R"({"format": "praetor-checkpoint", "version": 1})");
             }),
             Contains("not a whole manifest"));
  // All of them at once.
  CHECK_THAT(broken([&](const fs::path& f) {
               fs::remove(f / shard);
               write_file_atomic(f / "config.json", "{}");
             }),
             Contains(shard) && Contains("config.json"));
  CHECK_THROWS_AS(CheckpointReader(dir / "none"), MissingInput);
}

TEST_CASE("a manifest that is whole but lists too little, or names other folders, is refused",
          "[core][cpu][checkpoint]") {
  CheckpointManifest manifest;
  manifest.stage = "ppo";
  const testing::TempDir dir;
  write_file_atomic(dir / "manifest.json", manifest_to_json(manifest));
  CHECK_THAT(findings_of(dir.path()),
             Contains("does not list state.json") && Contains("does not list shard-00000"));
  manifest.files.push_back({"../../etc/passwd", 1, sha256_hex("x")});
  CHECK_THROWS_WITH(manifest_from_json(manifest_to_json(manifest), "m"),
                    Contains("names a file outside its folder"));
  manifest.files.clear();
  manifest.world_size = 0;
  CHECK_THROWS_AS(manifest_from_json(manifest_to_json(manifest), "m"), CheckpointError);
  manifest.world_size = 3;
  manifest.metrics = {{"reward/mean", 0.1}, {"bad", std::nan("")}};
  const auto back = manifest_from_json(manifest_to_json(manifest), "m");
  CHECK(back.world_size == 3);
  CHECK(back.metrics == std::map<std::string, double>{{"reward/mean", 0.1}});
}

TEST_CASE("where to go on from", "[core][cpu][checkpoint]") {
  const testing::TempDir dir;
  CHECK_FALSE(resolve_checkpoint(dir.path(), "auto"));
  CHECK_THROWS_WITH(resolve_checkpoint(dir.path(), "latest"), Contains("has no checkpoint yet"));
  save(dir.path(), 1);
  const fs::path second = save(dir.path(), 2);
  CHECK_FALSE(resolve_checkpoint(dir.path(), "never"));
  CHECK(*resolve_checkpoint(dir.path(), "auto") == second);
  CHECK(*resolve_checkpoint(dir.path(), "latest") == second);
  CHECK(*resolve_checkpoint(dir.path(), "checkpoints/ppo/step-000001") ==
        dir / "checkpoints/ppo/step-000001");
  CHECK(*resolve_checkpoint("/", second.string()) == second);
  CHECK_THROWS_WITH(resolve_checkpoint(dir.path(), "step-000009"),
                    Contains("no such checkpoint folder"));
  fs::remove_all(second);
  CHECK_THROWS_WITH(resolve_checkpoint(dir.path(), "auto"), Contains("which is not there"));
}

TEST_CASE("retention keeps the newest, the regular, the best and what latest points at",
          "[core][cpu][checkpoint]") {
  const testing::TempDir dir;
  const auto kept = [&] {
    std::vector<std::string> names;
    for (const fs::path& folder : list_checkpoints(dir.path(), "ppo"))
      names.push_back(folder.filename());
    return names;
  };
  const double rewards[] = {0, 0.1, 0.9, 0.2, 0.3, 0.25, 0.1};
  for (int64_t step = 1; step <= 6; ++step)
    save(dir.path(), step, 1.0, {{"reward/mean", rewards[step]}});
  CHECK(apply_retention(dir.path(), "ppo", {}).empty());
  CHECK(kept().size() == 6);
  Retention retention;
  retention.keep_last = 2;
  retention.keep_every = 4;
  retention.best.metric = "reward/mean";
  std::vector<fs::path> told;
  const auto removed = apply_retention(dir.path(), "ppo", retention, [&](const fs::path& folder) {
    CHECK(fs::exists(folder / "manifest.json"));
    told.push_back(folder);
  });
  CHECK((told == removed));
  CHECK(removed.size() == 2);
  CHECK(kept() ==
        std::vector<std::string>{"step-000002", "step-000004", "step-000005", "step-000006"});
  retention.best.highest = false;
  retention.keep_every = 0;
  retention.keep_last = 1;
  CHECK(apply_retention(dir.path(), "ppo", retention).size() == 3);
  CHECK(kept() == std::vector<std::string>{"step-000006"});
  save(dir.path(), 7);
  save(dir.path(), 6);  // a replay: latest is not the newest by number
  CHECK(apply_retention(dir.path(), "ppo", retention).empty());
  CHECK(std::distance(fs::directory_iterator(dir / "checkpoints/ppo"), {}) == 2);
  CHECK(apply_retention(dir.path(), "sft", retention).empty());
}

TEST_CASE("the best checkpoints, several of them, stay, and a link leads to the best of all",
          "[core][cpu][checkpoint]") {
  const testing::TempDir dir;
  const double losses[] = {0.5, 0.2, 0.4, 0.2, 0.9};
  for (int64_t step = 1; step <= 5; ++step)
    save(dir.path(), step, 1.0, {{"eval/loss", losses[step - 1]}});
  save(dir.path(), 6);  // not evaluated
  const BestBy by{.metric = "eval/loss", .highest = false, .count = 3};
  const auto best = best_checkpoints(dir.path(), "ppo", by);
  REQUIRE(best.size() == 3);
  CHECK(best[0].filename() == "step-000002");  // of equals the earlier
  CHECK(best[1].filename() == "step-000004");
  CHECK(best[2].filename() == "step-000003");
  CHECK(best_checkpoints(dir.path(), "ppo", {}).empty());
  CHECK(best_checkpoints(dir.path(), "ppo", {.metric = "eval/score"}).empty());

  point_best_at(dir.path(), best[0]);
  CHECK(fs::read_symlink(dir / "best") == "checkpoints/ppo/step-000002");
  apply_retention(dir.path(), "ppo", {.keep_last = 1, .best = by});
  CHECK(list_checkpoints(dir.path(), "ppo").size() == 4);
  // What the link leads to stays, whatever the metric says by now.
  apply_retention(dir.path(), "ppo", {.keep_last = 1});
  const auto left = list_checkpoints(dir.path(), "ppo");
  REQUIRE(left.size() == 2);
  CHECK(left[0].filename() == "step-000002");
  CHECK(findings_of(dir / "best").empty());
}

}  // namespace praetor
