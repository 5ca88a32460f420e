#include "core/model/lora.h"

#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/error.h"
#include "core/base/str.h"
#include "core/base/text.h"
#include "core/model/lora_dropout.h"
#include "core/model/ops.h"
#include "core/model/packed.h"
#include "core/model/stored_layout.h"
#include "core/model/transformer_blocks.h"

namespace praetor {

namespace {

constexpr std::string_view kWeight = ".weight";

/// A linear layer as the folder holds it, and the model's layers in it.
struct StoredLinear {
  std::string name;
  std::vector<std::pair<std::string, int64_t>> parts;  ///< name, outputs
  int64_t in = 0, out = 0;
};

std::string without_weight(const std::string& name) {
  return name.substr(0, name.rfind(kWeight));
}

std::string last_part(const std::string& name) {
  return name.substr(name.rfind('.') + 1);
}

std::vector<StoredLinear> linear_layers(const ModelConfig& config) {
  std::vector<StoredLinear> out;
  for (const StoredTensor& stored : stored_layout(config, /*with_head=*/false)) {
    const ParameterSpec& first = stored.parts.front();
    if (first.shape.size() != 2 || !first.name.starts_with("model.layers.")) continue;
    StoredLinear layer{.name = without_weight(stored.name), .in = first.shape[1]};
    for (const ParameterSpec& part : stored.parts) {
      layer.parts.emplace_back(without_weight(part.name), part.shape[0]);
      layer.out += part.shape[0];
    }
    out.push_back(std::move(layer));
  }
  return out;
}

bool is_named(const std::string& layer, std::string_view target) {
  if (!layer.ends_with(target)) return false;
  const size_t before = layer.size() - target.size();
  return before == 0 || layer[before - 1] == '.';
}

void check(const LoraConfig& lora) {
  if (lora.rank < 1) throw InvalidArgument("lora: rank ", lora.rank, " is below 1");
  if (!(lora.alpha > 0)) throw InvalidArgument("lora: alpha ", lora.alpha, " is not above 0");
  if (!(lora.dropout >= 0 && lora.dropout < 1))
    throw InvalidArgument("lora: dropout ", lora.dropout, " is outside [0, 1)");
  if (lora.targets.empty()) throw InvalidArgument("lora: there are no targets");
}

bool is_target(const std::string& layer, const LoraConfig& lora) {
  return std::ranges::any_of(lora.targets, [&](const std::string& target) {
    return target == kAllLinear || is_named(layer, target);
  });
}

void check_targets(const ModelConfig& config, const LoraConfig& lora) {
  check(lora);
  for (const std::string& target : lora.targets) {
    if (const auto wrong = wrong_lora_target(config, target))
      throw InvalidArgument("lora: targets: ", *wrong);
  }
  if (const auto wrong = wrong_lora_rank(config, lora))
    throw InvalidArgument("lora: rank: ", *wrong);
}

/// Of each row, its tokens and those before it in its sequence.
at::Tensor row_keys(const PackedTokens& batch) {
  const at::Tensor tokens = batch.tokens.contiguous();
  const auto* const token = tokens.const_data_ptr<int64_t>();
  const at::Tensor keys = at::empty_like(tokens);
  int64_t* const out = keys.mutable_data_ptr<int64_t>();
  for (int64_t s = 0; s < batch.sequences(); ++s) {
    const auto i = static_cast<size_t>(s);
    uint64_t key = 0;
    if (!batch.prefix.empty() && batch.prefix[i] >= 0) {
      const int64_t end = batch.offsets[static_cast<size_t>(batch.prefix[i]) + 1];
      if (end > 0) key = static_cast<uint64_t>(out[end - 1]);
    }
    for (int64_t t = batch.offsets[i]; t < batch.offsets[i + 1]; ++t) {
      const auto id = static_cast<uint64_t>(token[t]);
      const auto mixed =
          philox({static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32), 0, 0},
                 {static_cast<uint32_t>(id), static_cast<uint32_t>(id >> 32)});
      key = mixed[0] | static_cast<uint64_t>(mixed[1]) << 32;
      out[t] = static_cast<int64_t>(key);
    }
  }
  return keys;
}

}  // namespace

double LoraConfig::scale() const {
  const auto r = static_cast<double>(rank);
  return alpha / (rslora ? std::sqrt(r) : r);
}

std::vector<std::string> lora_target_names(const ModelConfig& config) {
  std::vector<std::string> out;
  for (const StoredLinear& layer : linear_layers(config)) {
    const std::string name = last_part(layer.name);
    if (std::ranges::find(out, name) == out.end()) out.push_back(name);
  }
  return out;
}

