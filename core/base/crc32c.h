#pragma once

#include <cstdint>
#include <string_view>

namespace praetor {

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `bytes`, going on from `crc`, the CRC of what
/// stands before them.
uint32_t crc32c(std::string_view bytes, uint32_t crc = 0);

/// The form that TFRecord files store: rotated and offset, so that the CRC of data holding CRCs
/// stays useful.
inline uint32_t masked_crc32c(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

}  // namespace praetor
