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
  const bool weights = network.trained && network.adapter_parameters == 0;
  int64_t out = 0;
  if (stage == 3) out += units_of(network) * (network.trained ? 2 : 1);
  if (stage >= 2 && weights) out += units_of(network);
  return out;
}

}  // namespace

StepTime plan_step_time(const std::vector<PlannedNetwork>& networks,
                        const MemoryPlanOptions& options,
                        int64_t micro_batches,
                        double computing_seconds,
                        const Link& link) {
  StepTime out{.computing = computing_seconds};
  if (options.ranks < 2) return out;
  const int64_t stage = options.sharding.stage;
  const auto seconds = [&](double bytes, int64_t messages) {
    return bytes / link.bytes_a_second +
           static_cast<double>(messages * (options.ranks - 1)) * link.message_seconds;
  };
  const auto all = static_cast<double>(exchanged_bytes(networks, options, micro_batches));
  const auto at_step = static_cast<double>(exchanged_bytes(networks, options, 0));
  int64_t in_batch = 0, in_step = 0;
  double ends = 0;  // of a micro-batch: what nothing can be computed beside
  for (const PlannedNetwork& network : networks) {
    const int64_t in_network = exchanges(network, stage);
    in_batch += in_network;
    if (network.trained) in_step += network.adapter_parameters > 0 ? 2 : 3 - stage;
    if (in_network == 0) continue;
    const double shares =
        static_cast<double>(options.ranks - 1) / static_cast<double>(options.ranks);
    const auto embedding =
        static_cast<double>(network.shape.vocab_size * network.shape.hidden_size);
    const bool weights = network.trained && network.adapter_parameters == 0;
    if (stage == 3)
      ends += seconds(static_cast<double>(options.compute_bytes) * embedding * shares, 1);
    if (weights) ends += seconds(4.0 * embedding * shares, 1);
  }
  const double beside = seconds(all - at_step, micro_batches * in_batch);
  const double after = seconds(at_step, in_step);
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