std::optional<std::string> wrong_lora_target(const ModelConfig& config, std::string_view target) {
  if (target == kAllLinear) return std::nullopt;
  std::string holder;  // of a layer that the folder holds in another one
  for (const StoredLinear& layer : linear_layers(config)) {
    if (is_named(layer.name, target)) return std::nullopt;
    for (const auto& [part, rows] : layer.parts) {
      if (is_named(part, target)) holder = last_part(layer.name);
    }
  }
  std::vector<std::string> known = lora_target_names(config);
  known.emplace_back(kAllLinear);
  const std::string what = str("no linear layer of ",
                               config.architecture,
                               "'s folders is named \"",
                               printable(target),
                               "\"");
  if (!holder.empty()) return str(what, "; they hold it as \"", holder, "\"");
  const auto near = nearest(target, known);
  return near ? str(what, ", did you mean \"", *near, "\"?")
              : str(what, "; known are ", join(known, ", "));
}

at::Tensor LoraTerm::product() const {
  const c10::NoGradGuard no_grad;
  const at::Tensor left = b.detach().narrow(0, begin, rows).contiguous();
  return ops::linear(left, a.detach().t().contiguous()).mul_(scale);
}

std::optional<std::string> wrong_lora_rank(const ModelConfig& config, const LoraConfig& lora) {
  const StoredLinear* widest = nullptr;
  const auto side = [](const StoredLinear& layer) { return std::min(layer.in, layer.out); };
  const std::vector<StoredLinear> layers = linear_layers(config);
  for (const StoredLinear& layer : layers) {
    if (!is_target(layer.name, lora)) continue;
    if (!widest || side(layer) > side(*widest)) widest = &layer;
  }
  if (!widest || lora.rank <= side(*widest)) return std::nullopt;
  return str(lora.rank,
             " is above ",
             side(*widest),
             ", the smaller side of ",
             widest->name,
             " [",
             widest->out,
             ", ",
             widest->in,
             "]; no layer of these targets can use more");
}

std::vector<std::string> lora_layers(const ModelConfig& config, const LoraConfig& lora) {
  std::vector<std::string> out;
  for (const StoredLinear& layer : linear_layers(config)) {
    if (!is_target(layer.name, lora)) continue;
    for (const auto& [name, rows] : layer.parts) out.push_back(name);
  }
  std::ranges::sort(out);
  return out;
}

LoraSize lora_size(const ModelConfig& config, const LoraConfig& lora) {
  check_targets(config, lora);
  LoraSize out;
  for (const StoredLinear& layer : linear_layers(config)) {
    if (!is_target(layer.name, lora)) continue;
    out.parameters += lora.rank * (layer.in + layer.out);
    out.changed += layer.in * layer.out;
  }
  return out;
}

LoraAdapter LoraAdapter::make(const ModelConfig& config,
                              const LoraConfig& lora,
                              const SampleKey& key,
                              at::ScalarType dtype) {
  check_targets(config, lora);
  std::vector<Module> modules;
  SampleKey own = key;
  for (const StoredLinear& layer : linear_layers(config)) {
    RandomStream stream(own);
    ++own.sample_index;
    if (!is_target(layer.name, lora)) continue;
    at::Tensor a = at::empty({lora.rank, layer.in}, at::dtype(at::kFloat));
    const double bound = 1.0 / std::sqrt(static_cast<double>(layer.in));
    float* const to = a.mutable_data_ptr<float>();
    for (int64_t i = 0; i < a.numel(); ++i)
      to[i] = static_cast<float>((2 * stream.uniform() - 1) * bound);
    modules.push_back(
        {layer.name, a.to(dtype), at::zeros({layer.out, lora.rank}, at::dtype(dtype))});
  }
  return LoraAdapter(config, lora, std::move(modules));
}

LoraAdapter::LoraAdapter(const ModelConfig& config, LoraConfig lora, std::vector<Module> modules)
    : config_(std::move(lora)),
      model_(config),
      modules_(std::move(modules)),
      dropout_(std::make_shared<LoraDropout>()) {
  check(config_);
  dropout_->rate = config_.dropout;
  const std::vector<StoredLinear> layers = linear_layers(config);
  for (const Module& module : modules_) {
    const auto layer = std::ranges::find(layers, module.name, &StoredLinear::name);
    if (layer == layers.end())
      throw InvalidArgument("lora: the model has no layer ", printable(module.name));
    const std::vector<int64_t> a{config_.rank, layer->in}, b{layer->out, config_.rank};
    if (module.a.sizes() != at::IntArrayRef(a) || module.b.sizes() != at::IntArrayRef(b)) {
      throw InvalidArgument("lora: ",
                            module.name,
                            ": A is ",
                            c10::str(module.a.sizes()),
                            " and B ",
                            c10::str(module.b.sizes()),
                            ", but ",
                            c10::str(at::IntArrayRef(a)),
                            " and ",
                            c10::str(at::IntArrayRef(b)),
                            " are wanted");
    }
    LoraTerm term{.a = module.a,
                  .b = module.b,
                  .scale = config_.scale(),
                  .number = static_cast<uint32_t>(layer - layers.begin()),
                  .dropout = dropout_};
    for (const auto& [name, rows] : layer->parts) {
      term.rows = rows;
      terms_.emplace(name, term);
      term.begin += rows;
    }
  }
}

