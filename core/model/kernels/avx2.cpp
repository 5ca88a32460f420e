// Compiled with AVX2 and FMA on; called only where the processor has them.
#include <immintrin.h>

#include "core/model/kernels/table.h"

namespace praetor::ops::kernels {
namespace {

struct Vec {
  __m256 lo, hi;
};
constexpr const char* kName = "avx2";
constexpr int kTileRows = 6;
// 16 registers of 8 floats, two to a Vec.
constexpr int wide(int rows) {
  return rows <= 1 ? 4 : rows <= 3 ? 2 : 1;
}

inline __m256i first(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Vec load(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
// 16 weights of a panel as floats.
inline Vec load_weights(const float* p) {
  return load(p);
}
inline __m256 load_weights8(const uint16_t* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline __m256 load_weights8(const int8_t* p) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
template <typename W>
inline Vec load_weights(const W* p) {
  return {load_weights8(p), load_weights8(p + 8)};
}
inline Vec load_part(const float* p, int64_t n, float fill) {
  const __m256i lo = first(n), hi = first(n - 8);
  const __m256 f = _mm256_set1_ps(fill);
  return {_mm256_blendv_ps(f, _mm256_maskload_ps(p, lo), _mm256_castsi256_ps(lo)),
          _mm256_blendv_ps(f, _mm256_maskload_ps(p + 8, hi), _mm256_castsi256_ps(hi))};
}
inline void store(float* p, Vec x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
inline void store_part(float* p, int64_t n, Vec x) {
  _mm256_maskstore_ps(p, first(n), x.lo);
  _mm256_maskstore_ps(p + 8, first(n - 8), x.hi);
}
inline Vec all(float x) {
  return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
inline Vec add(Vec a, Vec b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline Vec sub(Vec a, Vec b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline Vec mul(Vec a, Vec b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline Vec div(Vec a, Vec b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Vec vmin(Vec a, Vec b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
inline Vec vmax(Vec a, Vec b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline Vec zero_below(Vec x, Vec bound, Vec y) {
  return {_mm256_andnot_ps(_mm256_cmp_ps(x.lo, bound.lo, _CMP_LT_OQ), y.lo),
          _mm256_andnot_ps(_mm256_cmp_ps(x.hi, bound.hi, _CMP_LT_OQ), y.hi)};
}
inline __m256 exponent8(__m256 shifted) {
  const __m256i bits = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(bits, _mm256_set1_epi32(126 << 23)));
}
// 2^(n-1) for a float that holds 1.5 * 2^23 + n.
inline Vec exponent(Vec shifted) {
  return {exponent8(shifted.lo), exponent8(shifted.hi)};
}
#include "core/model/kernels/halves.inc"
inline float reduce_sum(Vec x) {
  return sum8(_mm256_add_ps(x.lo, x.hi));
}
inline float reduce_max(Vec x) {
  return max8(_mm256_max_ps(x.lo, x.hi));
}

}  // namespace
}  // namespace praetor::ops::kernels

#include "core/model/kernels/body_table.h"

namespace praetor::ops::kernels {
const Table& avx2_table() {
  return kTable;
}
}  // namespace praetor::ops::kernels
