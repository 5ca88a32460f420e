#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/finding.h"
#include "core/model/named_tensor.h"
#include "core/model/tensor_source.h"

namespace praetor {

/// A checkpoint is a folder RUN_DIR/checkpoints/STAGE/step-000100 with
///
///   manifest.json                       what is here: name, size and SHA-256 of every file;
///   SHA-256 of itself shard-00000-of-00001.safetensors    tensors, one file a rank state.json
///   counters, random state, ledger position: the trainer's own JSON config.json, tokenizer.json,
///   ...    further files, as they came
///
/// and RUN_DIR/latest, a symbolic link to the newest; RUN_DIR/best to the best, where a metric says
/// which that is. It is made in a folder of another name and renamed when all of it is durable: it
/// is whole or absent.
struct CheckpointFile {
  std::string name;
  int64_t bytes = 0;
  std::string sha256;
};

struct CheckpointManifest {
  std::string stage;
  int64_t step = 0;
  int32_t world_size = 1;                 ///< shards
  std::map<std::string, double> metrics;  ///< what retention may rank by
  std::vector<CheckpointFile> files;      ///< by name, manifest.json not among them
};

/// File name of a shard: shard-00000-of-00001.safetensors.
std::string shard_name(int32_t rank, int32_t world_size);

/// Makes one checkpoint. Ranks on other processes write their shard with `write_shard` into
/// `folder()` and send the returned entry to the one that commits. Not committed: the destructor
/// removes the temporary folder.
class CheckpointWriter {
 public:
  /// A checkpoint of the same step is replaced, as a replay does. @throws InvalidArgument; IoError
  CheckpointWriter(const std::filesystem::path& run_dir,
                   std::string_view stage,
                   int64_t step,
                   int32_t world_size = 1);
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  const std::filesystem::path& folder() const { return folder_; }       ///< temporary
  const std::filesystem::path& final_folder() const { return final_; }  ///< once committed
  /// Writes and syncs the shard of `rank` in `folder`, and gives its entry of the manifest.
  static CheckpointFile write_shard(const std::filesystem::path& folder,
                                    int32_t rank,
                                    int32_t world_size,
                                    std::span<const NamedTensor> tensors);
  void add_shard(int32_t rank, std::span<const NamedTensor> tensors);
  void add_shard(CheckpointFile written_elsewhere);
  void add_blob(const std::string& name, std::string_view bytes);  ///< e.g. "config.json"
  void add_file(const std::filesystem::path& source);              ///< under its own file name
  void set_state(const nlohmann::json& state);                     ///< state.json
  void set_metrics(std::map<std::string, double> metrics) {
    manifest_.metrics = std::move(metrics);
  }

  /// Syncs, writes the manifest, renames, points RUN_DIR/latest at it. Returns the final folder.
  /// @throws InternalError when a shard or the state is missing; IoError
  std::filesystem::path commit();

 private:
  void add_entry(CheckpointFile file);

  std::filesystem::path run_dir_;
  std::filesystem::path folder_;
  std::filesystem::path final_;
  CheckpointManifest manifest_;
  bool committed_ = false;
};

/// Whose bytes are hashed: those of every `parts`-th file, from the `part`-th on. Ranks that open
/// one checkpoint together take a part each.
struct HashShare {
  int32_t part = 0;
  int32_t parts = 1;  ///< 0: no file's; for what was checked before
};

/// A checkpoint that was checked whole when it was opened.
class CheckpointReader {
 public:
  /// @throws MissingInput when there is no such folder; CheckpointError naming the file that is
  /// missing, torn, edited or foreign, every one of them
  explicit CheckpointReader(const std::filesystem::path& folder, HashShare hashed = {0, 1});

  const std::filesystem::path& folder() const { return folder_; }
  const CheckpointManifest& manifest() const { return manifest_; }
  nlohmann::json state() const;
  /// Those of all shards, which are read from the files when they are wanted.
  std::unique_ptr<TensorSource> tensors() const;
  bool has_file(std::string_view name) const;
  std::filesystem::path file(
      std::string_view name) const;  ///< @throws CheckpointError when it is not in the manifest

 private:
  std::filesystem::path folder_;
  CheckpointManifest manifest_;
};

/// What is wrong with a checkpoint folder, file by file; empty when it is whole. @throws
/// MissingInput for no folder
Findings verify_checkpoint(const std::filesystem::path& folder);

/// Where to go on from. "auto": RUN_DIR/latest, nothing when there is no checkpoint; "never":
/// nothing; "latest": the same, but its absence is an error; else the path of a checkpoint folder
/// (as given, or below RUN_DIR).
/// @throws MissingInput, CheckpointError when `latest` leads nowhere
std::optional<std::filesystem::path> resolve_checkpoint(const std::filesystem::path& run_dir,
                                                        std::string_view resume);

/// Folders of the checkpoints of a stage, by ascending step.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& run_dir,
                                                    std::string_view stage);

/// What tells the better of two checkpoints.
struct BestBy {
  std::string metric;  ///< of their manifests; empty: nothing does
  bool highest = true;
  int64_t count = 1;  ///< how many of them count as the best
};
/// The best checkpoints of a stage, the best one first (of equals the earlier); those without the
/// metric do not count. @throws CheckpointError for a manifest that cannot be read
std::vector<std::filesystem::path> best_checkpoints(const std::filesystem::path& run_dir,
                                                    std::string_view stage,
                                                    const BestBy& by);
/// Points RUN_DIR/best at a checkpoint. @throws IoError
void point_best_at(const std::filesystem::path& run_dir, const std::filesystem::path& checkpoint);

/// Which checkpoints of a stage stay. What `latest` or `best` points at always stays.
struct Retention {
  int64_t keep_last = 0;   ///< newest n; 0 keeps all
  int64_t keep_every = 0;  ///< also those whose step is a multiple; 0: none
  BestBy best = {};        ///< also these
};
/// Removes the others and returns their folders. `before_removal` is told of each first, so that
/// nobody counts on it any more when a crash cuts the removal short. No half checkpoint is left
/// under its name.
std::vector<std::filesystem::path> apply_retention(
    const std::filesystem::path& run_dir,
    std::string_view stage,
    const Retention& retention,
    const std::function<void(const std::filesystem::path&)>& before_removal = nullptr);
/// Removes temporary folders that a crash left behind. Only the owner of the run may call it.
void clean_checkpoints(const std::filesystem::path& run_dir);

}  // namespace praetor
