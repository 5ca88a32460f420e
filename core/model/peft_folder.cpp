#include "core/model/peft_folder.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "core/model/json_file.h"
#include "core/model/json_keys.h"
#include "core/model/safetensors.h"
#include "core/model/stored_layout.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kTensorFile = "adapter_model.safetensors";
constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kSuffixes[] = {".lora_A.weight", ".lora_B.weight"};

/// Layers whose folder holds the transpose of the weight, as peft asks to be told.
bool stores_transposed(const ModelConfig& model) {
  return std::ranges::any_of(stored_layout(model, false), &StoredTensor::transposed);
}

/// Without kAllLinear, which peft would take for the end of a name.
std::vector<std::string> target_modules(const LoraAdapter& adapter, const ModelConfig& model) {
  const auto& targets = adapter.config().targets;
  return std::ranges::find(targets, kAllLinear) == targets.end() ? targets
                                                                 : lora_target_names(model);
}

/// Keys of other methods: null, false and empty ones ask for nothing.
void refuse_others(const JsonKeys& in, const nlohmann::json& object) {
  for (const char* key : {"use_dora",
                          "use_qalora",
                          "lora_bias",
                          "rank_pattern",
                          "alpha_pattern",
                          "modules_to_save",
                          "layer_replication",
                          "target_parameters",
                          "trainable_token_indices",
                          "alora_invocation_tokens",
                          "use_bdlora",
                          "arrow_config",
                          "velora_config",
                          "monteclora_config",
                          "kasa_config"}) {
    if (!in.has(key)) continue;
    const nlohmann::json& value = object[key];
    if (value == false || (value.is_structured() && value.empty())) continue;
    in.fail(key, JsonKeys::text(value), ": only plain LoRA is computed here");
  }
  if (in.word("bias", "none") != "none")
    in.fail("bias", JsonKeys::text(object["bias"]), ": only \"none\" is computed here");
}

LoraConfig parse(const fs::path& file) {
  const nlohmann::json object = read_json_file(file);
  if (!object.is_object()) throw DataError(file.string(), ": is not an object");
  const JsonKeys in(file, "", object);
  if (in.word("peft_type", "") != "LORA")
    in.fail("peft_type",
            in.has("peft_type") ? JsonKeys::text(object["peft_type"]) : "nothing",
            ": only \"LORA\" is known");
  refuse_others(in, object);
  LoraConfig out;
  out.rank = in.size("r", int64_t{1} << 20);
  out.alpha = in.positive("lora_alpha");
  out.rslora = in.flag("use_rslora", false);
  if (in.has("lora_dropout")) {
    const nlohmann::json& value = object["lora_dropout"];
    if (!value.is_number() || !(value.get<double>() >= 0 && value.get<double>() < 1))
      in.fail("lora_dropout", JsonKeys::text(value), " is not a number in [0, 1)");
    out.dropout = value.get<double>();
  }
  return out;
}

}  // namespace

void save_peft(const LoraAdapter& adapter,
               const ModelConfig& model,
               const PeftSettings& settings,
               const fs::path& folder) {
  std::error_code failure;
  fs::create_directories(folder, failure);
  if (failure) throw IoError("cannot make the folder ", folder.string(), ": ", failure.message());
  const LoraConfig& lora = adapter.config();
  const bool scored = settings.score.defined();
  nlohmann::ordered_json config = {{"peft_type", "LORA"},
                                   {"task_type", scored ? "SEQ_CLS" : "CAUSAL_LM"},
                                   {"base_model_name_or_path", settings.base},
                                   {"inference_mode", true},
                                   {"r", lora.rank},
                                   {"lora_alpha", lora.alpha},
                                   {"lora_dropout", lora.dropout},
                                   {"use_rslora", lora.rslora},
                                   {"use_dora", false},
                                   {"bias", "none"},
                                   {"fan_in_fan_out", stores_transposed(model)},
                                   {"target_modules", target_modules(adapter, model)}};
  if (scored) config["modules_to_save"] = {"score"};
  std::vector<NamedTensor> tensors;
  for (const NamedTensor& p : adapter.parameters())
    tensors.push_back({std::string(kPrefix) + p.name, p.tensor.detach().contiguous()});
  if (scored)
    tensors.push_back(
        {std::string(kPrefix) + "score.weight", settings.score.detach().contiguous()});
  write_safetensors(folder / kTensorFile, tensors, {{"format", "pt"}});
  write_file_atomic(folder / kConfigFile, config.dump(2) + "\n");
  fsync_directory(folder);
}

LoraAdapter load_peft(const fs::path& folder, const ModelConfig& model) {
  LoraConfig lora = parse(folder / kConfigFile);
  const SafetensorsFile file(folder / kTensorFile);
  std::map<std::string, std::pair<at::Tensor, at::Tensor>> pairs;
  for (const std::string& name : file.names()) {
    const bool first = name.ends_with(kSuffixes[0]), second = name.ends_with(kSuffixes[1]);
    if (!name.starts_with(kPrefix) || (!first && !second)) {
      throw DataError(file.path().string(),
                      ": tensor \"",
                      printable(name),
                      "\" is neither A nor B of a linear layer");
    }
    const std::string layer =
        name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffixes[0].size());
    (first ? pairs[layer].first : pairs[layer].second) =
        file.tensor(name).to(at::kFloat, false, true);
  }
  std::vector<LoraAdapter::Module> modules;
  lora.targets.clear();
  for (const auto& [layer, pair] : pairs) {
    if (!pair.first.defined() || !pair.second.defined()) {
      throw DataError(file.path().string(),
                      ": of ",
                      printable(layer),
                      " there is ",
                      pair.first.defined() ? "A alone" : "B alone");
    }
    modules.push_back({layer, pair.first, pair.second});
    const std::string name = layer.substr(layer.rfind('.') + 1);
    if (std::ranges::find(lora.targets, name) == lora.targets.end()) lora.targets.push_back(name);
  }
  if (modules.empty()) throw DataError(file.path().string(), ": holds no adapter");
  try {
    return LoraAdapter(model, std::move(lora), std::move(modules));
  } catch (const InvalidArgument& failure) {
    throw DataError(file.path().string(), ": ", failure.what());
  }
}

}  // namespace praetor
