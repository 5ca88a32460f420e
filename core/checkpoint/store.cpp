#include "core/checkpoint/store.h"

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
#include "core/base/file_layer.h"
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

std::string target_of(const fs::path& run_dir, const char* link) {
  std::error_code none;
  const fs::path target = fs::read_symlink(run_dir / link, none);
  return none ? std::string() : (run_dir / target).lexically_normal().string();
}

}  // namespace

fs::path checkpoint_folder(const fs::path& run_dir, std::string_view stage, int64_t step) {
  char name[40];
  std::snprintf(name, sizeof(name), "step-%06lld", static_cast<long long>(step));
  return run_dir / "checkpoints" / fs::path(stage) / name;
}

void point_at(const fs::path& run_dir, const char* link, const fs::path& checkpoint) {
  const fs::path name = run_dir / link;
  const fs::path temporary = run_dir / str(".", link, ".tmp");
  const fs::path target = checkpoint.lexically_relative(run_dir);
  remove_tree(temporary);
  FileLayer& files = file_layer();
  if (files.link(target, temporary) != 0 || files.rename(temporary, name) != 0) {
    throw IoError(
        "cannot point ", name.string(), " at ", target.string(), ": ", std::strerror(errno));
  }
  fsync_directory(run_dir);
}

void point_best_at(const fs::path& run_dir, const fs::path& checkpoint) {
  if (target_of(run_dir, kBest) != checkpoint.lexically_normal().string())
    point_at(run_dir, kBest, checkpoint);
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

std::vector<fs::path> best_checkpoints(const fs::path& run_dir,
                                       std::string_view stage,
                                       const BestBy& by) {
  if (by.metric.empty()) return {};
  std::vector<std::pair<double, fs::path>> found;
  for (const fs::path& folder : list_checkpoints(run_dir, stage)) {
    const fs::path file = folder / kManifestName;
    const auto metrics = manifest_from_json(read_file(file), file).metrics;
    const auto value = metrics.find(by.metric);
    if (value != metrics.end())
      found.emplace_back(by.highest ? -value->second : value->second, folder);
  }
  std::ranges::stable_sort(found, {}, &std::pair<double, fs::path>::first);
  std::vector<fs::path> out;
  for (auto& [value, folder] : found) {
    if (static_cast<int64_t>(out.size()) < by.count) out.push_back(std::move(folder));
  }
  return out;
}

std::vector<fs::path> apply_retention(const fs::path& run_dir,
                                      std::string_view stage,
                                      const Retention& retention,
                                      const std::function<void(const fs::path&)>& before_removal) {
  if (retention.keep_last <= 0) return {};
  const std::vector<fs::path> all = list_checkpoints(run_dir, stage);
  std::set<fs::path> keep;
  for (const fs::path& folder : all) {
    const std::string name = folder.lexically_normal().string();
    if (name == target_of(run_dir, kLatest) || name == target_of(run_dir, kBest))
      keep.insert(folder);
    if (retention.keep_every > 0 && *step_of(folder) % retention.keep_every == 0)
      keep.insert(folder);
  }
  const auto last = static_cast<size_t>(retention.keep_last);
  for (size_t i = all.size() > last ? all.size() - last : 0; i < all.size(); ++i)
    keep.insert(all[i]);
  keep.merge([&] {
    const auto best = best_checkpoints(run_dir, stage, retention.best);
    return std::set<fs::path>(best.begin(), best.end());
  }());
  std::vector<fs::path> removed;
  for (const fs::path& folder : all) {
    if (keep.contains(folder)) continue;
    if (before_removal) before_removal(folder);
    const fs::path trash = folder.parent_path() / str(kTrashPrefix, folder.filename().string());
    remove_tree(trash);
    if (file_layer().rename(folder, trash) != 0)
      throw IoError("cannot remove ", folder.string(), ": ", std::strerror(errno));
    fsync_directory(folder.parent_path());
    remove_tree(trash);
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
    for (const fs::path& folder : left) remove_tree(folder);
  }
}

}  // namespace praetor
