// Compiled with AVX-512F on; called only where the processor has it.
#include <immintrin.h>

#include "core/model/kernels/table.h"

namespace praetor::ops::kernels {
namespace {

using Vec = __m512;
constexpr const char* kName = "avx512";
constexpr int kTileRows = 14;
// 32 registers: sums, the vectors of one step and a broadcast.
constexpr int wide(int rows) {
  return rows <= 2 ? 8 : rows <= 6 ? 4 : 2;
}

inline __mmask16 first(int64_t n) {
  return static_cast<__mmask16>((1u << n) - 1u);
}
inline Vec load(const float* p) {
  return _mm512_loadu_ps(p);
}
// 16 weights of a panel as floats.
inline Vec load_weights(const float* p) {
  return load(p);
}
inline Vec load_weights(const uint16_t* p) {
  const __m512i wide =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
inline Vec load_weights(const int8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline Vec load_part(const float* p, int64_t n, float fill) {
  return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(n), p);
}
inline void store(float* p, Vec x) {
  _mm512_storeu_ps(p, x);
}
inline void store_part(float* p, int64_t n, Vec x) {
  _mm512_mask_storeu_ps(p, first(n), x);
}
inline Vec all(float x) {
  return _mm512_set1_ps(x);
}
inline Vec add(Vec a, Vec b) {
  return _mm512_add_ps(a, b);
}
inline Vec sub(Vec a, Vec b) {
  return _mm512_sub_ps(a, b);
}
inline Vec mul(Vec a, Vec b) {
  return _mm512_mul_ps(a, b);
}
inline Vec div(Vec a, Vec b) {
  return _mm512_div_ps(a, b);
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return _mm512_fmadd_ps(a, b, c);
}
inline Vec vmin(Vec a, Vec b) {
  return _mm512_min_ps(a, b);
}
inline Vec vmax(Vec a, Vec b) {
  return _mm512_max_ps(a, b);
}
inline Vec zero_below(Vec x, Vec bound, Vec y) {
  return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(x, bound, _CMP_LT_OQ), _mm512_setzero_ps());
}
// 2^(n-1) for a float that holds 1.5 * 2^23 + n.
inline Vec exponent(Vec shifted) {
  const __m512i bits = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
  return _mm512_castsi512_ps(_mm512_add_epi32(bits, _mm512_set1_epi32(126 << 23)));
}
inline __m256 upper(Vec x) {
  return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1));
}
#include "core/model/kernels/halves.inc"
inline float reduce_sum(Vec x) {
  return sum8(_mm256_add_ps(_mm512_castps512_ps256(x), upper(x)));
}
inline float reduce_max(Vec x) {
  return max8(_mm256_max_ps(_mm512_castps512_ps256(x), upper(x)));
}

}  // namespace
}  // namespace praetor::ops::kernels

#include "core/model/kernels/body_table.h"

namespace praetor::ops::kernels {
const Table& avx512_table() {
  return kTable;
}
}  // namespace praetor::ops::kernels
