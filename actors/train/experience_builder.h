#pragma once

#include "actors/controller/services.h"
#include "core/collective/collective.h"
#include "core/data/experience.h"

namespace praetor {

/// The ragged form in which a learner takes a batch; sequences in the batch's order.
Experience make_experience(const std::vector<ScoredSample>& samples);

/// The experience of all ranks' samples, in rank order, on every rank: each took its slice from the
/// controller, and the group passes the slices on. Every rank calls it alike.
Experience gather_experience(Collective& ranks, const std::vector<ScoredSample>& mine);

}  // namespace praetor
