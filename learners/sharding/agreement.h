#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "core/collective/collective.h"

namespace praetor {

/// Runs `work`, which must not use the collective, on every rank, and gives all ranks what each
/// made, by rank. When it throws on some, all throw the error of the lowest of these ranks: the
/// same message and the same type of Error (anything that is not ours becomes an InternalError that
/// names the rank). In a world of one it is `work()` alone.
std::vector<std::string> gather_agreed(Collective& ranks, const std::function<std::string()>& work);

/// The same for 1-D tensors: each rank gives as many, of the same dtypes, each of its own length;
/// the k-th result is the k-th of every rank, end to end in rank order.
std::vector<at::Tensor> gather_tensors_agreed(Collective& ranks,
                                              const std::function<std::vector<at::Tensor>()>& work);

/// The same for work that makes nothing.
void run_agreed(Collective& ranks, const std::function<void()>& work);

/// The same for work in which the ranks call the collective themselves, alike. What all meet is the
/// lowest rank's error; where one fails and others go on, the group is at an end: CollectiveError,
/// on the rank that failed with what it met.
void run_in_step(Collective& ranks, const std::function<void()>& work);

}  // namespace praetor
