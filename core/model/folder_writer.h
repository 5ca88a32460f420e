#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/model/model_config.h"
#include "core/model/named_tensor.h"
#include "core/model/safetensors.h"
#include "core/model/stored_layout.h"

namespace praetor {

/// Makes a Hugging Face folder (config.json, generation_config.json, model.safetensors or shards of
/// it with an index) of tensors that come one by one, in any order: save_hf of a model that need
/// not be in memory as a whole. Parts of one stored tensor wait for each other.
class FolderWriter {
 public:
  /// @param forms  of all tensors, under the model's own names, a scalar head's among them where
  /// the config has labels: name, dtype and shape count, the values are not looked at
  /// @throws InvalidArgument when a part of a fused tensor is not among them; IoError
  FolderWriter(const ModelConfig& config,
               const std::vector<NamedTensor>& forms,
               const std::filesystem::path& folder,
               int64_t max_shard_bytes = int64_t{4} << 30);
  /// @throws InternalError for a tensor that was not announced, or twice; IoError
  void put(const NamedTensor& named);
  /// Writes what is beside the weights, and removes weights of an earlier save. @throws
  /// InternalError when a tensor is missing; IoError
  void finish();

 private:
  struct Place {
    size_t stored = 0;  ///< in stored_
    size_t part = 0;
  };
  struct Stored {
    StoredTensor layout;
    size_t shard = 0;
    std::vector<at::Tensor> parts;  ///< that have come
    size_t missing = 0;
  };
  void add_stored(StoredTensor layout, const std::map<std::string, const NamedTensor*>& forms);
  void cut_into_shards(const std::vector<NamedTensor>& forms, int64_t max_shard_bytes);
  void remove_earlier() const;

  std::filesystem::path folder_;
  std::string config_json_;
  std::string generation_json_;
  std::string index_json_;  ///< empty: one file is enough
  std::vector<Stored> stored_;
  std::map<std::string, Place> places_;  ///< by the model's names
  std::vector<std::string> files_;
  std::vector<SafetensorsWriter> shards_;
};

}  // namespace praetor
