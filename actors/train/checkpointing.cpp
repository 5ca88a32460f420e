#include "actors/train/checkpointing.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/checkpoint/checkpoint.h"
#include "core/model/families.h"
#include "core/model/folder_writer.h"
#include "core/model/lora.h"
#include "core/model/model_weights.h"
#include "core/model/peft_folder.h"
#include "learners/lora_config.h"
#include "learners/sharding/agreement.h"
#include "learners/sharding/shard_state.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

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

int64_t load_checkpoint(const fs::path& folder,
                        const std::string& stage_name,
                        Collective& ranks,
                        Learner& learner) {
  // Together the ranks hash each file once.
  std::optional<CheckpointReader> opened;
  run_agreed(ranks, [&] { opened.emplace(folder, HashShare{ranks.rank(), ranks.world_size()}); });
  const CheckpointReader& reader = *opened;
  if (reader.manifest().stage != stage_name) {
    throw CheckpointError(folder.string(),
                          ": is of stage \"",
                          reader.manifest().stage,
                          "\", not of \"",
                          stage_name,
                          "\"");
  }
  learner.load_state(*reader.tensors(), reader.state().at("learner").dump());
  return reader.manifest().step;
}

std::map<std::string, std::string> checkpoint_environment(const fs::path& folder) {
  return CheckpointReader(folder, {.parts = 0})
      .state()
      .at("environment")
      .get<std::map<std::string, std::string>>();
}

namespace {

constexpr const char* kScore = "score.weight";

/// Shapes of a model's tensors by name.
std::map<std::string, std::vector<int64_t>> shapes_of(const ModelConfig& config) {
  std::map<std::string, std::vector<int64_t>> out;
  for (ParameterSpec& spec : parameter_layout(config)) out[spec.name] = std::move(spec.shape);
  if (config.num_labels > 0) out[kScore] = {config.num_labels, config.hidden_size};
  return out;
}

/// Of the names of the network that was trained.
std::string trained_prefix(const CheckpointReader& reader, const ShardState& given) {
  const std::vector<std::string> names = given.names();
  for (const std::string prefix : {"policy/", "reward_model/"}) {
    const auto ours = [&](const std::string& name) { return name.starts_with(prefix); };
    if (std::ranges::any_of(names, ours)) return prefix;
  }
  throw CheckpointError(reader.folder().string(), ": holds neither a policy nor a reward model");
}

/// The policy's tensors, or the reward model's, as they are whole, whether the ranks kept them in
/// parts or not; the values are not there.
std::vector<NamedTensor> exported_forms(const CheckpointReader& reader,
                                        const ShardState& given,
                                        const std::string& prefix) {
  const auto shapes = shapes_of(ModelConfig::load(reader.folder()));
  std::vector<NamedTensor> out;
  for (const std::string& name : given.names()) {
    if (!name.starts_with(prefix)) continue;
    const std::string own = name.substr(prefix.size());
    const TensorSource::Form& form = given.first_form(name);
    const auto shape = shapes.find(own);
    if (form.name != name && shape == shapes.end())
      throw CheckpointError(reader.folder().string(), ": no model has a ", own);
    out.push_back({own,
                   at::empty(form.name != name ? shape->second : form.shape,
                             at::TensorOptions().dtype(form.dtype).device(at::kMeta))});
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

void read_adapter(const CheckpointReader& reader, KeptAdapter& out) {
  const auto source = reader.tensors();
  ShardState given(*source);
  const std::string prefix = trained_prefix(reader, given);
  const auto read = [&](const std::string& name, const at::Tensor& to) {
    given.require(name, to.sizes(), to.scalar_type());
    given.copy(name, 0, to.numel(), to);
  };
  for (const NamedTensor& p : out.adapter.parameters()) read(prefix + p.name, p.tensor);
  const std::string score = prefix + kScore;
  const std::vector<std::string> names = given.names();
  if (std::ranges::find(names, score) == names.end()) return;
  const TensorSource::Form& form = given.first_form(score);
  out.score = at::empty(form.shape, at::dtype(form.dtype));
  read(score, out.score);
}

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
  read_adapter(reader, out);
  return out;
}

/// The model under the adapter with it merged, read, merged and written tensor by tensor.
void export_merged(const CheckpointReader& reader, const KeptAdapter& kept, const fs::path& to) {
  if (!fs::exists(kept.base)) {
    throw MissingInput(kept.base.string(),
                       ": no such folder; the checkpoint's adapter was trained on the model in it");
  }
  const ModelConfig config = ModelConfig::load(reader.folder());
  std::shared_ptr<const ModelWeights> weights =
      kept.score.defined() ? open_scalar(kept.base,
                                         RandomStream({.purpose = Purpose::kInitialise}),
                                         at::kFloat,
                                         config.num_labels)
                                 .backbone
                           : open_model(kept.base);
  if (!kept.base_adapter.empty()) {
    LoraAdapter first = load_peft(kept.base_adapter, weights->shell().config());
    weights = merged_weights(std::move(weights), std::move(first));
  }
  weights = merged_weights(std::move(weights), kept.adapter);
  std::vector<NamedTensor> forms = weights->shell().parameters();
  if (kept.score.defined()) forms.push_back({kScore, kept.score});
  FolderWriter out(config, forms, to);
  for (const NamedTensor& form : forms) {
    if (!is_waiting(form.tensor)) {
      out.put(form);
      continue;
    }
    const NamedTensor whole{form.name, at::empty(form.tensor.sizes(), form.tensor.options())};
    weights->read(std::span(&whole, 1));
    out.put(whole);
  }
  out.finish();
}

/// All weights as the ranks kept them, tensor by tensor.
void export_whole(const CheckpointReader& reader, const fs::path& to) {
  const auto source = reader.tensors();
  ShardState given(*source);
  const std::string prefix = trained_prefix(reader, given);
  const std::vector<NamedTensor> forms = exported_forms(reader, given, prefix);
  for (const NamedTensor& form : forms)
    given.require(prefix + form.name, form.tensor.sizes(), form.tensor.scalar_type());
  FolderWriter out(ModelConfig::load(reader.folder()), forms, to);
  for (const NamedTensor& form : forms) {
    const at::Tensor whole = at::empty(form.tensor.sizes(), form.tensor.scalar_type());
    given.copy(prefix + form.name, 0, whole.numel(), whole);
    out.put({form.name, whole});
  }
  out.finish();
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

fs::path chosen_checkpoint(const fs::path& given, bool best) {
  const bool run = fs::exists(given / "resolved.yaml") && fs::exists(given / "checkpoints");
  if (!run && best) throw InvalidArgument(given.string(), ": --best is of a run directory");
  if (!run) return given;
  const fs::path link = given / (best ? "best" : "latest");
  if (fs::is_directory(link)) return link;
  throw MissingInput(given.string(),
                     best ? ": has no best checkpoint (checkpoint.keep_best, or keep: best)"
                          : ": has no checkpoint yet");
}

void export_checkpoint(const fs::path& checkpoint, const fs::path& to) {
  require_new(to);
  const CheckpointReader reader(checkpoint);
  if (const auto adapter = kept_adapter(reader)) {
    export_merged(reader, *adapter, to);
  } else {
    export_whole(reader, to);
  }
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
