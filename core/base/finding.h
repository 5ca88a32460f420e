#pragma once

#include <string>
#include <vector>

namespace praetor {

/// One thing that a verification found wrong: which file, folder or table row, and what is wrong
/// with it.
struct Finding {
  std::string where;
  std::string problem;
};

using Findings = std::vector<Finding>;

}  // namespace praetor
