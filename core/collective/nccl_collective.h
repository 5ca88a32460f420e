#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/collective/collective.h"
#include "core/cuda/communicator.h"

namespace praetor {

/// How a group of NCCL's comes to be: `make_id` is called on the group's first rank alone, `join`
/// is given the id, a rank and the world size (cuda::Library has both).
struct NcclGroup {
  std::function<std::string()> make_id;
  std::function<std::unique_ptr<cuda::Communicator>(const std::string&, int32_t, int32_t)> join;
  /// Spans are of the memory of the communicators' GPU: a group for Collective::set_device.
  bool on_device = false;
};

/// Collective over NCCL (backend "nccl"). Spans of the processor's memory pass through the GPU, one
/// operation at a time. Spans of the GPU's (`on_device`) do not; what is started goes on beside
/// what the rank does next, after what LibTorch was given before the call (CUDA's default stream),
/// and the rank may give LibTorch more before it waits. all_gather_bytes is of the processor's
/// memory in both.
///
/// It differs from the other backends where NCCL does. Sums have the order that NCCL gives them,
/// the same on every rank; against rank order they agree to rounding alone. NCCL does not say which
/// rank is missing, nor that ranks call different things: a wait that comes near its deadline (10
/// s, or half of a shorter one) asks the other ranks by way of `meeting` what they wait in, in
/// whatever group, and its error names those that do not answer (stopped, computing, gone) and the
/// calls of those that wait elsewhere. The same is asked, for 0.3 s, where NCCL itself fails. A
/// rank that gives up tells the others over that way, too. An operation whose handle goes unwaited
/// because an exception passes is given up.
///
/// A split makes communicators of their own, whose ids go round over what is split. A rank that
/// fails in one group aborts its part of all; the meeting's groups can still be used.
///
/// `meeting`, a collective of the same ranks over another way (mpi, threads; of the whole), hands
/// the id round. It is not needed afterwards, but nobody is asked once all its groups have ended.
/// @throws CollectiveError when not all have joined within half the deadline, so that a rank which
/// could not at all finds the others in a meeting of the same deadline; what the functions throw
std::unique_ptr<Collective> make_nccl_collective(Collective& meeting,
                                                 const NcclGroup& group,
                                                 CollectiveOptions options = {});

}  // namespace praetor
