#include "core/base/crc32c.h"

#include <string>

#include "tests/support/catch.h"

namespace praetor {

TEST_CASE("CRC-32C gives the answers of RFC 3720, whole and in pieces", "[core][cpu][crc32c]") {
  CHECK(crc32c("123456789") == 0xE3069283u);
  CHECK(crc32c(std::string(32, '\0')) == 0x8A9136AAu);
  CHECK(crc32c(std::string(32, '\xff')) == 0x62A8AB43u);
  std::string ascending;
  for (int i = 0; i < 32; ++i) ascending += static_cast<char>(i);
  CHECK(crc32c(ascending) == 0x46DD794Eu);
  for (size_t cut = 0; cut <= ascending.size(); ++cut) {
    CHECK(crc32c(ascending.substr(cut), crc32c(ascending.substr(0, cut))) == 0x46DD794Eu);
  }
}

}  // namespace praetor
