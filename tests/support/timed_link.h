#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/collective/collective.h"

namespace praetor::testing {

/// A link of known speed between ranks that are threads.
struct TimedLink {
  double bytes_a_second = 0;   ///< that a rank sends; 0: as fast as memory
  double message_seconds = 0;  ///< of a message to one other rank, beside its bytes
};

/// Ranks as threads. What a rank sends arrives after as long as it would take over such a link, in
/// which no core is busy; the groups of a split have links of their own. `sent`, with an entry a
/// rank, outlives the group: bytes that each has sent. No group of it tells late ranks by name.
std::vector<std::unique_ptr<Collective>> make_timed_group(int32_t world_size,
                                                          TimedLink link,
                                                          std::vector<std::atomic<int64_t>>& sent);

}  // namespace praetor::testing
