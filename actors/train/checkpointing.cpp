#include "actors/train/checkpointing.h"

#include <ATen/ops/empty.h>

#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/checkpoint/checkpoint.h"
#include "core/model/families.h"
#include "core/model/lora.h"
#include "core/model/peft_folder.h"
#include "core/model/transformer.h"
#include "learners/lora_config.h"
#include "learners/sharding/flat_layout.h"
#include "learners/sharding/shard_state.h"

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

namespace {

/// Every rank writes its shard into the writer's folder, which lies on a file system they share.
void add_shards(CheckpointWriter* writer, Collective& ranks, const Learner& learner) {
  const std::string folder =
      ranks.all_gather_bytes(writer ? writer->folder().string() : std::string()).front();
  const CheckpointFile mine =
      CheckpointWriter::write_shard(folder, ranks.rank(), ranks.world_size(), learner.state());
  const auto entries = ranks.all_gather_bytes(
      nlohmann::json{{"name", mine.name}, {"bytes", mine.bytes}, {"sha256", mine.sha256}}.dump());
  if (!writer) return;
  for (const std::string& text : entries) {
    const auto entry = nlohmann::json::parse(text);
    writer->add_shard(
        {.name = entry.at("name"), .bytes = entry.at("bytes"), .sha256 = entry.at("sha256")});
  }
}

}  // namespace

void save_checkpoint(LearnerService& run,
                     Collective& ranks,
                     const CheckpointContext& context,
                     const Learner& learner,
                     int64_t step,
                     const std::map<std::string, double>& metrics) {
  if (ranks.rank() > 0) {
    add_shards(nullptr, ranks, learner);
    ranks.barrier();
    return;
  }
  const auto stage = static_cast<int32_t>(context.stage);
  CheckpointWriter writer(context.run_dir, context.stage_name, step, ranks.world_size());
  add_shards(&writer, ranks, learner);
  const StageProgress recorded = run.stage_progress(context.stage);
  nlohmann::json state = {
      {"stage", context.stage_name},
      {"step", step},
      {"learner", nlohmann::json::parse(learner.state_json())},
      {"environment", context.environment},
      {"ledger", {{"next_ordinal", recorded.next_ordinal}, {"last_step", recorded.last_step}}}};
  // A stage's result lies in the run, which may move as a whole.
  if (!context.base.empty()) {
    const fs::path inside = context.base.lexically_relative(context.run_dir);
    const bool own = !inside.empty() && *inside.begin() != "..";
    state["base"] = (own ? inside : fs::absolute(context.base)).string();
    if (!context.base_adapter.empty()) state["base_adapter"] = context.base_adapter.string();
  }
  writer.set_state(state);
  writer.set_metrics(metrics);
  writer.add_blob("config.json",
                  learner.has_policy()
                      ? learner.policy().config().to_json("causal_lm")
                      : learner.scalar().config().to_json("sequence_classification"));
  writer.add_blob("resolved.yaml", context.resolved_job);
  for (const char* name : kTokenizerFiles) {
    if (fs::exists(context.tokenizer / name)) writer.add_file(context.tokenizer / name);
  }
  const std::string path = writer.final_folder().lexically_relative(context.run_dir).string();
  run.record_checkpoint({.stage = stage, .step = step, .path = path, .durable = false});
  writer.commit();
  run.record_checkpoint({.stage = stage, .step = step, .path = path, .durable = true});
  ranks.barrier();
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
  std::vector<NamedTensor> tensors;
  for (int32_t rank = 0; rank < reader.manifest().world_size; ++rank) {
    for (NamedTensor& tensor : reader.shard(rank)) tensors.push_back(std::move(tensor));
  }
  learner.load_state(tensors, reader.state().at("learner").dump());
  return reader.manifest().step;
}

std::map<std::string, std::string> checkpoint_environment(const fs::path& folder) {
  return CheckpointReader(folder)
      .state()
      .at("environment")
      .get<std::map<std::string, std::string>>();
}

