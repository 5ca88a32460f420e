#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace praetor {

/// The folder of one run: job.yaml (as given), resolved.yaml, ledger.db, rollouts/, metrics.jsonl,
/// tensorboard/, samples/, logs/, stages/NAME (results as Hugging Face folders),
/// reference/NAME.safetensors (of dpo with reference: precomputed),
/// checkpoints/STAGE/step-000100, latest. Locked against a second process for the life of the
/// object.
class RunDirectory {
 public:
  /// A new folder OUTPUT/NAME, or OUTPUT/NAME-2, -3, ... when that exists. With its `files` (text
  /// by name) it is whole when it has that name, whatever happens meanwhile. @throws IoError
  static RunDirectory create(const std::filesystem::path& output,
                             const std::string& name,
                             const std::map<std::string, std::string>& files = {});
  /// The folder that create would make now.
  static std::filesystem::path next(const std::filesystem::path& output, const std::string& name);
  /// An existing run. @throws MissingInput when there is no ledger in it; TemporaryError when
  /// another process has it.
  static RunDirectory open(const std::filesystem::path& folder);
  /// The newest of OUTPUT/NAME, OUTPUT/NAME-2, ...
  static std::optional<std::filesystem::path> newest(const std::filesystem::path& output,
                                                     const std::string& name);

  RunDirectory(RunDirectory&& other) noexcept;
  RunDirectory& operator=(RunDirectory&&) = delete;
  ~RunDirectory();

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }
  std::filesystem::path stage_result(const std::string& stage) const {
    return path_ / "stages" / stage;
  }
  std::filesystem::path checkpoints(const std::string& stage) const {
    return path_ / "checkpoints" / stage;
  }

 private:
  explicit RunDirectory(std::filesystem::path path);
  std::filesystem::path path_;
  int lock_ = -1;
};

}  // namespace praetor
