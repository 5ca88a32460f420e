#include "actors/train/checkpointing.h"

#include <ATen/ops/empty.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/checkpoint/checkpoint.h"
#include "core/model/families.h"
#include "core/model/folder_writer.h"
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

/// Shapes of a model's tensors by name.
std::map<std::string, std::vector<int64_t>> shapes_of(const ModelConfig& config) {
  std::map<std::string, std::vector<int64_t>> out;
  for (ParameterSpec& spec : parameter_layout(config)) out[spec.name] = std::move(spec.shape);
  if (config.num_labels > 0) out["score.weight"] = {config.num_labels, config.hidden_size};
  return out;
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
  if (fs::exists(to) && !fs::is_empty(to)) {
    throw InvalidArgument(to.string(), ": is not empty; give --to a new folder");
  }
  const CheckpointReader reader(checkpoint);
  const auto source = reader.tensors();
  ShardState given(*source);
  std::string prefix = "policy/";
  std::vector<NamedTensor> forms = exported_forms(reader, given, prefix);
  if (forms.empty()) forms = exported_forms(reader, given, prefix = "reward_model/");
  if (forms.empty())
    throw CheckpointError(checkpoint.string(), ": holds neither a policy nor a reward model");
  for (const NamedTensor& form : forms)
    given.require(prefix + form.name, form.tensor.sizes(), form.tensor.scalar_type());
  FolderWriter out(ModelConfig::load(reader.folder()), forms, to);
  for (const NamedTensor& form : forms) {
    const at::Tensor whole = at::empty(form.tensor.sizes(), form.tensor.scalar_type());
    given.copy(prefix + form.name, 0, whole.numel(), whole);
    out.put({form.name, whole});
  }
  out.finish();
  for (const char* name : kTokenizerFiles) {
    if (reader.has_file(name)) write_file_atomic(to / name, read_file(reader.file(name)));
  }
}

}  // namespace praetor
