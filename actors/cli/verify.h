#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace praetor::cli {

/// Checks a checkpoint folder, or a run directory: its ledger, segments and every checkpoint.
///
///   {"path", "kind": "checkpoint" | "run", "ok", "findings": [{"where", "problem"}],
///    of a run: "stages": [{"name", "steps", "issued", "trained", "dropped": {reason: n},
///    "pending"}], "checkpoints": n}
///
/// @throws MissingInput when the path is neither; TemporaryError when the run's controller lives
nlohmann::ordered_json verify_path(const std::filesystem::path& path);

}  // namespace praetor::cli
