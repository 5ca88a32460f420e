#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/model/families.h"
#include "core/model/json_keys.h"
#include "core/model/model_config.h"

namespace praetor {

/// Sets `config.rope` and, where the family's layers with a window have a rotation of their own,
/// `config.local_rope`, from the keys of a config.json: rope_parameters of transformers 5,
/// rope_theta, rope_scaling and rope_local_base_freq of older ones. `config.head_dim` and
/// `max_positions` are set already. @throws DataError naming file, key and what would be right
void read_rotation(const JsonKeys& top,
                   const std::filesystem::path& file,
                   const Family& family,
                   ModelConfig& config);

/// Adds to `out` what transformers 4 and 5 read as the same rotation.
void write_rotation(const ModelConfig& config, const Family& family, nlohmann::ordered_json& out);

}  // namespace praetor
