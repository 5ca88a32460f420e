#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/model/families.h"
#include "core/model/folder_writer.h"
#include "core/model/model_weights.h"
#include "core/model/safetensors.h"
#include "core/model/stored_layout.h"
#include "core/model/transformer.h"
#include "core/model/transformer_builder.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kScore = "score.weight";

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out;
  for (const int64_t size : shape) out += (out.empty() ? "[" : ", ") + std::to_string(size);
  return out.empty() ? "[]" : out + ']';
}

/// "missing a, b, c and 12 more": the message stays readable when a whole model does not fit.
std::string some_of(const char* what, const std::vector<std::string>& items) {
  constexpr size_t kShown = 8;
  std::vector<std::string> shown(items.begin(), items.begin() + std::min(items.size(), kShown));
  std::string out = std::string(what) + join(shown, ", ");
  if (items.size() > kShown) out += " and " + std::to_string(items.size() - kShown) + " more";
  return out;
}

bool is_weight(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf ||
         dtype == at::kDouble;
}

/// Buffers that old writers saved among the weights: frequencies of the rotation, GPT-2's causal
/// masks.
bool is_buffer(const std::string& name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attn.bias") ||
         name.ends_with(".attn.masked_bias");
}

/// The weights of one folder, checked as a whole before the first one is copied.
class WeightReader {
 public:
  WeightReader(const fs::path& folder, const ModelConfig& config)
      : folder_(folder), config_(config), family_(family_of(config)), files_(folder) {}

  /// Wants a tensor of the file under `stored.name`, or under `instead` when that is not empty.
  void want(const StoredTensor& stored, const std::string& instead = "") {
    const std::string name = written(instead.empty() ? stored.name : instead);
    wanted_.push_back({stored, name});
    expected_.insert(name);
    if (!files_.contains(name)) {
      missing_.push_back(stored.name);
      return;
    }
    const SafetensorsFile& file = files_.file(name);
    const std::string where = name + " (" + file.path().filename().string() + ") is ";
    if (file.shape(name) != stored.shape()) {
      wrong_.push_back(where + shape_text(file.shape(name)) + ", config.json wants " +
                       shape_text(stored.shape()));
    } else if (!is_weight(file.dtype(name))) {
      wrong_.push_back(where + safetensors_dtype(file.dtype(name)) +
                       ", a floating-point dtype is wanted");
    }
  }
  void allow(const std::string& name) { expected_.insert(written(name)); }
  bool has(const std::string& name) const { return files_.contains(written(name)); }
  at::Tensor view(const std::string& name) const { return files_.tensor(written(name)); }

  /// Nothing is wanted any more. @throws DataError listing everything that does not fit.
  void check() {
    std::vector<std::string> unexpected;
    for (const std::string& name : files_.names()) {
      if (!expected_.count(name) && !is_buffer(name)) unexpected.push_back(printable(name));
    }
    std::vector<std::string> problems;
    if (!missing_.empty()) problems.push_back(some_of("missing: ", missing_));
    if (!unexpected.empty()) problems.push_back(some_of("unexpected: ", unexpected));
    if (!wrong_.empty()) problems.push_back(some_of("wrong: ", wrong_));
    if (!problems.empty()) {
      throw DataError(
          folder_.string(), ": the weights do not fit config.json; ", join(problems, "; "));
    }
    for (size_t i = 0; i < wanted_.size(); ++i) {
      for (const ParameterSpec& part : wanted_[i].first.parts) place_of_[part.name] = i;
    }
  }

  /// After check(): fills tensors of the model's names, file tensor by file tensor.
  void fill(std::span<const NamedTensor> parameters) const {
    const at::NoGradGuard no_grad;
    std::map<size_t, std::map<std::string, at::Tensor>> places;
    for (const NamedTensor& parameter : parameters)
      places[place_of_.at(parameter.name)].insert({parameter.name, parameter.tensor.detach()});
    for (const auto& [place, to] : places) {
      const auto& [stored, name] = wanted_[place];
      if (stored.parts.size() == 1 && !stored.transposed) {
        to.begin()->second.copy_(files_.tensor(name));
      } else {
        const at::ScalarType dtype = to.begin()->second.scalar_type();
        for (const NamedTensor& part : split_stored(stored, files_.tensor(name), dtype)) {
          const auto found = to.find(part.name);
          if (found != to.end()) at::Tensor(found->second).copy_(part.tensor);
        }
      }
      files_.file(name).release(name);
    }
  }
  /// One tensor of the folder that is no part of the network.
  at::Tensor read(const std::string& name, at::ScalarType dtype) const {
    return split_stored(wanted_[place_of_.at(name)].first, view(name), dtype).front().tensor;
  }

