#pragma once

#include <cstdint>
#include <vector>

#include "core/data/experience.h"

namespace praetor {

/// The samples of one prompt, as indices of sequences of an experience.
struct PromptGroup {
  int64_t ordinal = 0;
  std::vector<std::vector<int64_t>> voices;  ///< [voice] in sample order; some may be missing
};

/// The prompts of an experience in order. `voices`: the policy and the others of its plan; an
/// experience that names no voices is the policy's alone.
/// @throws ShapeError for a voice outside [0, voices)
std::vector<PromptGroup> prompt_groups(const Experience& experience, size_t voices);

}  // namespace praetor
