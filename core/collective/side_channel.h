#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace praetor {

/// How a rank says things to the others of its whole beside their exchanges. Nothing here waits for
/// another rank, so that one which stands still holds up nobody. Calls from any thread.
class SideChannel {
 public:
  struct Word {
    int32_t from = 0;  ///< a rank of the whole
    std::string text;
  };

  virtual ~SideChannel() = default;
  /// Tells all others that this rank gives up.
  virtual void send_abort(const std::string& reason) noexcept = 0;
  /// Of another rank that did so; what has been taken once may not come again.
  virtual std::optional<Word> aborted() = 0;
  /// A few hundred bytes. Lost where the other rank has ended.
  virtual void tell(int32_t to, const std::string& text) noexcept = 0;
  /// What this rank was told since the last call; of one rank in its order.
  virtual std::vector<Word> heard() = 0;
};

}  // namespace praetor