  const fs::path& folder() const { return folder_; }
  const ModelConfig& config() const { return config_; }

 private:
  /// The name as this folder writes it: with the family's prefix or without.
  std::string written(const std::string& name) const {
    const std::string_view prefix = family_.optional_prefix;
    if (prefix.empty() || files_.contains(name) || !name.starts_with(prefix)) return name;
    std::string bare = name.substr(prefix.size());
    return files_.contains(bare) ? bare : name;
  }

  fs::path folder_;
  ModelConfig config_;
  const Family& family_;
  SafetensorsFolder files_;
  std::vector<std::pair<StoredTensor, std::string>> wanted_;
  std::map<std::string, size_t> place_of_;  ///< of the model's names, in wanted_
  std::set<std::string> expected_;
  std::vector<std::string> missing_;
  std::vector<std::string> wrong_;
};

/// Asks for the backbone, and for the language head unless it is tied or not wanted. A tied model
/// may be stored with the embedding, with the head, or with both, which must then be equal.
void want_backbone(WeightReader& reader, bool with_head) {
  const ModelConfig& config = reader.config();
  const std::vector<StoredTensor> layout = stored_layout(config, with_head);
  const std::string embedding = layout.front().name;
  const bool both = reader.has(kHead) && reader.has(embedding);
  for (const StoredTensor& stored : layout) {
    const bool under_head =
        config.tie_embeddings && stored.name == embedding && !both && reader.has(kHead);
    reader.want(stored, under_head ? kHead : "");
  }
  if (!config.tie_embeddings || !both) return;
  reader.allow(kHead);
  if (!at::equal(reader.view(kHead), reader.view(embedding))) {
    throw DataError(reader.folder().string(),
                    ": config.json says tie_word_embeddings, but lm_head.weight is not ",
                    embedding);
  }
}

class FolderWeights final : public ModelWeights {
 public:
  /// @param with_head  the language head is wanted, too
  FolderWeights(WeightReader reader, bool with_head, at::ScalarType dtype)
      : reader_(std::move(reader)), with_head_(with_head), dtype_(dtype) {}

  Transformer shell() const override {
    std::vector<NamedTensor> out;
    for (const ParameterSpec& spec : parameter_layout(reader_.config(), with_head_))
      out.push_back({spec.name, waiting_tensor(spec.shape, dtype_)});
    return TransformerBuilder::assemble(reader_.config(), std::move(out));
  }

 private:
  void read_own(std::span<const NamedTensor> parameters) const override {
    reader_.fill(parameters);
  }
  at::ScalarType dtype() const override { return dtype_; }

  WeightReader reader_;
  bool with_head_;
  at::ScalarType dtype_;
};

class MergedWeights final : public ModelWeights {
 public:
  MergedWeights(std::shared_ptr<const ModelWeights> base, LoraAdapter adapter)
      : base_(std::move(base)), adapter_(std::move(adapter)), dtype_(base_->shell().dtype()) {}

  Transformer shell() const override { return base_->shell(); }

 private:
  void read_own(std::span<const NamedTensor> parameters) const override {
    const at::NoGradGuard no_grad;
    base_->read(parameters);
    for (const NamedTensor& parameter : parameters) {
      const at::Tensor merged = adapter_.merged_weight(parameter);
      if (!merged.is_same(parameter.tensor)) parameter.tensor.detach().copy_(merged);
    }
  }
  at::ScalarType dtype() const override { return dtype_; }

  std::shared_ptr<const ModelWeights> base_;
  LoraAdapter adapter_;
  at::ScalarType dtype_;
};

}  // namespace

bool is_waiting(const at::Tensor& parameter) {
  return parameter.numel() > 0 && parameter.storage().nbytes() == 0;
}

at::Tensor waiting_tensor(const std::vector<int64_t>& sizes,
                          at::ScalarType dtype,
                          at::Device device) {
  at::Tensor out = at::empty({0}, at::dtype(dtype).device(device));
  out.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return out;
}

