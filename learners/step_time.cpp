#include "learners/step_time.h"

#include <algorithm>

#include "core/model/tensor_split.h"

namespace praetor {
namespace {

double seconds_of(const Link& link, int64_t ranks, double bytes, int64_t messages) {
  if (ranks < 2) return 0;
  return bytes / link.bytes_a_second +
         static_cast<double>(messages * (ranks - 1)) * link.message_seconds;
}

/// What a rank does in a micro-batch: it computes, waits for weights, or hands over gradients.
struct Event {
  enum class Kind { kCompute, kGather, kSum };
  Kind kind = Kind::kCompute;
  double seconds = 0;  ///< of the cores, or of the link
  size_t network = 0;
  int64_t unit = 0;              ///< 0: the embedding; the last one: the heads
  bool reads_embedding = false;  ///< as tied heads do, too
  bool shares_weights(const Event& other) const {
    return network == other.network &&
           (unit == other.unit || (reads_embedding && other.reads_embedding));
  }
};

/// Seconds on the cores of one micro-batch, by units: of each layer and of the heads.
struct Arithmetic {
  double layer_forward = 0, layer_backward = 0, heads_forward = 0, heads_backward = 0;
};

double flops_of(PlannedNetwork network, const MemoryPlanOptions& options, bool trained, bool head) {
  network.trained = trained;
  network.language_head = head;
  return update_flops({network}, options.checkpointing, 1, options.sequence_tokens / 2);
}

Arithmetic arithmetic_of(const PlannedNetwork& network,
                         const MemoryPlanOptions& options,
                         double seconds_a_flop) {
  const bool head = network.language_head;
  const auto layers = static_cast<double>(network.shape.num_layers);
  const double body = flops_of(network, options, false, false);
  const double body_both = flops_of(network, options, network.trained, false);
  const double forward = flops_of(network, options, false, head);
  const double both = flops_of(network, options, network.trained, head);
  return {.layer_forward = seconds_a_flop * body / layers,
          .layer_backward = seconds_a_flop * (body_both - body) / layers,
          .heads_forward = seconds_a_flop * (forward - body),
          .heads_backward = seconds_a_flop * (both - body_both - (forward - body))};
}

/// Of one micro-batch, as LockStep has them in its list; networks one after the other.
class Pass {
 public:
  Pass(const MemoryPlanOptions& options, int64_t ranks, const Link& link)
      : options_(options), ranks_(ranks), link_(link) {}

  /// @param part  of the network, that the ranks share
  void add(const PlannedNetwork& part, const Arithmetic& time) {
    const UnitParameters units = unit_parameters(part);
    const int64_t last = part.shape.num_layers + 1;
    const bool cut = options_.sharding.stage == 3 && ranks_ > 1;
    const bool sums = options_.sharding.stage > 1 && ranks_ > 1 && part.weights_trained();
    const auto of_unit = [&](int64_t unit) {
      return unit == 0 ? units.embedding : unit == last ? units.head : units.layer;
    };
    const auto exchange = [&](Event::Kind kind, int64_t unit) {
      const bool gathers = kind == Event::Kind::kGather;
      const bool tied = gathers && units.tied && unit == last;
      const int64_t bytes =
          (gathers ? options_.compute_bytes : 4) * (of_unit(unit) + (tied ? units.embedding : 0));
      const double sent = static_cast<double>(bytes) * static_cast<double>(ranks_ - 1) /
                          static_cast<double>(ranks_);
      events_.push_back({.kind = kind,
                         .seconds = seconds_of(link_, ranks_, sent, tied ? 2 : 1),
                         .network = networks_,
                         .unit = unit,
                         .reads_embedding = unit == 0 || tied});
    };
    const auto compute = [&](double seconds) { events_.push_back({.seconds = seconds}); };
    for (int64_t unit = 0; unit <= last; ++unit) {
      if (cut) exchange(Event::Kind::kGather, unit);
      if (unit > 0) compute(unit == last ? time.heads_forward : time.layer_forward);
    }
    for (int64_t unit = part.trained ? last : -1; unit >= 0; --unit) {
      if (cut && unit > 0) exchange(Event::Kind::kGather, unit);
      if (unit > 0) compute(unit == last ? time.heads_backward : time.layer_backward);
      if (sums) exchange(Event::Kind::kSum, unit);
    }
    ++networks_;
  }

