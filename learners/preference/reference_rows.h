#pragma once

#include <filesystem>
#include <span>

#include "core/collective/collective.h"
#include "core/data/example.h"
#include "learners/learner.h"

namespace praetor {

/// Gives every example its log-probabilities under the reference, the policy as a stage begins it:
/// computed by all ranks together, in the order of `examples`, and kept in `file`, from where a run
/// that goes on takes them. The file is bound to the policy's weights and to tokens and targets of
/// the examples by a SHA-256. The values are those that a held reference would give, bit for bit.
///
/// @param learner  before its first update and load_state
/// @param ranks    the learner's; every rank calls alike, rank 0 alone reads and writes the file
/// @throws DataError when the file belongs to other rows, another tokenizer or another policy;
/// IoError. On every rank
void add_reference_logprobs(const Learner& learner,
                            Collective& ranks,
                            const std::filesystem::path& file,
                            std::span<Example* const> examples);

}  // namespace praetor
