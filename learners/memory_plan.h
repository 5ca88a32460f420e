#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/model/checkpointing.h"
#include "core/model/lora.h"
#include "core/model/model_config.h"
#include "learners/sharding/sharding_config.h"

namespace praetor {

/// The largest of `parts` parts of `whole`.
inline int64_t ceil_div(int64_t whole, int64_t parts) {
  return (whole + parts - 1) / parts;
}

/// A network as an update uses it.
struct PlannedNetwork {
  ModelConfig shape;
  bool trained = true;        ///< else frozen: it has no gradients
  bool language_head = true;  ///< else a scalar head
  /// Of a trained one, above 0: its weights are frozen under an adapter of so many parameters
  /// (heads that are trained beside it among them), which alone have gradients and moments; they
  /// are whole on every rank.
  int64_t adapter_parameters = 0;
  std::optional<LoraConfig> lora = {};  ///< settings of that adapter
  /// Weights with the adapter added that are held beside them, for engines.
  int64_t merged_parameters = 0;
  bool owned = true;         ///< else its frozen weights are another network's, which count once
  int64_t weight_bytes = 4;  ///< a parameter: 6 with a copy in bfloat16, 2 as that alone
  /// Bytes of the optimizer: of states that ranks keep in parts (absent: both moments of AdamW in
  /// float32), and of those that each keeps whole.
  std::optional<int64_t> states = {};
  int64_t whole_states = 0;
  bool offloaded = false;  ///< the optimizer's are in the processor's memory, not the device's
  std::string name = {};

  /// The weights themselves have gradients, not an adapter's beside them.
  bool weights_trained() const { return trained && adapter_parameters == 0; }
};

struct MemoryPlanOptions {
  ShardingConfig sharding;
  int64_t ranks = 1;
  int64_t ranks_of_copy() const {
    return sharding.tensor * sharding.ranks_of_copy(ranks / sharding.tensor);
  }
  int64_t micro_batch_tokens = 8192;  ///< of the largest micro-batch
  int64_t sequence_tokens = 8192;     ///< of the longest sequence
  ActivationCheckpointing checkpointing = ActivationCheckpointing::kNone;
  int64_t compute_bytes = 4;  ///< an element of what forwards compute with: 2 in bfloat16
  bool kernels = true;  ///< backwards by the CPU's kernels; else LibTorch's operators, step by step
};

/// Bytes of tensors that one rank holds at the worst moment of an update of two micro-batches or
/// more, from the shapes alone. At that moment all of a micro-batch's activations of one network
/// are there, and the gradients of those before it.
struct MemoryPlan {
  int64_t weights = 0;      ///< for good
  int64_t gradients = 0;    ///< until the step
  int64_t moments = 0;      ///< for good
  int64_t units = 0;        ///< stages 2, 3: whole units' weights and gradients under way
  int64_t activations = 0;  ///< as though losses asked for every row; of others there are fewer
  int64_t workspace = 0;    ///< of the backward where it is largest, with what it computes again
  int64_t offloaded = 0;    ///< moments that are not where the rest is; not in the total
  int64_t total() const { return weights + gradients + moments + units + activations + workspace; }
};
MemoryPlan plan_memory(const std::vector<PlannedNetwork>& networks,
                       const MemoryPlanOptions& options);

/// Copies of weights [N,K] in the order that the CPU's products read (core/model/kernels), beside
/// the tensors: of all networks, at stage 3 of the units that are gathered.
int64_t packed_weight_bytes(const std::vector<PlannedNetwork>& networks,
                            const MemoryPlanOptions& options);

/// Parameters that a network holds, its scalar head among them; those of an adapter not.
int64_t parameter_count(const PlannedNetwork& network);

/// The same by units (learners/sharding/sharded_network.h): the embedding with the few of the final
/// norm, each layer, and the head. A tied head has none of its own, and reads the embedding.
struct UnitParameters {
  int64_t embedding = 0, layer = 0, head = 0;
  bool tied = false;
};
UnitParameters unit_parameters(const PlannedNetwork& network);

/// Floats that a forward keeps of each token of one layer for its backward, where all weights are
/// trained.
int64_t kept_floats(const ModelConfig& shape, ActivationCheckpointing checkpointing);

/// Bytes that a forward keeps of each token of all layers, each element `compute_bytes`. Under an
/// adapter a layer's input is kept where it is adapted, and float32 of its rank beside it.
int64_t kept_bytes(const PlannedNetwork& network,
                   ActivationCheckpointing checkpointing,
                   int64_t compute_bytes);

/// Multiplications and additions of an update's forwards and backwards over `tokens`, each with
/// `context` tokens before it on average: 2 a weight and token in a forward, twice that in a
/// backward, and what is computed again. Frozen networks run forward alone; under an adapter a
/// backward has no gradients of weights but the adapter's.
double update_flops(const std::vector<PlannedNetwork>& networks,
                    ActivationCheckpointing checkpointing,
                    int64_t tokens,
                    int64_t context);

/// Sums over the tensor ranks in a micro-batch: of every layer's attention and MLP, forward,
/// backward and where it is computed again, of the embedding, and of the gradient that comes from
/// the head.
int64_t tensor_sums(const PlannedNetwork& network, ActivationCheckpointing checkpointing);

/// Bytes that each rank sends in sums within layers that are split over ranks
/// (ShardingConfig::tensor), of `micro_batches` passes; nothing is computed beside them.
int64_t tensor_sum_bytes(const std::vector<PlannedNetwork>& networks,
                         const MemoryPlanOptions& options,
                         int64_t micro_batches);

/// Bytes that each rank sends in an optimizer step of `micro_batches` passes, and receives
/// (learners/README.md, "Sharding stages").
int64_t exchanged_bytes(const std::vector<PlannedNetwork>& networks,
                        const MemoryPlanOptions& options,
                        int64_t micro_batches);

}  // namespace praetor
