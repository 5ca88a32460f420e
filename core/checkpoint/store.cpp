#include "core/checkpoint/store.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <optional>
#include <set>
#include <string>
#include <system_error>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/checkpoint/checkpoint.h"
#include "core/checkpoint/manifest.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kStepPrefix = "step-";

std::optional<int64_t> step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(kStepPrefix)) return std::nullopt;
  int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kStepPrefix.size(), end, step);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return step;
}

std::string latest_target(const fs::path& run_dir) {
  std::error_code none;
  const fs::path target = fs::read_symlink(run_dir / "latest", none);
  return none ? std::string() : (run_dir / target).lexically_normal().string();
}

}  // namespace

fs::path checkpoint_folder(const fs::path& run_dir, std::string_view stage, int64_t step) {
  char name[40];
  std::snprintf(name, sizeof(name), "step-%06lld", static_cast<long long>(step));
  return run_dir / "checkpoints" / fs::path(stage) / name;
}

void point_latest_at(const fs::path& run_dir, const fs::path& checkpoint) {
  const fs::path temporary = run_dir / ".latest.tmp";
  const fs::path target = fs::relative(checkpoint, run_dir);
  ::unlink(temporary.c_str());
  if (::symlink(target.c_str(), temporary.c_str()) != 0 ||
      ::rename(temporary.c_str(), (run_dir / "latest").c_str()) != 0) {
    throw IoError("cannot point ",
                  (run_dir / "latest").string(),
                  " at ",
                  target.string(),
                  ": ",
                  std::strerror(errno));
  }
  fsync_directory(run_dir);
}

std::vector<fs::path> list_checkpoints(const fs::path& run_dir, std::string_view stage) {
  const fs::path folder = run_dir / "checkpoints" / fs::path(stage);
  std::vector<std::pair<int64_t, fs::path>> found;
  if (fs::is_directory(folder)) {
    for (const auto& item : fs::directory_iterator(folder)) {
      if (const auto step = step_of(item.path()); step && item.is_directory()) {
        found.emplace_back(*step, item.path());
      }
    }
  }
  std::sort(found.begin(), found.end());
  std::vector<fs::path> out;
  for (auto& [step, path] : found) out.push_back(std::move(path));
  return out;
}

std::optional<fs::path> resolve_checkpoint(const fs::path& run_dir, std::string_view resume) {
  if (resume == "never") return std::nullopt;
  if (resume == "auto" || resume == "latest") {
    const fs::path latest = run_dir / "latest";
    if (!fs::is_symlink(fs::symlink_status(latest))) {
      if (resume == "auto") return std::nullopt;
      throw MissingInput(run_dir.string(), ": has no checkpoint yet (no link \"latest\")");
    }
    if (!fs::is_directory(latest)) {
      throw CheckpointError(latest.string(),
                            ": leads to ",
                            fs::read_symlink(latest).string(),
                            ", which is not there; name another checkpoint with --resume PATH");
    }
    return (run_dir / fs::read_symlink(latest)).lexically_normal();
  }
  for (const fs::path& candidate : {fs::path(resume), run_dir / fs::path(resume)}) {
    if (fs::is_directory(candidate)) return candidate;
  }
  throw MissingInput(resume,
                     ": no such checkpoint folder, nor one in ",
                     run_dir.string(),
                     "; \"auto\", \"latest\", \"never\" or a path are possible");
}

std::vector<fs::path> apply_retention(const fs::path& run_dir,
                                      std::string_view stage,
                                      const Retention& retention,
                                      const std::function<void(const fs::path&)>& before_removal) {
  if (retention.keep_last <= 0) return {};
  const std::vector<fs::path> all = list_checkpoints(run_dir, stage);
  std::set<fs::path> keep;
  for (const fs::path& folder : all) {
    if (folder.lexically_normal().string() == latest_target(run_dir)) keep.insert(folder);
    if (retention.keep_every > 0 && *step_of(folder) % retention.keep_every == 0)
      keep.insert(folder);
  }
  const auto last = static_cast<size_t>(retention.keep_last);
  for (size_t i = all.size() > last ? all.size() - last : 0; i < all.size(); ++i)
    keep.insert(all[i]);
  if (!retention.best_metric.empty()) {
    std::optional<double> best;
    fs::path best_folder;
    for (const fs::path& folder : all) {
      const fs::path file = folder / kManifestName;
      const auto metrics = manifest_from_json(read_file(file), file).metrics;
      const auto value = metrics.find(retention.best_metric);
      if (value == metrics.end()) continue;
      const bool better =
          !best || (retention.best_is_highest ? value->second > *best : value->second < *best);
      if (!better) continue;
      best = value->second;
      best_folder = folder;
    }
    if (best) keep.insert(best_folder);
  }
  std::vector<fs::path> removed;
  for (const fs::path& folder : all) {
    if (keep.contains(folder)) continue;
    if (before_removal) before_removal(folder);
    const fs::path trash = folder.parent_path() / str(kTrashPrefix, folder.filename().string());
    std::error_code failure;
    fs::remove_all(trash, failure);
    fs::rename(folder, trash, failure);
    if (failure) throw IoError("cannot remove ", folder.string(), ": ", failure.message());
    fsync_directory(folder.parent_path());
    fs::remove_all(trash, failure);
    if (failure) throw IoError("cannot remove ", trash.string(), ": ", failure.message());
    removed.push_back(folder);
  }
  return removed;
}

void clean_checkpoints(const fs::path& run_dir) {
  const fs::path root = run_dir / "checkpoints";
  if (!fs::is_directory(root)) return;
  for (const auto& stage : fs::directory_iterator(root)) {
    if (!stage.is_directory()) continue;
    std::vector<fs::path> left;
    for (const auto& item : fs::directory_iterator(stage.path())) {
      const std::string name = item.path().filename().string();
      if (name.starts_with(kTemporaryPrefix) || name.starts_with(kTrashPrefix))
        left.push_back(item.path());
    }
    for (const fs::path& folder : left) {
      std::error_code failure;
      fs::remove_all(folder, failure);
      if (failure) throw IoError("cannot remove ", folder.string(), ": ", failure.message());
    }
  }
}

}  // namespace praetor
