#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace praetor {

/// A span of time as Slurm writes and reads it: "MINUTES", "M:SS", "H:MM:SS", "D-H", "D-H:MM",
/// "D-H:MM:SS". Nothing for any other text, "UNLIMITED" and "INVALID" among it.
std::optional<std::chrono::seconds> parse_slurm_time(const std::string& text);

/// The hosts of a list as Slurm writes it: "n[1-3,07-08],login" is n1, n2, n3, n07, n08, login.
/// Several brackets in one name multiply. @throws DataError naming the place that is no host list
std::vector<std::string> expand_host_list(const std::string& text);

/// The nodes of `nodes` that can take work, after "NODE STATE" lines of sinfo: not those that are
/// down, failing or unknown, nor those that do not respond (STATE ends with "*"). All of them when
/// none is left: Slurm may be wrong, or late, and its refusal is a better message than ours.
std::vector<std::string> living_nodes(const std::vector<std::string>& nodes,
                                      const std::string& sinfo_lines);

}  // namespace praetor
