#include "core/model/converted.h"

#include "core/model/model_weights.h"
#include "core/model/transformer_builder.h"

namespace praetor {

Transformer converted(const Transformer& model, at::ScalarType dtype, bool language_head) {
  std::vector<NamedTensor> out;
  for (const NamedTensor& named : model.parameters()) {
    const at::Tensor values = named.tensor.detach();
    const bool kept = !language_head && named.name == "lm_head.weight";
    if (is_waiting(values) && !kept) {
      out.push_back({named.name, waiting_tensor(values.sizes().vec(), dtype, values.device())});
    } else {
      out.push_back({named.name, kept ? values : values.to(dtype, false, /*copy=*/true)});
    }
  }
  return TransformerBuilder::assemble(
      model.config(), std::move(out), TransformerBuilder::group_of(model));
}

Transformer moved(const Transformer& model, at::Device device) {
  std::vector<NamedTensor> out;
  for (const NamedTensor& named : model.parameters()) {
    const at::Tensor values = named.tensor.detach();
    out.push_back({named.name,
                   is_waiting(values)
                       ? waiting_tensor(values.sizes().vec(), values.scalar_type(), device)
                       : values.to(device)});
  }
  return TransformerBuilder::assemble(
      model.config(), std::move(out), TransformerBuilder::group_of(model));
}

Transformer host_shell(const Transformer& model) {
  std::vector<NamedTensor> out;
  for (const NamedTensor& named : model.parameters()) {
    const at::Tensor& like = named.tensor;
    out.push_back({named.name, waiting_tensor(like.sizes().vec(), like.scalar_type())});
  }
  return TransformerBuilder::assemble(model.config(), std::move(out));
}

}  // namespace praetor
