#pragma once

#include <string>
#include <vector>

namespace praetor::testing {

/// Folders of tests/golden/families: every family, with fused tensors, biases, caps, norms of
/// queries and keys, windows, partial rotations, tied heads.
inline const std::vector<std::string> kFamilyFolders{"llama3",
                                                     "mistral_window",
                                                     "qwen2_tied",
                                                     "qwen2_window",
                                                     "gpt2",
                                                     "gpt2_odd",
                                                     "qwen3",
                                                     "qwen3_biases",
                                                     "phi3",
                                                     "phi3_longrope",
                                                     "phi3_partial",
                                                     "gemma2",
                                                     "gemma2_uncapped",
                                                     "gemma3"};

}  // namespace praetor::testing
