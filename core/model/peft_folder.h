#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>

#include "core/model/lora.h"

namespace praetor {

/// Adapters in the folders that Hugging Face's peft reads and writes: adapter_config.json, and
/// adapter_model.safetensors with "base_model.model.LAYER.lora_A.weight" ([r,in]) and
/// "....lora_B.weight" ([out,r]) of each layer.
struct PeftSettings {
  std::string base;  ///< base_model_name_or_path: the folder of the model it was trained on
  at::Tensor score;  ///< of a sequence-classification model: its head, trained beside the adapter
};

/// Makes the folder. @throws IoError
void save_peft(const LoraAdapter& adapter,
               const ModelConfig& model,
               const PeftSettings& settings,
               const std::filesystem::path& folder);

/// An adapter for `model`, of which it may change some layers and leave others out.
/// @throws MissingInput; DataError naming file and key for what is not computed here (another
/// method than LoRA, DoRA, biases, ranks of single layers, modules saved whole), for a tensor of no
/// linear layer of the model, and for one that is missing or has another shape
LoraAdapter load_peft(const std::filesystem::path& folder, const ModelConfig& model);

}  // namespace praetor
