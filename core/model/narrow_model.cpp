#include "core/model/narrow_model.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include <algorithm>
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
  // One place for the matrices in turn: large pieces that come and go between smaller ones that
  // stay would leave holes in the heap.
  int64_t largest = 0;
  for (const NamedTensor& p : shell.parameters()) {
    if (is_multiplied(p.name)) largest = std::max(largest, p.tensor.numel());
  }
  const at::Tensor place = at::empty({largest}, at::dtype(at::kFloat));
  std::vector<NamedTensor> kept;
  for (const NamedTensor& p : shell.parameters()) {
    const bool multiplied = is_multiplied(p.name);
    const at::Tensor values = multiplied
                                  ? place.narrow(0, 0, p.tensor.numel()).view(p.tensor.sizes())
                                  : at::empty(p.tensor.sizes(), place.options());
    weights->read(std::vector<NamedTensor>{{p.name, values}});
    kept.push_back({p.name, multiplied ? kernels::packed_alone(values, kind) : values});
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