namespace {

/// Shapes of a model's tensors by name.
std::map<std::string, std::vector<int64_t>> shapes_of(const ModelConfig& config) {
  std::map<std::string, std::vector<int64_t>> out;
  for (ParameterSpec& spec : parameter_layout(config)) out[spec.name] = std::move(spec.shape);
  if (config.num_labels > 0) out["score.weight"] = {config.num_labels, config.hidden_size};
  return out;
}

/// What a checkpoint holds of the policy, or of the reward model: pieces, too.
std::vector<NamedTensor> trained_tensors(const CheckpointReader& reader) {
  std::vector<NamedTensor> found;
  for (int32_t rank = 0; rank < reader.manifest().world_size; ++rank) {
    for (NamedTensor& tensor : reader.shard(rank)) {
      for (const std::string prefix : {"policy/", "reward_model/"}) {
        if (tensor.name.rfind(prefix, 0) == 0)
          found.push_back({tensor.name.substr(prefix.size()), std::move(tensor.tensor)});
      }
    }
  }
  if (found.empty())
    throw CheckpointError(reader.folder().string(), ": holds neither a policy nor a reward model");
  return found;
}

/// The weights whole, whether the ranks kept them in parts or not.
std::vector<NamedTensor> whole_weights(const CheckpointReader& reader) {
  const std::vector<NamedTensor> found = trained_tensors(reader);
  ShardState given(found);
  const auto shapes = shapes_of(ModelConfig::load(reader.folder()));
  std::vector<NamedTensor> out;
  std::set<std::string> joined;
  for (const NamedTensor& tensor : found) {
    const PieceName piece = split_piece_name(tensor.name);
    if (!piece.range) {
      out.push_back(tensor);
    } else if (joined.insert(piece.parameter).second) {
      const auto shape = shapes.find(piece.parameter);
      if (shape == shapes.end())
        throw CheckpointError(reader.folder().string(), ": no model has a ", piece.parameter);
      out.push_back({piece.parameter, at::empty(shape->second, tensor.tensor.options())});
      given.require(piece.parameter, shape->second, tensor.tensor.scalar_type());
      given.copy(piece.parameter, 0, out.back().tensor.numel(), out.back().tensor);
    }
  }
  return out;
}

/// The adapter of a checkpoint, the head that learnt beside it, and the folder of its model.
struct KeptAdapter {
  LoraAdapter adapter;
  at::Tensor score;  ///< undefined: of a policy
  fs::path base;
  fs::path base_adapter;  ///< merged into it before; empty: none
};

/// Nothing where the stage has no adapter.
std::optional<KeptAdapter> kept_adapter(const CheckpointReader& reader) {
  const nlohmann::json state = reader.state();
  const nlohmann::json learner = state.value("learner", nlohmann::json::object());
  if (!learner.contains("lora")) return std::nullopt;
  const fs::path base = state.at("base").get<std::string>();
  // RUN_DIR/checkpoints/STAGE/step-N
  const fs::path run_dir =
      fs::weakly_canonical(reader.folder()).parent_path().parent_path().parent_path();
  KeptAdapter out{
      LoraAdapter::make(
          ModelConfig::load(reader.folder()), lora_from_json(learner["lora"].dump()), {}),
      {},
      base.is_absolute() ? base : run_dir / base,
      state.value("base_adapter", std::string())};
  ShardState given(trained_tensors(reader));
  for (const NamedTensor& p : out.adapter.parameters()) {
    given.require(p.name, p.tensor.sizes(), p.tensor.scalar_type());
    given.copy(p.name, 0, p.tensor.numel(), p.tensor);
  }
  for (const NamedTensor& tensor : trained_tensors(reader))
    if (tensor.name == "score.weight") out.score = tensor.tensor;
  return out;
}

/// The model under the adapter, with it.
std::vector<NamedTensor> merged_weights(const KeptAdapter& kept, const ModelConfig& config) {
  if (!fs::exists(kept.base)) {
    throw MissingInput(kept.base.string(),
                       ": no such folder; the checkpoint's adapter was trained on the model in it");
  }
  const auto merged = [&](const Transformer& base) {
    if (kept.base_adapter.empty()) return kept.adapter.merged(base);
    return kept.adapter.merged(load_peft(kept.base_adapter, base.config()).merged(base));
  };
  if (!kept.score.defined()) return merged(Transformer::load(kept.base)).parameters();
  const ScalarModel base = ScalarModel::load(
      kept.base, RandomStream({.purpose = Purpose::kInitialise}), at::kFloat, config.num_labels);
  return ScalarModel{merged(base.backbone), {kept.score}}.parameters();
}

void require_new(const fs::path& to) {
  if (fs::exists(to) && !fs::is_empty(to))
    throw InvalidArgument(to.string(), ": is not empty; give --to a new folder");
}

void copy_tokenizer_of(const CheckpointReader& reader, const fs::path& to) {
  for (const char* name : kTokenizerFiles) {
    if (reader.has_file(name)) write_file_atomic(to / name, read_file(reader.file(name)));
  }
}

}  // namespace

void export_checkpoint(const fs::path& checkpoint, const fs::path& to) {
  require_new(to);
  const CheckpointReader reader(checkpoint);
  const ModelConfig config = ModelConfig::load(reader.folder());
  const auto adapter = kept_adapter(reader);
  save_hf(config, adapter ? merged_weights(*adapter, config) : whole_weights(reader), to);
  copy_tokenizer_of(reader, to);
}

void export_adapter(const fs::path& checkpoint, const fs::path& to) {
  require_new(to);
  const CheckpointReader reader(checkpoint);
  const auto kept = kept_adapter(reader);
  if (!kept) {
    throw InvalidArgument(checkpoint.string(),
                          ": stage \"",
                          reader.manifest().stage,
                          "\" trains all weights (no learner.lora), so there is no adapter; leave "
                          "--adapter out");
  }
  if (!kept->base_adapter.empty()) {
    throw InvalidArgument(checkpoint.string(),
                          ": its adapter was trained on ",
                          kept->base.string(),
                          " with ",
                          kept->base_adapter.string(),
                          " merged into it; leave --adapter out for the whole model");
  }
  save_peft(kept->adapter,
            ModelConfig::load(reader.folder()),
            {.base = kept->base.string(), .score = kept->score},
            to);
  copy_tokenizer_of(reader, to);
}

}  // namespace praetor
