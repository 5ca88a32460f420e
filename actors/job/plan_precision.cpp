#include "actors/job/plan_precision.h"

#include <c10/core/ScalarType.h>
#include <c10/util/accumulate.h>

#include "core/model/families.h"
#include "learners/optim/optimizer.h"

namespace praetor {
namespace {

using Network = StagePlan::Network;
using Sizes = std::vector<std::vector<int64_t>>;

/// Of the parameters in training: with a language head, or with a scalar one.
Sizes sizes_of(const ModelConfig& shape, bool scalar) {
  Sizes out;
  for (const ParameterSpec& spec : parameter_layout(shape, !scalar)) out.push_back(spec.shape);
  if (scalar) out.push_back({1, shape.hidden_size});
  return out;
}

void count_states(const OptimizerConfig& config, const Sizes& sizes, Network& network) {
  int64_t cut = 0, whole = 0, parameters = 0;
  for (const std::vector<int64_t>& one : sizes) {
    parameters += c10::multiply_integers(one);
    for (const StateSpec& spec : state_of(config, one, c10::kFloat)) {
      const auto bytes =
          c10::multiply_integers(spec.sizes) * static_cast<int64_t>(c10::elementSize(spec.dtype));
      (spec.elementwise ? cut : whole) += bytes;
    }
  }
  // Attributes more than one, or a critic of its own shape: as many bytes for each parameter.
  if (parameters != network.parameters && parameters > 0)
    cut = static_cast<int64_t>(static_cast<double>(cut) / static_cast<double>(parameters) *
                               static_cast<double>(network.parameters));
  network.states = cut;
  network.whole_states = whole;
}

}  // namespace

void count_precision(const StageConfig& stage,
                     const Algorithm& algorithm,
                     const ModelConfig& shape,
                     std::vector<Network>& networks,
                     std::vector<PlannedNetwork>& planned) {
  const ModelPlan models = algorithm.models();
  const bool coarse = stage.learner.precision == c10::kBFloat16;
  for (Network& network : networks) {
    if (!network.learner) continue;
    const bool own = network.name == "policy" || network.name == "value head";
    const bool scalar = network.name == "critic" || network.name == "reward model";
    if (coarse && (own || scalar)) network.element_bytes = 6;
    if (coarse && network.name == "reference")
      network.element_bytes = algorithm.sample_plan().others.empty() ? 2 : 6;
    if (!network.trained) continue;
    const bool critics = network.name.starts_with("critic");
    const OptimizerConfig& config = critics ? models.critic_optimizer : stage.learner.optimizer;
    count_states(
        config,
        network.name == "policy" || scalar ? sizes_of(shape, scalar) : Sizes{{network.parameters}},
        network);
  }
  for (PlannedNetwork& one : planned) {
    // Of a network under an adapter the two are rows of their own.
    const std::string learning = one.name + (one.adapter_parameters > 0 ? kAdapterSuffix : "");
    for (const Network& network : networks) {
      const OptimizerConfig& config =
          one.name == "critic" ? models.critic_optimizer : stage.learner.optimizer;
      if (network.name == learning && network.trained) {
        one.offloaded = config.offload;
        one.states = network.states;
        one.whole_states = network.whole_states;
      }
      if (network.name == one.name) one.weight_bytes = network.element_bytes;
    }
    if (coarse && !one.owned) one.weight_bytes = 6;
  }
}

}  // namespace praetor
