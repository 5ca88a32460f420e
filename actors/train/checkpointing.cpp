#include "actors/train/checkpointing.h"

#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/checkpoint/checkpoint.h"
#include "core/model/safetensors.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr const char* kTokenizerFiles[] = {"tokenizer.json",
                                           "tokenizer.model",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "vocab.json",
                                           "merges.txt",
                                           "chat_template.jinja"};

void make_folder(const fs::path& folder) {
  std::error_code failure;
  fs::create_directories(folder, failure);
  if (failure) throw IoError("cannot make the folder ", folder.string(), ": ", failure.message());
}

}  // namespace

void copy_tokenizer(const fs::path& from, const fs::path& to) {
  make_folder(to);
  for (const char* name : kTokenizerFiles) {
    if (fs::exists(from / name)) write_file_atomic(to / name, read_file(from / name));
  }
}

std::string save_checkpoint(Ledger& ledger,
                            const CheckpointContext& context,
                            const Learner& learner,
                            int64_t step,
                            const std::map<std::string, double>& metrics) {
  const auto stage = static_cast<int32_t>(context.stage);
  CheckpointWriter writer(context.run_dir, context.stage_name, step);
  writer.add_shard(0, learner.state());
  nlohmann::json state = {
      {"stage", context.stage_name},
      {"step", step},
      {"learner", nlohmann::json::parse(learner.state_json())},
      {"environment", context.environment},
      {"ledger",
       {{"next_ordinal", ledger.next_ordinal(stage)}, {"last_step", ledger.last_step(stage)}}}};
  writer.set_state(state);
  writer.set_metrics(metrics);
  writer.add_blob("config.json",
                  learner.has_policy()
                      ? learner.policy().config().to_json("causal_lm")
                      : learner.scalar().backbone.config().to_json("sequence_classification"));
  writer.add_blob("resolved.yaml", context.resolved_job);
  for (const char* name : kTokenizerFiles) {
    if (fs::exists(context.tokenizer / name)) writer.add_file(context.tokenizer / name);
  }
  char folder[32];
  std::snprintf(folder, sizeof(folder), "step-%06ld", static_cast<long>(step));
  std::string path = (fs::path("checkpoints") / context.stage_name / folder).string();
  ledger.record_checkpoint({.stage = stage, .step = step, .path = path, .durable = false});
  writer.commit();
  ledger.record_checkpoint({.stage = stage, .step = step, .path = path, .durable = true});
  return path;
}

int64_t load_checkpoint(const fs::path& folder, const std::string& stage_name, Learner& learner) {
  const CheckpointReader reader(folder);
  if (reader.manifest().stage != stage_name) {
    throw CheckpointError(folder.string(),
                          ": is of stage \"",
                          reader.manifest().stage,
                          "\", not of \"",
                          stage_name,
                          "\"");
  }
  learner.load_state(reader.shard(0), reader.state().at("learner").dump());
  return reader.manifest().step;
}

std::map<std::string, std::string> checkpoint_environment(const fs::path& folder) {
  return CheckpointReader(folder)
      .state()
      .at("environment")
      .get<std::map<std::string, std::string>>();
}

void export_checkpoint(const fs::path& checkpoint, const fs::path& to) {
  if (fs::exists(to) && !fs::is_empty(to)) {
    throw InvalidArgument(to.string(), ": is not empty; give --to a new folder");
  }
  const CheckpointReader reader(checkpoint);
  std::vector<NamedTensor> tensors;
  for (int32_t rank = 0; rank < reader.manifest().world_size; ++rank) {
    for (NamedTensor& tensor : reader.shard(rank)) {
      for (const std::string prefix : {"policy/", "reward_model/"}) {
        if (tensor.name.rfind(prefix, 0) == 0)
          tensors.push_back({tensor.name.substr(prefix.size()), tensor.tensor});
      }
    }
  }
  if (tensors.empty())
    throw CheckpointError(checkpoint.string(), ": holds neither a policy nor a reward model");
  make_folder(to);
  write_safetensors(to / "model.safetensors", tensors, {{"format", "pt"}});
  write_file_atomic(to / "config.json", read_file(reader.file("config.json")));
  for (const char* name : kTokenizerFiles) {
    if (reader.has_file(name)) write_file_atomic(to / name, read_file(reader.file(name)));
  }
}

}  // namespace praetor
