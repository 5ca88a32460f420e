// For any processor: the same operations one float at a time, fused multiply-adds by the C library
// where need be.
#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/model/kernels/table.h"

namespace praetor::ops::kernels {
namespace {

struct Vec {
  float at[16];
};
constexpr const char* kName = "scalar";
constexpr int kTileRows = 4;
constexpr int wide(int) {
  return 1;
}

template <typename F>
inline Vec each(F f) {
  Vec out;
  for (int i = 0; i < 16; ++i) out.at[i] = f(i);
  return out;
}
inline Vec load(const float* p) {
  return each([&](int i) { return p[i]; });
}
// 16 weights of a panel as floats.
inline Vec load_weights(const float* p) {
  return load(p);
}
inline Vec load_weights(const uint16_t* p) {
  return each([&](int i) {
    const uint32_t bits = uint32_t{p[i]} << 16;
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
  });
}
inline Vec load_weights(const int8_t* p) {
  return each([&](int i) { return static_cast<float>(p[i]); });
}
inline Vec load_part(const float* p, int64_t n, float fill) {
  return each([&](int i) { return i < n ? p[i] : fill; });
}
inline void store(float* p, const Vec& x) {
  std::memcpy(p, x.at, sizeof x.at);
}
inline void store_part(float* p, int64_t n, const Vec& x) {
  for (int64_t i = 0; i < n; ++i) p[i] = x.at[i];
}
inline Vec all(float x) {
  return each([&](int) { return x; });
}
inline Vec add(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.at[i] + b.at[i]; });
}
inline Vec sub(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.at[i] - b.at[i]; });
}
inline Vec mul(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.at[i] * b.at[i]; });
}
inline Vec div(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.at[i] / b.at[i]; });
}
inline Vec fma(const Vec& a, const Vec& b, const Vec& c) {
  return each([&](int i) { return std::fma(a.at[i], b.at[i], c.at[i]); });
}
// As the vector instructions: the second operand where either is NaN or both are equal.
inline Vec vmin(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.at[i] < b.at[i] ? a.at[i] : b.at[i]; });
}
inline Vec vmax(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.at[i] > b.at[i] ? a.at[i] : b.at[i]; });
}
inline Vec zero_below(const Vec& x, const Vec& bound, const Vec& y) {
  return each([&](int i) { return x.at[i] < bound.at[i] ? 0.0f : y.at[i]; });
}
// 2^(n-1) for a float that holds 1.5 * 2^23 + n.
inline Vec exponent(const Vec& shifted) {
  return each([&](int i) {
    uint32_t bits;
    std::memcpy(&bits, &shifted.at[i], sizeof bits);
    bits = (bits << 23) + (126u << 23);
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
  });
}
inline float reduce_sum(Vec x) {
  for (int n = 8; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) x.at[i] = x.at[i] + x.at[i + n];
  }
  return x.at[0];
}
inline float reduce_max(Vec x) {
  for (int n = 8; n > 0; n /= 2) {
    for (int i = 0; i < n; ++i) x.at[i] = x.at[i] > x.at[i + n] ? x.at[i] : x.at[i + n];
  }
  return x.at[0];
}
// to[i * stride + j] = rows[j][offset + i] for i, j < 8.
inline void transpose8(const float* const* rows, int64_t offset, float* to, int64_t stride) {
  for (int j = 0; j < 8; ++j) {
    for (int i = 0; i < 8; ++i) to[i * stride + j] = rows[j][offset + i];
  }
}

}  // namespace
}  // namespace praetor::ops::kernels

#include "core/model/kernels/body_table.h"

namespace praetor::ops::kernels {
const Table& scalar_table() {
  return kTable;
}
}  // namespace praetor::ops::kernels