  double exchanging() const {
    double out = 0;
    for (const Event& event : events_)
      out += event.kind == Event::Kind::kCompute ? 0 : event.seconds;
    return out;
  }

  /// Seconds in which nothing is computed.
  double waiting() {
    if (options_.sharding.prefetch == 0) return exchanging();
    done_.assign(events_.size(), 0);
    started_ = 0;
    now_ = link_free_ = 0;
    double computing = 0, summed = 0;
    for (size_t at = 0; at < events_.size(); ++at) {
      const Event& event = events_[at];
      switch (event.kind) {
        case Event::Kind::kCompute:
          now_ += event.seconds;
          computing += event.seconds;
          break;
        case Event::Kind::kGather:
          start_gathers(at);
          now_ = std::max(now_, done_[at]);
          break;
        case Event::Kind::kSum:
          now_ = std::max(now_, summed);  // one at a time
          start(at);
          summed = done_[at];
          break;
      }
    }
    return std::max(now_, summed) - computing;
  }

 private:
  /// The link takes exchanges in order.
  void start(size_t at) {
    link_free_ = std::max(now_, link_free_) + events_[at].seconds;
    done_[at] = link_free_;
  }

  /// As LockStep::start_gathers.
  void start_gathers(size_t at) {
    const auto is_gather = [&](size_t i) { return events_[i].kind == Event::Kind::kGather; };
    std::vector<size_t> in_use{at};
    for (size_t i = at + 1; i < started_; ++i) {
      if (is_gather(i)) in_use.push_back(i);
    }
    if (started_ <= at) {
      start(at);
      started_ = at + 1;
    }
    for (size_t i = started_; i < events_.size(); ++i) {
      if (static_cast<int64_t>(in_use.size()) > options_.sharding.prefetch) return;
      if (!is_gather(i)) continue;
      if (std::ranges::any_of(in_use,
                              [&](size_t one) { return events_[one].shares_weights(events_[i]); }))
        return;
      start(i);
      started_ = i + 1;
      in_use.push_back(i);
    }
  }

  const MemoryPlanOptions& options_;
  int64_t ranks_;
  Link link_;
  size_t networks_ = 0;
  std::vector<Event> events_;
  std::vector<double> done_;  ///< when an exchange has ended
  size_t started_ = 0;        ///< gathers before it
  double now_ = 0, link_free_ = 0;
};

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
  double flops = 0;
  for (const PlannedNetwork& network : networks)
    flops += flops_of(network, options, network.trained, network.language_head);
  const auto batches = static_cast<double>(micro_batches);
  Pass pass(options, holders, links.copy);
  int64_t in_step = 0, trained = 0, split = 0;
  for (const PlannedNetwork& network : networks) {
    PlannedNetwork part = network;
    if (tensor > 1) part.shape = part_shape(network.shape, tensor);
    pass.add(part, arithmetic_of(network, options, computing_seconds / flops / batches));
    split += 2 * tensor_sums(network, options.checkpointing);
    if (!network.trained) continue;
    in_step += network.adapter_parameters > 0 ? 2 : 3 - stage;
    ++trained;
  }
  const auto sums = static_cast<double>(tensor_sum_bytes(networks, options, micro_batches));
  const auto at_step = static_cast<double>(exchanged_bytes(networks, copy, 0));
  const double over_copies = static_cast<double>(exchanged_bytes(networks, options, 0)) - at_step;
  const double after = seconds_of(links.copy, holders, at_step, in_step) +
                       seconds_of(links.copies, copies, over_copies, 2 * trained) +
                       seconds_of(links.tensor, tensor, sums, micro_batches * split);
  out.exchanging = batches * pass.exchanging() + after;
  out.waiting = batches * pass.waiting() + after;
  return out;
}

}  // namespace praetor
