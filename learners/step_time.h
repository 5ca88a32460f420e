#pragma once

#include <cstdint>
#include <vector>

#include "learners/memory_plan.h"

namespace praetor {

/// What lies between two ranks of a learner.
struct Link {
  double bytes_a_second = 0;   ///< that a rank sends while as many come in
  double message_seconds = 0;  ///< of an exchange with one other rank, beside its bytes
};

/// Those of a learner's ranks.
struct Links {
  Link copy;    ///< of ranks that keep a copy in parts
  Link copies;  ///< of ranks that keep the same part of different copies (sharding.group)
  Link tensor;  ///< of ranks that layers are split over (sharding.tensor)
};

/// Seconds of a pass over a step's samples and the optimizer step after it.
struct StepTime {
  double computing = 0;
  double exchanging = 0;  ///< over the link, whether computed beside it or not
  double waiting = 0;     ///< of those, while nothing is computed
  double total() const { return computing + waiting; }
};

/// From the computation's seconds, which are shared among units by their arithmetic: exchanges are
/// rings, so that a rank's bytes are those of exchanged_bytes and each exchange of a unit takes a
/// message for every other rank. Beside the computation (prefetch above 0, stages 2 and 3) they
/// follow one another over the link in the order in which LockStep starts them: a gather hides
/// behind the units that are computed while it is on its way, a sum of gradients behind the one
/// that follows it, and no micro-batch behind another. Else everything is waited for, as are sums
/// within layers that are split over ranks, sums at the optimizer step (stage 1, and those over
/// copies) and its new weights (stages 1 and 2). Trained networks come one after the other, each
/// with its backward.
StepTime plan_step_time(const std::vector<PlannedNetwork>& networks,
                        const MemoryPlanOptions& options,
                        int64_t micro_batches,
                        double computing_seconds,
                        const Links& links);

}  // namespace praetor
