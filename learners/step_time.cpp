#include "learners/step_time.h"

#include <algorithm>

namespace praetor {
namespace {

/// Units that are gathered, or whose gradients are summed: embedding, layers, heads.
int64_t units_of(const PlannedNetwork& network) {
  return network.shape.num_layers + 2;
}

/// Exchanges of whole units in one micro-batch.
int64_t exchanges(const PlannedNetwork& network, int64_t stage) {
  int64_t out = 0;
  if (stage == 3) out += units_of(network) * (network.trained ? 2 : 1);
  if (stage >= 2 && network.weights_trained()) out += units_of(network);
  return out;
}

/// Sums within split layers in one micro-batch, but for what is computed again.
int64_t tensor_sums(const PlannedNetwork& network) {
  const int64_t forward = 2 * network.shape.num_layers + 1;
  return network.trained ? 2 * forward : forward;
}

}  // namespace

StepTime plan_step_time(const std::vector<PlannedNetwork>& networks,
                        const MemoryPlanOptions& options,
                        int64_t micro_batches,
                        double computing_seconds,
                        const Links& links) {
  StepTime out{.computing = computing_seconds};
  MemoryPlanOptions copy = options;  // as though its ranks were all
  copy.ranks = options.ranks_of_copy();
  copy.sharding.group = 0;
  const int64_t stage = options.sharding.stage, tensor = options.sharding.tensor;
  const int64_t copies = options.ranks / copy.ranks, holders = copy.ranks / tensor;
  const auto seconds = [](const Link& link, int64_t ranks, double bytes, int64_t messages) {
    if (ranks < 2) return 0.0;
    return bytes / link.bytes_a_second +
           static_cast<double>(messages * (ranks - 1)) * link.message_seconds;
  };
  int64_t in_batch = 0, in_step = 0, trained = 0, split = 0;
  double ends = 0;  // of a micro-batch: what nothing can be computed beside
  for (const PlannedNetwork& network : networks) {
    const int64_t in_network = exchanges(network, stage);
    in_batch += in_network;
    split += 2 * tensor_sums(network);
    if (network.trained) in_step += network.adapter_parameters > 0 ? 2 : 3 - stage;
    if (network.trained) ++trained;
    if (in_network == 0) continue;
    const auto embedding =
        static_cast<double>(network.shape.vocab_size * network.shape.hidden_size / tensor);
    const double sent = embedding * static_cast<double>(holders - 1) / static_cast<double>(holders);
    if (stage == 3)
      ends += seconds(links.copy, holders, static_cast<double>(options.compute_bytes) * sent, 1);
    if (network.weights_trained()) ends += seconds(links.copy, holders, 4 * sent, 1);
  }
  const auto bytes = [&](const MemoryPlanOptions& of, int64_t batches) {
    return static_cast<double>(exchanged_bytes(networks, of, batches));
  };
  const auto sums = static_cast<double>(tensor_sum_bytes(networks, options, micro_batches));
  const double at_step = bytes(copy, 0), over_copies = bytes(options, 0) - at_step;
  const double beside = seconds(
      links.copy, holders, bytes(copy, micro_batches) - at_step - sums, micro_batches * in_batch);
  const double after = seconds(links.copy, holders, at_step, in_step) +
                       seconds(links.copies, copies, over_copies, 2 * trained) +
                       seconds(links.tensor, tensor, sums, micro_batches * split);
  out.exchanging = beside + after;
  const double hidden =
      options.sharding.prefetch > 0 && stage > 1
          ? std::min(computing_seconds,
                     std::max(beside - static_cast<double>(micro_batches) * ends, 0.0))
          : 0.0;
  out.waiting = out.exchanging - hidden;
  return out;
}

}  // namespace praetor
