#include "core/model/narrow_model.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/model/kernels/packed_weight.h"
#include "core/model/model_weights.h"
#include "core/model/transformer_builder.h"

namespace praetor {

namespace kernels = ops::kernels;

bool is_multiplied(const std::string& name) {
  return name.ends_with("_proj.weight") || name == "lm_head.weight";
}

at::Tensor narrowed(const std::string& name, const at::Tensor& values, WeightKind kind) {
  return is_multiplied(name) ? kernels::packed_alone(values, kind) : values.clone();
}

void renew_narrowed(const NamedTensor& parameter, const at::Tensor& values) {
  const c10::NoGradGuard no_grad;
  if (is_multiplied(parameter.name)) {
    kernels::renew_packed_alone(parameter.tensor, values);
  } else {
    parameter.tensor.copy_(values);
  }
}

Transformer load_narrow(const std::filesystem::path& folder, WeightKind kind) {
  const auto weights = open_model(folder);
  const Transformer shell = weights->shell();
  std::vector<NamedTensor> kept;
  for (const NamedTensor& parameter : shell.parameters()) {
    const at::Tensor values = at::empty(parameter.tensor.sizes(), at::dtype(at::kFloat));
    weights->read(std::vector<NamedTensor>{{parameter.name, values}});
    kept.push_back({parameter.name, narrowed(parameter.name, values, kind)});
  }
  return TransformerBuilder::assemble(shell.config(), std::move(kept));
}

void check_has_kind(const Transformer& model, WeightKind kind) {
  for (const NamedTensor& parameter : model.parameters()) {
    const auto held = kernels::kind_packed_alone(parameter.tensor);
    if (!held || *held == kind) continue;
    throw InvalidArgument("the model was loaded as ",
                          to_string(*held),
                          " alone, and ",
                          to_string(kind),
                          " weights are wanted of it");
  }
}

}  // namespace praetor
