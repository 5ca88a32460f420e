#pragma once

#include <set>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"
#include "reward/reward_config.h"

namespace praetor {

/// True for letters, digits, "_", "-" and "." only, and at least one of them.
bool is_plain_name(const std::string& name);

/// Reads the parts of one list `parts` and those below them. `names` holds the names taken so far,
/// in the whole section.
std::vector<PartConfig> parts_from_yaml(YamlReader& in, std::set<std::string>& names);

}  // namespace praetor
