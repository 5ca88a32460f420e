#include "core/ledger/records.h"

namespace praetor {

const char* to_string(LeaseKind kind) {
  return kind == LeaseKind::kGenerate ? "generate" : "score";
}

const char* to_string(LeaseState state) {
  switch (state) {
    case LeaseState::kOpen:
      return "open";
    case LeaseState::kCompleted:
      return "completed";
    case LeaseState::kExpired:
      return "expired";
    case LeaseState::kLost:
      return "lost";
  }
  return "?";
}

int64_t Balance::total_dropped() const {
  int64_t total = 0;
  for (const auto& [reason, count] : dropped) total += count;
  return total;
}

}  // namespace praetor
