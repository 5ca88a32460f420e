#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/collective/collective.h"

namespace praetor::testing {

enum class Fault {
  kNone,   ///< counts alone
  kStop,   ///< the rank goes no further until all others have ended
  kThrow,  ///< the exchange fails, as where memory is short
  kSlow,   ///< the rank takes a third of the deadline longer
};

/// What happens to one rank of a group, before the `exchange`-th exchange with others that it makes
/// in a phase, from 0.
struct Strike {
  Fault fault = Fault::kNone;
  int32_t rank = 0;
  size_t phase = 0;
  int64_t exchange = 0;
  std::string text() const;
};

/// What became of it.
struct Struck {
  std::vector<std::string> errors;              ///< by rank; empty: it came to its end
  std::vector<double> seconds;                  ///< by rank, from the strike to its end
  std::string call;                             ///< the struck one, as errors tell it; empty: none
  std::vector<std::vector<int64_t>> exchanges;  ///< by rank and phase
};

constexpr const char* kFailure = "no memory for 7 bytes";  ///< what kThrow throws

/// The work of a rank; says with `enter` which of its phases begins.
using PhasedWork =
    std::function<void(Collective& ranks, const std::function<void(size_t phase)>& enter)>;

/// Does the work on ranks as threads, one of which is struck. A rank whose work fails gives up, as
/// a learner's process does.
Struck strike(int32_t world_size,
              std::chrono::milliseconds deadline,
              const Strike& what,
              const PhasedWork& work);

/// What is wrong with how the ranks ended, "" for nothing: all others must name one that is
/// stopped, by twice the deadline, some of them with the call, and one that fails, at once, with
/// what failed. Of a slow one nobody speaks.
std::string complaint(const Struck& outcome,
                      const Strike& what,
                      std::chrono::milliseconds deadline);

/// Where to strike, each rank in its turn: the first exchange of each phase and one in its middle,
/// of phase `thorough` also two between and its last.
/// @param exchanges  by rank and phase
std::vector<Strike> places(const std::vector<std::vector<int64_t>>& exchanges, size_t thorough);

/// Calls `work` for 0 .. count - 1, some at a time: most of them wait.
void side_by_side(size_t count, const std::function<void(size_t)>& work);

}  // namespace praetor::testing
