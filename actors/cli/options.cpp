#include "actors/cli/options.h"

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

void add_weights(CLI::App& command, WeightKind& weights) {
  command
      .add_option_function<std::string>(
          "--weights",
          [&weights](const std::string& name) { weights = weight_kind_of(name); },
          "what a step multiplies by, made of the float32 weights: bfloat16 halves what it reads, "
          "int8 quarters it, both change what is sampled a little")
      ->check(CLI::IsMember(weight_kind_names()))
      ->default_str(to_string(weights));
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
