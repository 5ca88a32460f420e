#include "core/checkpoint/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>

#include "core/base/error.h"
#include "core/base/file_layer.h"
#include "core/base/fs.h"
#include "core/base/sha256.h"
#include "core/checkpoint/manifest.h"
#include "core/checkpoint/store.h"
#include "core/model/safetensors.h"

namespace praetor {

namespace fs = std::filesystem;

std::string shard_name(int32_t rank, int32_t world_size) {
  char name[64];
  std::snprintf(name, sizeof(name), "shard-%05d-of-%05d.safetensors", rank, world_size);
  return name;
}

CheckpointWriter::CheckpointWriter(const fs::path& run_dir,
                                   std::string_view stage,
                                   int64_t step,
                                   int32_t world_size)
    : run_dir_(run_dir) {
  if (!is_plain_name(stage)) {
    throw InvalidArgument("stage name \"", stage, "\": letters, digits and ._- are wanted");
  }
  if (step < 0 || world_size < 1) {
    throw InvalidArgument("checkpoint of step ", step, " with ", world_size, " shards");
  }
  manifest_.stage = stage;
  manifest_.step = step;
  manifest_.world_size = world_size;
  final_ = checkpoint_folder(run_dir, stage, step);
  folder_ = final_.parent_path() / str(kTemporaryPrefix, final_.filename().string());
  // Durable before anything, `latest` above all, leads there.
  make_durable_folder(final_.parent_path());
  remove_tree(folder_);  // left by a crash
  make_durable_folder(folder_);
}

CheckpointWriter::~CheckpointWriter() {
  if (committed_) return;
  try {
    remove_tree(folder_);
  } catch (const IoError&) {
    // The next start of the run removes it.
  }
}

CheckpointFile CheckpointWriter::write_shard(const fs::path& folder,
                                             int32_t rank,
                                             int32_t world_size,
                                             std::span<const NamedTensor> tensors) {
  const fs::path file = folder / shard_name(rank, world_size);
  Sha256 digest;
  write_safetensors(file, tensors, {}, &digest);
  return {file.filename().string(), static_cast<int64_t>(fs::file_size(file)), digest.hex()};
}

void CheckpointWriter::add_entry(CheckpointFile file) {
  PRAETOR_CHECK(is_plain_name(file.name) && file.name != kManifestName, file.name);
  for (const CheckpointFile& other : manifest_.files) {
    PRAETOR_CHECK(other.name != file.name, file.name, " was added twice");
  }
  manifest_.files.push_back(std::move(file));
}

void CheckpointWriter::add_shard(int32_t rank, std::span<const NamedTensor> tensors) {
  PRAETOR_CHECK(
      rank >= 0 && rank < manifest_.world_size, "rank ", rank, " of ", manifest_.world_size);
  add_entry(write_shard(folder_, rank, manifest_.world_size, tensors));
}

void CheckpointWriter::add_shard(CheckpointFile written_elsewhere) {
  add_entry(std::move(written_elsewhere));
}

void CheckpointWriter::add_blob(const std::string& name, std::string_view bytes) {
  if (!is_plain_name(name) || name == kManifestName) {
    throw InvalidArgument("\"", name, "\" cannot be the name of a checkpoint's file");
  }
  write_file_atomic(folder_ / name, bytes);
  add_entry({name, static_cast<int64_t>(bytes.size()), sha256_hex(bytes)});
}

void CheckpointWriter::add_file(const fs::path& source) {
  add_blob(source.filename().string(), MappedFile(source).text());
}

void CheckpointWriter::set_state(const nlohmann::json& state) {
  add_blob(kStateName, state.dump(2) + "\n");
}

fs::path CheckpointWriter::commit() {
  PRAETOR_CHECK(!committed_, final_.string(), " was committed");
  const auto has = [&](const std::string& name) {
    return std::any_of(manifest_.files.begin(),
                       manifest_.files.end(),
                       [&](const CheckpointFile& f) { return f.name == name; });
  };
  PRAETOR_CHECK(has(kStateName), final_.string(), ": set_state was not called");
  for (int32_t rank = 0; rank < manifest_.world_size; ++rank) {
    const std::string name = shard_name(rank, manifest_.world_size);
    PRAETOR_CHECK(
        has(name) && fs::exists(folder_ / name), final_.string(), ": ", name, " is missing");
  }
  std::sort(manifest_.files.begin(), manifest_.files.end(), [](const auto& a, const auto& b) {
    return a.name < b.name;
  });
  write_file_atomic(folder_ / kManifestName, manifest_to_json(manifest_));
  fsync_directory(folder_);
  // A replay makes a checkpoint again: the two change places, so that the name always leads to a
  // whole one.
  const bool again = fs::exists(final_);
  FileLayer& files = file_layer();
  if ((again ? files.exchange(folder_, final_) : files.rename(folder_, final_)) != 0) {
    throw IoError(
        "cannot rename ", folder_.string(), " to ", final_.string(), ": ", std::strerror(errno));
  }
  committed_ = true;
  fsync_directory(final_.parent_path());
  point_at(run_dir_, kLatest, final_);
  if (again) remove_tree(folder_);
  return final_;
}

namespace {

/// Compares a folder with its manifest.
Findings compare(const fs::path& folder, const CheckpointManifest& manifest, HashShare hashed) {
  Findings findings;
  std::vector<std::string> wanted = {kStateName};
  for (int32_t rank = 0; rank < manifest.world_size; ++rank) {
    wanted.push_back(shard_name(rank, manifest.world_size));
  }
  for (const std::string& name : wanted) {
    const bool listed = std::any_of(manifest.files.begin(),
                                    manifest.files.end(),
                                    [&](const auto& f) { return f.name == name; });
    if (!listed)
      findings.push_back({(folder / kManifestName).string(), str("does not list ", name)});
  }
  int32_t place = 0;
  for (const CheckpointFile& entry : manifest.files) {
    const bool ours = hashed.parts > 0 && place++ % hashed.parts == hashed.part;
    const std::string file = (folder / entry.name).string();
    try {
      std::error_code missing;
      const auto size = static_cast<int64_t>(fs::file_size(file, missing));
      if (missing) {
        findings.push_back({file, "is missing"});
      } else if (size != entry.bytes) {
        findings.push_back({file,
                            str("has ",
                                size,
                                " bytes, the manifest says ",
                                entry.bytes,
                                size < entry.bytes ? ": the file is torn" : "")});
      } else if (ours && describe_file(file).sha256 != entry.sha256) {
        findings.push_back(
            {file, "its SHA-256 is not that of the manifest: the file was edited or is damaged"});
      }
    } catch (const Error& failure) {
      findings.push_back({file, failure.what()});
    }
  }
  for (const auto& item : fs::directory_iterator(folder)) {
    const std::string name = item.path().filename().string();
    const bool listed = std::any_of(manifest.files.begin(),
                                    manifest.files.end(),
                                    [&](const auto& f) { return f.name == name; });
    if (!listed && name != kManifestName) {
      findings.push_back({item.path().string(), "is not in the manifest"});
    }
  }
  return findings;
}

void require_folder(const fs::path& folder) {
  if (!fs::is_directory(folder)) throw MissingInput(folder.string(), ": no such checkpoint folder");
}

CheckpointManifest read_manifest(const fs::path& folder) {
  const fs::path file = folder / kManifestName;
  if (!fs::exists(file)) {
    throw CheckpointError(folder.string(), ": is not a checkpoint: it has no ", kManifestName);
  }
  return manifest_from_json(read_file(file), file);
}

}  // namespace

CheckpointReader::CheckpointReader(const fs::path& folder, HashShare hashed) : folder_(folder) {
  require_folder(folder);
  manifest_ = read_manifest(folder);
  std::vector<std::string> problems;
  for (const Finding& finding : compare(folder, manifest_, hashed)) {
    problems.push_back(finding.where + ": " + finding.problem);
  }
  if (problems.empty()) return;
  std::string all;
  for (const std::string& problem : problems) all += (all.empty() ? "" : "\n") + problem;
  throw CheckpointError(all);
}

nlohmann::json CheckpointReader::state() const {
  auto state = nlohmann::json::parse(read_file(file(kStateName)), nullptr, false);
  if (state.is_discarded()) throw CheckpointError(file(kStateName).string(), ": not JSON");
  return state;
}

std::unique_ptr<TensorSource> CheckpointReader::tensors() const {
  std::vector<SafetensorsFile> shards;
  for (int32_t rank = 0; rank < manifest_.world_size; ++rank)
    shards.emplace_back(file(shard_name(rank, manifest_.world_size)));
  return make_tensor_source(std::move(shards));
}

bool CheckpointReader::has_file(std::string_view name) const {
  return std::any_of(manifest_.files.begin(), manifest_.files.end(), [&](const CheckpointFile& f) {
    return f.name == name;
  });
}

fs::path CheckpointReader::file(std::string_view name) const {
  if (!has_file(name)) throw CheckpointError(folder_.string(), ": has no file ", name);
  return folder_ / name;
}

Findings verify_checkpoint(const fs::path& folder) {
  require_folder(folder);
  try {
    return compare(folder, read_manifest(folder), {});
  } catch (const CheckpointError& failure) {
    return {{(folder / kManifestName).string(), failure.what()}};
  }
}

}  // namespace praetor
