#include "core/model/folder_writer.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "core/base/file_layer.h"
#include "core/base/fs.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr const char* kIndex = "model.safetensors.index.json";

std::string generation_json(const ModelConfig& config) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  if (config.bos_token) out["bos_token_id"] = *config.bos_token;
  if (config.eos_tokens.size() == 1) out["eos_token_id"] = config.eos_tokens[0];
  if (config.eos_tokens.size() > 1) out["eos_token_id"] = config.eos_tokens;
  if (config.pad_token) out["pad_token_id"] = *config.pad_token;
  return out.dump(2) + "\n";
}

/// config.json names the dtype that the weights are stored in.
std::string with_dtype(const std::string& config_json, at::ScalarType dtype) {
  auto json = nlohmann::ordered_json::parse(config_json);
  const std::string name = dtype == at::kBFloat16 ? "bfloat16"
                           : dtype == at::kHalf   ? "float16"
                           : dtype == at::kDouble ? "float64"
                                                  : "float32";
  json["dtype"] = name;
  json["torch_dtype"] = name;
  return json.dump(2) + "\n";
}

std::string shard_name(size_t index, size_t count) {
  char name[64];
  std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

}  // namespace

FolderWriter::FolderWriter(const ModelConfig& config,
                           const std::vector<NamedTensor>& forms,
                           const fs::path& folder,
                           int64_t max_shard_bytes)
    : folder_(folder) {
  PRAETOR_CHECK(!forms.empty(), "a model has tensors");
  if (max_shard_bytes < 1)
    throw InvalidArgument("save: max_shard_bytes ", max_shard_bytes, " is below 1");
  const char* kind = config.num_labels > 0 ? "sequence_classification" : "causal_lm";
  config_json_ = with_dtype(config.to_json(kind), forms.back().tensor.scalar_type());
  generation_json_ = generation_json(config);
  make_durable_folder(folder);

  std::map<std::string, const NamedTensor*> by_name;
  for (const NamedTensor& form : forms) by_name.emplace(form.name, &form);
  for (StoredTensor& layout : stored_layout(config)) add_stored(std::move(layout), by_name);
  // Names that the model does not know ("score.weight") stay as they are.
  for (const NamedTensor& form : forms) {
    if (!places_.contains(form.name)) {
      const ParameterSpec part{form.name, form.tensor.sizes().vec(), ParameterSpec::Init::kNormal};
      add_stored({form.name, {part}}, by_name);
    }
  }
  std::vector<NamedTensor> stored_forms;
  for (const Stored& one : stored_) {
    const at::ScalarType dtype = by_name.at(one.layout.parts.front().name)->tensor.scalar_type();
    const auto options = at::TensorOptions().dtype(dtype).device(at::kMeta);
    stored_forms.push_back({one.layout.name, at::empty(one.layout.shape(), options)});
  }
  cut_into_shards(stored_forms, max_shard_bytes);
}

void FolderWriter::add_stored(StoredTensor layout,
                              const std::map<std::string, const NamedTensor*>& forms) {
  const auto there = static_cast<size_t>(std::ranges::count_if(
      layout.parts, [&](const ParameterSpec& part) { return forms.contains(part.name); }));
  if (there == 0) return;
  if (there != layout.parts.size()) {
    throw InvalidArgument(
        "save: of ", layout.name, " ", there, " parts of ", layout.parts.size(), " are there");
  }
  for (size_t part = 0; part < layout.parts.size(); ++part)
    places_[layout.parts[part].name] = {stored_.size(), part};
  Stored one{.layout = std::move(layout)};
  one.missing = one.layout.parts.size();
  one.parts.resize(one.missing);
  stored_.push_back(std::move(one));
}

void FolderWriter::cut_into_shards(const std::vector<NamedTensor>& forms, int64_t max_shard_bytes) {
  std::vector<std::vector<NamedTensor>> shards(1);
  int64_t filled = 0, total = 0;
  for (size_t i = 0; i < forms.size(); ++i) {
    const auto bytes = static_cast<int64_t>(forms[i].tensor.nbytes());
    if (!shards.back().empty() && filled + bytes > max_shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    stored_[i].shard = shards.size() - 1;
    shards.back().push_back(forms[i]);
    filled += bytes;
    total += bytes;
  }
  nlohmann::json index = {{"metadata", {{"total_size", total}}},
                          {"weight_map", nlohmann::json::object()}};
  for (size_t i = 0; i < shards.size(); ++i) {
    files_.push_back(shards.size() == 1 ? "model.safetensors" : shard_name(i, shards.size()));
    shards_.emplace_back(
        folder_ / files_.back(), shards[i], std::map<std::string, std::string>{{"format", "pt"}});
    for (const NamedTensor& form : shards[i]) index["weight_map"][form.name] = files_.back();
  }
  if (shards.size() > 1) index_json_ = index.dump(2) + "\n";
}

void FolderWriter::put(const NamedTensor& named) {
  const auto place = places_.find(named.name);
  PRAETOR_CHECK(place != places_.end(), folder_.string(), ": ", named.name, " was not announced");
  Stored& stored = stored_[place->second.stored];
  at::Tensor& part = stored.parts[place->second.part];
  PRAETOR_CHECK(
      !part.defined() && stored.missing > 0, folder_.string(), ": ", named.name, " twice");
  // One that must wait for others may be gone when these come.
  part = stored.missing > 1 ? named.tensor.detach().clone() : named.tensor;
  if (--stored.missing > 0) return;
  shards_[stored.shard].put({stored.layout.name, join_stored(stored.layout, stored.parts)});
  stored.parts.clear();
  stored.parts.resize(stored.layout.parts.size());
}

void FolderWriter::finish() {
  for (SafetensorsWriter& shard : shards_) shard.commit();
  if (!index_json_.empty()) write_file_atomic(folder_ / kIndex, index_json_);
  write_file_atomic(folder_ / "config.json", config_json_);
  write_file_atomic(folder_ / "generation_config.json", generation_json_);
  remove_earlier();
  fsync_directory(folder_);
}

/// Weights of an earlier save would be found before, or beside, the new ones.
void FolderWriter::remove_earlier() const {
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    const bool weights = name == "model.safetensors" || name == kIndex ||
                         (name.starts_with("model-") && name.ends_with(".safetensors"));
    const bool ours =
        std::ranges::find(files_, name) != files_.end() || (name == kIndex && !index_json_.empty());
    if (weights && !ours) remove_tree(entry.path());
  }
}

}  // namespace praetor
