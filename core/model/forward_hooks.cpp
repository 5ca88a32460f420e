#include "core/model/forward_hooks.h"

#include <charconv>
#include <string>
#include <string_view>

#include "core/base/error.h"
#include "core/model/transformer.h"
#include "core/model/transformer_builder.h"

namespace praetor {
namespace {

size_t part_of(std::string_view name, size_t layers) {
  constexpr std::string_view kLayers = "model.layers.";
  if (name.starts_with("model.norm.") || name == "lm_head.weight") return layers + 1;
  if (!name.starts_with(kLayers)) return 0;
  name.remove_prefix(kLayers.size());
  size_t layer = 0;
  std::from_chars(name.data(), name.data() + name.size(), layer);
  PRAETOR_CHECK(layer < layers, "layer ", layer, " of a model of ", layers);
  return layer + 1;
}

}  // namespace

void set_hooks(Transformer& model, ForwardHooks* hooks) {
  TransformerBuilder::set_hooks(model, hooks);
}

std::vector<std::vector<NamedTensor>> parts_of(const Transformer& model) {
  const auto layers = static_cast<size_t>(model.config().num_layers);
  std::vector<std::vector<NamedTensor>> out(layers + 2);
  for (const NamedTensor& named : model.parameters())
    out[part_of(named.name, layers)].push_back(named);
  return out;
}

}  // namespace praetor
