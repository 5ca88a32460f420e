#include "core/model/stored_layout.h"

#include <ATen/ops/cat.h>
#include <c10/core/GradMode.h>

#include <map>
#include <utility>

namespace praetor {

namespace {

/// "model.layers.3.mlp.up_proj.weight" as module "model.layers.#.mlp.up_proj", layer "3", kind
/// "weight".
struct SplitName {
  std::string module, layer, kind;
};

SplitName split(const std::string& name) {
  const size_t dot = name.rfind('.');
  SplitName out{name.substr(0, dot), "", name.substr(dot + 1)};
  constexpr std::string_view kLayers = "model.layers.";
  if (!out.module.starts_with(kLayers)) return out;
  const std::string rest = out.module.substr(kLayers.size());
  out.layer = rest.substr(0, rest.find('.'));
  out.module = std::string(kLayers) + '#' + rest.substr(out.layer.size());
  return out;
}

std::string with_layer(const std::string& pattern, const std::string& layer) {
  const size_t at = pattern.find('#');
  if (at == std::string::npos) return pattern;
  return pattern.substr(0, at) + layer + pattern.substr(at + 1);
}

const StoredModule* find_module(const Family& family, const std::string& module) {
  for (const StoredModule& stored : family.stored) {
    for (const char* part : stored.modules) {
      if (part && module == part) return &stored;
    }
  }
  return nullptr;
}

}  // namespace

std::vector<int64_t> StoredTensor::shape() const {
  std::vector<int64_t> out = parts.front().shape;
  for (size_t i = 1; i < parts.size(); ++i) out[0] += parts[i].shape[0];
  if (transposed) std::swap(out[0], out[1]);
  return out;
}

std::vector<StoredTensor> stored_layout(const ModelConfig& config, bool with_head) {
  const Family& family = family_of(config);
  std::vector<StoredTensor> out;
  std::map<std::string, size_t> place;  // of a fused tensor in `out`
  for (const ParameterSpec& spec : parameter_layout(config, with_head)) {
    const SplitName name = split(spec.name);
    const StoredModule* module = find_module(family, name.module);
    if (!module) {
      out.push_back({spec.name, {spec}, false});
      continue;
    }
    const std::string stored = with_layer(module->name, name.layer) + '.' + name.kind;
    const auto [found, fresh] = place.emplace(stored, out.size());
    if (fresh) {
      const bool matrix = spec.shape.size() == 2;
      out.push_back({stored, {}, module->transposed && matrix});
    }
    out[found->second].parts.push_back(spec);
  }
  return out;
}

std::vector<NamedTensor> split_stored(const StoredTensor& stored,
                                      const at::Tensor& tensor,
                                      at::ScalarType dtype) {
  const at::Tensor rows = stored.transposed ? tensor.t() : tensor;
  std::vector<NamedTensor> out;
  int64_t begin = 0;
  for (const ParameterSpec& part : stored.parts) {
    const at::Tensor mine = rows.narrow(0, begin, part.shape[0]);
    out.push_back({part.name,
                   mine.to(dtype,
                           /*non_blocking=*/false,
                           /*copy=*/true,
                           at::MemoryFormat::Contiguous)});
    begin += part.shape[0];
  }
  return out;
}

at::Tensor join_stored(const StoredTensor& stored, const std::vector<at::Tensor>& parts) {
  const c10::NoGradGuard no_grad;
  const at::Tensor whole = parts.size() == 1 ? parts[0].detach() : at::cat(parts);
  return (stored.transposed ? whole.t() : whole).contiguous();
}

}  // namespace praetor
