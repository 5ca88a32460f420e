#include "core/base/random_hex.h"

#include <sys/random.h>

#include <cerrno>
#include <cstring>

#include "core/base/error.h"

namespace praetor {

std::string random_hex(int bytes) {
  unsigned char raw[64];
  const auto wanted = static_cast<size_t>(bytes);
  PRAETOR_CHECK(bytes >= 4 && bytes <= 64, bytes, " bytes are asked for");
  for (size_t have = 0; have < wanted;) {
    const ssize_t got = ::getrandom(raw + have, wanted - have, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw IoError("the kernel gives no random bytes: ", std::strerror(errno));
    have += static_cast<size_t>(got);
  }
  std::string text;
  for (size_t i = 0; i < wanted; ++i) {
    text += "0123456789abcdef"[raw[i] >> 4];
    text += "0123456789abcdef"[raw[i] & 15];
  }
  return text;
}

}  // namespace praetor
