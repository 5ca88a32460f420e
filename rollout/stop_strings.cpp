#include "rollout/stop_strings.h"

#include <algorithm>

namespace praetor {

StopStrings::StopStrings(std::span<const std::string> stops) : stops_(stops) {
  for (const std::string& stop : stops) longest_ = std::max(longest_, stop.size());
}

bool StopStrings::push(std::string_view piece) {
  if (piece.empty()) return false;
  // A match must end in the new piece, so it starts at most longest_ - 1 bytes before it.
  const size_t reach = longest_ > 0 ? longest_ - 1 : 0;
  const size_t from = text_.size() > reach ? text_.size() - reach : 0;
  text_ += piece;
  size_t cut = std::string::npos;
  for (const std::string& stop : stops_) cut = std::min(cut, text_.find(stop, from));
  if (cut == std::string::npos) return false;
  text_.resize(cut);
  return true;
}

size_t StopStrings::certain() const {
  const std::string_view text = text_;
  for (size_t held = std::min(text.size(), longest_ > 0 ? longest_ - 1 : 0); held > 0; --held) {
    const std::string_view tail = text.substr(text.size() - held);
    for (const std::string& stop : stops_) {
      if (std::string_view(stop).starts_with(tail)) return text.size() - held;
    }
  }
  return text.size();
}

}  // namespace praetor
