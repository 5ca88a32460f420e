#include <ATen/ops/tensor.h>

#include <cmath>

#include "core/base/error.h"
#include "core/model/transformer.h"
#include "core/model/transformer_builder.h"

namespace praetor {

ScalarHead ScalarHead::make(int64_t hidden_size,
                            RandomStream stream,
                            at::ScalarType dtype,
                            int64_t labels) {
  if (hidden_size < 1)
    throw InvalidArgument("scalar head: hidden size ", hidden_size, " is below 1");
  return {normal_tensor({labels, hidden_size},
                        1.0 / std::sqrt(static_cast<double>(hidden_size) + 1.0),
                        stream,
                        dtype)};
}

at::Tensor ScalarHead::operator()(const at::Tensor& hidden) const {
  return ops::linear(hidden, weight).squeeze(-1);
}

at::Tensor ScalarModel::score(const PackedTokens& batch) const {
  PRAETOR_CHECK(batch.prefix.empty(), "score: sequences with prefixes have no score of their own");
  std::vector<int64_t> last;
  for (int64_t i = 0; i < batch.sequences(); ++i) {
    if (batch.offsets[i + 1] == batch.offsets[i])
      throw InvalidArgument("score: sequence ", i, " is empty");
    last.push_back(batch.offsets[i + 1] - 1);
  }
  return head(backbone.hidden(batch, at::tensor(last, at::dtype(at::kLong))));
}

at::Tensor ScalarModel::values(const PackedTokens& batch) const {
  return head(backbone.hidden(batch));
}

ModelConfig ScalarModel::config() const {
  ModelConfig out = backbone.config();
  out.num_labels = head.weight.size(0);
  out.label_names = labels;
  return out;
}

std::vector<NamedTensor> ScalarModel::parameters() const {
  std::vector<NamedTensor> out;
  for (const NamedTensor& named : backbone.parameters()) {
    if (named.name != "lm_head.weight") out.push_back(named);
  }
  out.push_back({"score.weight", head.weight});
  return out;
}

}  // namespace praetor
