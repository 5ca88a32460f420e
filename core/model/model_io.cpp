#include <ATen/ops/equal.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/model/families.h"
#include "core/model/folder_writer.h"
#include "core/model/narrow_model.h"
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

  /// By the model's names. @throws DataError listing everything that does not fit.
  /// `keep`: what is kept of a tensor once it is there in `dtype`; empty: the tensor. What was read
  /// of the files no longer counts as this process's memory then.
  std::map<std::string, at::Tensor> read(
      at::ScalarType dtype,
      const std::function<at::Tensor(const NamedTensor&)>& keep = nullptr) const {
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
    std::map<std::string, at::Tensor> out;
    for (const auto& [stored, name] : wanted_) {
      for (NamedTensor& part : split_stored(stored, files_.tensor(name), dtype)) {
        if (keep) part.tensor = keep(part);
        out.emplace(std::move(part.name), std::move(part.tensor));
      }
      if (keep) files_.file(name).release(name);
    }
    return out;
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

/// The backbone's tensors in the model's order.
std::vector<NamedTensor> in_order(const ModelConfig& config,
                                  bool with_head,
                                  const std::map<std::string, at::Tensor>& tensors) {
  std::vector<NamedTensor> out;
  for (const ParameterSpec& spec : parameter_layout(config, with_head))
    out.push_back({spec.name, tensors.at(spec.name)});
  return out;
}

}  // namespace

namespace {

Transformer load_causal(const fs::path& folder,
                        at::ScalarType dtype,
                        const std::function<at::Tensor(const NamedTensor&)>& keep = nullptr) {
  ModelConfig config = ModelConfig::load(folder);
  if (config.num_labels > 0) {
    throw DataError((folder / "config.json").string(),
                    ": architectures: a sequence-classification model has no language head; a "
                    "causal one is wanted");
  }
  WeightReader reader(folder, config);
  want_backbone(reader, true);
  std::vector<NamedTensor> tensors = in_order(config, true, reader.read(dtype, keep));
  return TransformerBuilder::assemble(std::move(config), std::move(tensors));
}

}  // namespace

Transformer Transformer::load(const fs::path& folder, at::ScalarType dtype) {
  return load_causal(folder, dtype);
}

Transformer load_narrow(const fs::path& folder, WeightKind kind) {
  return load_causal(folder, at::kFloat, [kind](const NamedTensor& t) {
    return narrowed(t.name, t.tensor, kind);
  });
}

ScalarModel ScalarModel::load(const fs::path& folder,
                              RandomStream stream,
                              at::ScalarType dtype,
                              int64_t labels) {
  ModelConfig config = ModelConfig::load(folder);
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
  const std::map<std::string, at::Tensor> read = reader.read(dtype);
  ScalarHead head;
  if (classifies) {
    head.weight = read.at(kScore);
  } else {
    head = ScalarHead::make(config.hidden_size, stream, dtype, labels);
  }
  std::vector<std::string> names = config.label_names;
  std::vector<NamedTensor> tensors = in_order(config, false, read);
  return {TransformerBuilder::assemble(std::move(config), std::move(tensors)),
          std::move(head),
          std::move(names)};
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
