#pragma once

#include <string>

#include "core/config/yaml_reader.h"
#include "core/model/lora.h"

namespace praetor {

/// Section `lora`: rank, alpha, dropout, rslora, and targets, a list of names or one name. Whether
/// a model has what they name is checked by whoever knows the model.
LoraConfig lora_from_yaml(YamlReader in);

/// As the learner's state keeps it, and back. @throws CheckpointError for a text that is none
std::string lora_to_json(const LoraConfig& config);
LoraConfig lora_from_json(const std::string& text);

}  // namespace praetor