std::vector<NamedTensor> LoraAdapter::parameters() const {
  std::vector<NamedTensor> out;
  for (const Module& module : modules_) {
    out.push_back({module.name + ".lora_A.weight", module.a});
    out.push_back({module.name + ".lora_B.weight", module.b});
  }
  return out;
}

LoraAdapter LoraAdapter::clone() const {
  std::vector<Module> copies;
  for (const Module& module : modules_)
    copies.push_back({module.name, module.a.detach().clone(), module.b.detach().clone()});
  return LoraAdapter(model_, config_, std::move(copies));
}

LoraAdapter LoraAdapter::moved(at::Device device) const {
  std::vector<Module> there;
  for (const Module& module : modules_)
    there.push_back({module.name, module.a.detach().to(device), module.b.detach().to(device)});
  return LoraAdapter(model_, config_, std::move(there));
}

const LoraTerm* LoraAdapter::find(const std::string& layer) const {
  const auto found = terms_.find(layer);
  return found == terms_.end() ? nullptr : &found->second;
}

void LoraAdapter::set_dropout_key(uint64_t key) {
  dropout_->key = key;
}

void LoraAdapter::begin_forward(const PackedTokens& batch, const at::Tensor& want) const {
  const bool drops = dropout_->rate > 0 && c10::GradMode::is_enabled();
  dropout_->rows = drops ? row_keys(batch) : at::Tensor();
  dropout_->wanted =
      drops && want.defined() ? dropout_->rows.index_select(0, want.cpu()) : at::Tensor();
}

WantedRows::WantedRows(const LoraAdapter* adapter)
    : dropout_(adapter ? adapter->dropout_.get() : nullptr) {
  if (dropout_) dropout_->wanted_alone = true;
}

WantedRows::~WantedRows() {
  if (dropout_) dropout_->wanted_alone = false;
}

Transformer LoraAdapter::merged(const Transformer& base) const {
  std::vector<NamedTensor> tensors;
  for (const NamedTensor& named : base.parameters()) {
    const bool changed = term_of_weight(named.name) != nullptr;
    tensors.push_back({named.name, changed ? at::empty_like(named.tensor.detach()) : named.tensor});
  }
  Transformer out = TransformerBuilder::assemble(
      base.config(), std::move(tensors), TransformerBuilder::group_of(base));
  merge_into(out, base);
  return out;
}

const LoraTerm* LoraAdapter::term_of_weight(const std::string& parameter) const {
  return parameter.ends_with(kWeight) ? find(without_weight(parameter)) : nullptr;
}

at::Tensor LoraAdapter::merged_weight(const NamedTensor& base) const {
  const c10::NoGradGuard no_grad;
  const LoraTerm* const term = term_of_weight(base.name);
  if (!term) return base.tensor;
  const at::Tensor sum = at::add(base.tensor.to(term->a.scalar_type()), term->product());
  return sum.to(base.tensor.scalar_type());
}

void LoraAdapter::merge_into(Transformer& merged, const Transformer& base) const {
  const c10::NoGradGuard no_grad;
  const auto &from = base.parameters(), &to = merged.parameters();
  PRAETOR_CHECK(from.size() == to.size(), "merged weights are those of another model");
  for (size_t i = 0; i < from.size(); ++i) {
    if (!term_of_weight(from[i].name)) continue;
    PRAETOR_CHECK(!to[i].tensor.is_same(from[i].tensor), from[i].name, " is the base's own");
    to[i].tensor.copy_(merged_weight(from[i]));
  }
}

Transformer shared_copy(const Transformer& model) {
  return TransformerBuilder::assemble(
      model.config(), model.parameters(), TransformerBuilder::group_of(model));
}

AdapterScope::AdapterScope(const Transformer& model, const LoraAdapter* adapter)
    : model_(model), before_(TransformerBuilder::set_adapter(model, adapter)) {}

AdapterScope::~AdapterScope() {
  TransformerBuilder::set_adapter(model_, before_);
}

}  // namespace praetor
