#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "actors/job/job_config.h"
#include "core/base/error.h"
#include "core/collective/nccl_collective.h"

/// What learner ranks on GPUs exchange gradients and weights through, `roles.learner.collective`:
/// NCCL, or the processor's memory and MPI.
namespace praetor {

/// Where a rank would take part in NCCL's exchanges.
struct RankGpu {
  std::string host;       ///< its name
  std::string nccl_host;  ///< what NCCL takes for it: NCCL_HOSTID of the environment, else its name
  int32_t index = 0;      ///< among the GPUs that the rank sees
  std::string name;
  std::string id;       ///< of the GPU, in every process of the host
  std::string failure;  ///< why the rank cannot; empty: it can
};

/// The GPU that this rank learns on, as the GPU library sees it. Never throws: what is missing is
/// the failure.
RankGpu gpu_of_rank();

/// Why ranks on these GPUs, by rank, cannot exchange over NCCL, which wants one for each; empty:
/// they can.
std::string why_not_nccl(const std::vector<RankGpu>& ranks);

/// What every rank throws alike, so that none need be told that another one has failed.
class ExchangeRefused : public MissingInput {
 public:
  using MissingInput::MissingInput;
};

/// Gives `ranks` a group for spans of the GPUs' memory, as `wanted` says: nccl, or auto, which does
/// without one where it cannot be had. Every rank calls it, over MPI, and gets the same answer.
/// @param mine, nccl  of this rank
/// @param options     of the new group
/// @return what learner ranks exchange over: "NCCL on 2 GPUs", "MPI and the processor's memory:
/// WHY"
/// @throws ExchangeRefused where nccl is wanted and cannot be; CollectiveError when ranks are lost,
/// or, where it is wanted, when the group does not come together
std::string exchange_over_gpus(Collective& ranks,
                               const std::string& wanted,
                               const RankGpu& mine,
                               const NcclGroup& nccl,
                               CollectiveOptions options = {});

/// The same as the job wants it, and says it in the log: nothing where no stage learns on a GPU, or
/// this rank is alone. After require_learner_devices, before anything is made of `ranks`.
void set_learner_exchange(const JobConfig& job, Collective& ranks);

/// Throws unless this host has the GPU library where the job insists on NCCL. @throws MissingInput
void require_exchange_library(const JobConfig& job);

}  // namespace praetor