void ModelWeights::read(std::span<const NamedTensor> parameters) const {
  const at::NoGradGuard no_grad;
  std::vector<NamedTensor> own;
  for (const NamedTensor& parameter : parameters) {
    const at::Tensor& to = parameter.tensor;
    const bool fits = to.scalar_type() == dtype() && to.is_cpu();
    own.push_back({parameter.name, fits ? to : at::empty(to.sizes(), at::dtype(dtype()))});
  }
  read_own(own);
  for (size_t i = 0; i < own.size(); ++i) {
    const at::Tensor& to = parameters[i].tensor;
    if (!own[i].tensor.is_same(to)) to.detach().copy_(own[i].tensor);
  }
}

void read_whole(const ModelWeights& weights, const Transformer& shell) {
  for (const NamedTensor& parameter : shell.parameters())
    parameter.tensor.set_data(at::empty(parameter.tensor.sizes(), parameter.tensor.options()));
  if (shell.parameters().front().tensor.is_cpu()) return weights.read(shell.parameters());
  for (const NamedTensor& parameter : shell.parameters()) weights.read(std::span(&parameter, 1));
}

std::shared_ptr<const ModelWeights> open_model(const fs::path& folder, at::ScalarType dtype) {
  const ModelConfig config = ModelConfig::load(folder);
  if (config.num_labels > 0) {
    throw DataError((folder / "config.json").string(),
                    ": architectures: a sequence-classification model has no language head; a "
                    "causal one is wanted");
  }
  WeightReader reader(folder, config);
  want_backbone(reader, true);
  reader.check();
  return std::make_shared<FolderWeights>(std::move(reader), true, dtype);
}

Transformer Transformer::load(const fs::path& folder, at::ScalarType dtype) {
  const auto weights = open_model(folder, dtype);
  Transformer out = weights->shell();
  read_whole(*weights, out);
  return out;
}

OpenedScalar open_scalar(const fs::path& folder,
                         RandomStream stream,
                         at::ScalarType dtype,
                         int64_t labels) {
  const ModelConfig config = ModelConfig::load(folder);
  const bool classifies = config.num_labels > 0;
  if (classifies && config.num_labels != labels) {
    throw DataError((folder / "config.json").string(),
                    ": num_labels: ",
                    config.num_labels,
                    labels == 1 ? ", a scalar head has 1" : str(", but ", labels, " are wanted"));
  }
  WeightReader reader(folder, config);
  want_backbone(reader, false);
  if (classifies) {
    const ParameterSpec score{kScore, {labels, config.hidden_size}, ParameterSpec::Init::kNormal};
    reader.want({kScore, {score}});
  } else {
    reader.allow(kHead);
  }
  reader.check();
  ScalarHead head = classifies ? ScalarHead{reader.read(kScore, dtype)}
                               : ScalarHead::make(config.hidden_size, stream, dtype, labels);
  auto weights = std::make_shared<FolderWeights>(std::move(reader), false, dtype);
  Transformer backbone = weights->shell();
  return {{std::move(backbone), std::move(head), config.label_names}, std::move(weights)};
}

std::shared_ptr<const ModelWeights> merged_weights(std::shared_ptr<const ModelWeights> base,
                                                   LoraAdapter adapter) {
  return std::make_shared<MergedWeights>(std::move(base), std::move(adapter));
}

ScalarModel ScalarModel::load(const fs::path& folder,
                              RandomStream stream,
                              at::ScalarType dtype,
                              int64_t labels) {
  OpenedScalar out = open_scalar(folder, std::move(stream), dtype, labels);
  read_whole(*out.backbone, out.model.backbone);
  return std::move(out.model);
}

void save_hf(const ModelConfig& config,
             const std::vector<NamedTensor>& tensors,
             const fs::path& folder,
             int64_t max_shard_bytes) {
  FolderWriter out(config, tensors, folder, max_shard_bytes);
  for (const NamedTensor& named : tensors) out.put(named);
  out.finish();
}

void save_hf(const Transformer& model, const fs::path& folder, int64_t max_shard_bytes) {
  (void)model.head();  // throws for a backbone alone
  save_hf(model.config(), model.parameters(), folder, max_shard_bytes);
}

void save_hf(const ScalarModel& model, const fs::path& folder, int64_t max_shard_bytes) {
  save_hf(model.config(), model.parameters(), folder, max_shard_bytes);
}

}  // namespace praetor
