#pragma once

#include <filesystem>
#include <string>

#include "core/publication/adapter_file.h"
#include "learners/learner.h"

namespace praetor::testing {

/// `model` of `learner` as a publisher writes it, in `folder`. A call that all ranks make; the file
/// is that of the one that leads.
WrittenWeights write_network(const Learner& learner,
                             const Transformer& model,
                             bool leads,
                             const std::filesystem::path& folder);

/// Publishes `adapter` beside `base`, in `folder`, and says the digest of the network that a worker
/// makes of the two files.
std::string digest_at_worker(const WrittenWeights& base,
                             const LoraAdapter& adapter,
                             const std::filesystem::path& folder);

/// Digest of the network in a file of whole weights.
std::string network_digest(const WrittenWeights& written);

}  // namespace praetor::testing
