#include "core/model/engine_step.h"

#include "core/base/error.h"
#include "core/model/kernels/linear.h"
#include "core/model/kernels/rows.h"
#include "core/model/ops_checks.h"
#include "core/model/transformer_builder.h"

namespace praetor {

void check_weight_kind(const Transformer& model, WeightKind kind) {
  const at::Tensor& weight = model.head().weight;
  if (kind == WeightKind::kFloat32 || ops::uses_kernels(weight)) return;
  throw InvalidArgument("weights of kind ",
                        to_string(kind),
                        " are made of a float32 model on the CPU, not of ",
                        ops::describe(weight));
}

at::Tensor hidden_cached(const Transformer& model,
                         const CachedRows& rows,
                         KvCache& cache,
                         const std::vector<int64_t>& want,
                         WeightKind kind) {
  check_weight_kind(model, kind);
  return TransformerBuilder::hidden_cached(model, rows, cache, want, kind);
}

at::Tensor logits(const Transformer& model, const at::Tensor& hidden, WeightKind kind) {
  check_weight_kind(model, kind);
  if (kind == WeightKind::kFloat32) return model.logits(hidden);
  const ops::LanguageHead& head = model.head();
  ops::check_linear(hidden, head.weight, {});
  const at::Tensor out = ops::kernels::linear(hidden, head.weight, {}, kind);
  return head.softcap > 0 ? ops::kernels::softcap(out, head.softcap) : out;
}

}  // namespace praetor
