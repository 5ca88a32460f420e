#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/learners/sharding/cases.h"

namespace praetor::testing {

/// What a group of ranks has after some updates.
struct Trained {
  std::vector<std::string> errors;
  std::vector<NamedTensor> shards;  ///< of all ranks together, copies
  std::vector<std::string> state_json;
  std::vector<std::string> weights;  ///< digests
  std::vector<StepReport> last;
  std::vector<UnitMeter> meters;
};

/// A learner of one after some updates: what groups are held to.
struct Alone {
  Learner learner;
  StepReport last;
};

/// Gives a rank, a thread of this process, a group over an emulated NCCL beside its own: every rank
/// has an emulated device of its number.
void join_emulated_nccl(Collective& ranks);

/// Updates `from` up to `to` (not included) of a case by a group of threads.
/// @param prepare  called with each rank's learner before the first
Trained train(const std::string& name,
              int32_t world,
              int from,
              int to,
              const CaseOptions& options = {},
              const std::function<void(Learner&)>& prepare = {});

/// The same case for a world of one, which divides nothing.
CaseOptions of_one(CaseOptions options);

/// The same updates by a learner of one.
Alone train_alone(const std::string& name,
                  int from,
                  int to,
                  const CaseOptions& options = {},
                  const std::function<void(Learner&)>& prepare = {});

/// Updates of a case that make ten optimizer steps.
int ten_steps_of(const std::string& name);

/// Holds one optimizer step from first moments of zero, without clipping, to that of one rank: the
/// loss and each optimizer's gradient, in L2, within `bound` of them, and the gradient norms.
void check_first_step(const std::string& name,
                      const Trained& group,
                      const Alone& alone,
                      const CaseOptions& options,
                      double bound);

/// Holds ten steps to those of one rank: the last loss, the last gradient norms and the weights, in
/// L2, within 1e-5 of them; and all ranks to the first one.
void check_ten_steps(const std::string& name,
                     const Trained& group,
                     const Alone& alone,
                     const CaseOptions& options);

/// Holds both to the same bits: errors, weights, state, and what the last update said on each rank
/// but the manifest.
void check_same(const Trained& got, const Trained& wanted);

/// Holds every rank to what the first one ended with.
void check_ranks_agree(const Trained& group);

/// The whole state of a group, whatever its layout, in a learner of one.
Learner joined(const std::string& name, const Trained& trained, const CaseOptions& options = {});

/// The tensors of the state whose names hold `kind`, end to end, float64.
at::Tensor part_of_state(const Learner& learner, const std::string& kind);

/// |a - b| / |b|.
double relative_distance(const at::Tensor& a, const at::Tensor& b);

}  // namespace praetor::testing
