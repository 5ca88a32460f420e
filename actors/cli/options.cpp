#include "actors/cli/options.h"

#include "core/cuda/choose.h"
#include "core/model/narrow_model.h"

namespace praetor::cli {

void add_job(CLI::App& command,
             std::filesystem::path& job,
             std::vector<std::string>& overrides,
             const std::string& example) {
  command.add_option("job", job, "The job file (configs/reference.yaml documents every key)")
      ->required()
      ->type_name("JOB.yaml");
  command.add_option("--set", overrides, "Override one key: " + example)
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void add_dtype(CLI::App& command, std::string& dtype) {
  command.add_option("--dtype", dtype, "float32 or bfloat16")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str();
}

at::ScalarType dtype_of(const std::string& name) {
  return name == "bfloat16" ? at::kBFloat16 : at::kFloat;
}

void add_engine(CLI::App& command, EngineConfig& engine) {
  command
      .add_option_function<std::string>(
          "--weights",
          [&engine](const std::string& name) { engine.weights = weight_kind_of(name); },
          "what a step multiplies by, made of the float32 weights: bfloat16 halves what it reads, "
          "int8 quarters it, both change what is sampled a little; a GPU has bfloat16")
      ->check(CLI::IsMember(weight_kind_names()))
      ->default_str(to_string(engine.weights));
  command
      .add_option_function<std::string>(
          "--device",
          [&engine](const std::string& name) { engine.device = engine_device_of(name); },
          "cpu, or cuda: a GPU through the GPU library (not yet run on one)")
      ->check(CLI::IsMember(engine_device_names()))
      ->default_str(to_string(engine.device));
  command
      .add_option("--cache-bytes",
                  engine.cache_bytes,
                  "memory for keys and values; default on a GPU: nine tenths of what is free")
      ->check(CLI::Range(int64_t{1} << 20, int64_t{1} << 46))
      ->capture_default_str();
}

void settle_engine(const CLI::App& command, EngineConfig& engine) {
  if (engine.device == EngineDevice::kCpu) return;
  cuda::require_devices();
  if (command.count("--weights") == 0) engine.weights = WeightKind::kBfloat16;
  if (command.count("--cache-bytes") == 0) engine.cache_bytes = 0;
}

Transformer load_for_engine(const std::filesystem::path& folder,
                            const std::string& dtype,
                            const EngineConfig& engine) {
  const at::ScalarType type = dtype_of(dtype);
  const bool narrow = engine.device == EngineDevice::kCpu && type == at::kFloat &&
                      engine.weights != WeightKind::kFloat32;
  return narrow ? load_narrow(folder, engine.weights) : Transformer::load(folder, type);
}

void add_draft_tokens(CLI::App& command, int64_t& draft_tokens) {
  command
      .add_option("--draft-tokens",
                  draft_tokens,
                  "guessed ahead where a response repeats what stands before; no token changes")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
}

}  // namespace praetor::cli
