// Row kernels over Vec, a vector of 16 floats that the including source defines for its instruction
// set. Included by scalar.cpp, avx2.cpp and avx512.cpp alone.
#pragma once

#include <cstdint>

namespace praetor::ops::kernels {
namespace {

constexpr float kInfinity = __builtin_inff();

// e^x within 2 units in the last place; 0 below -86.5 (no denormals), infinity above 88.7, NaN for
// NaN. Cephes' expf: x = n ln 2 + r, a polynomial of degree 7 in r, and the exponent set by an
// integer shift.
inline Vec exp16(Vec x) {
  const Vec low = all(-86.5f), high = all(89.0f), magic = all(12582912.0f);  // 1.5 * 2^23
  const Vec clamped = vmax(low, vmin(high, x));
  const Vec shifted = fma(clamped, all(1.44269504088896341f), magic);
  const Vec n = sub(shifted, magic);
  const Vec r = fma(n, all(2.12194440e-4f), fma(n, all(-0.693359375f), clamped));
  Vec p = all(1.9875691500e-4f);
  p = fma(p, r, all(1.3981999507e-3f));
  p = fma(p, r, all(8.3334519073e-3f));
  p = fma(p, r, all(4.1665795894e-2f));
  p = fma(p, r, all(1.6666665459e-1f));
  p = fma(p, r, all(5.0000001201e-1f));
  p = add(fma(p, mul(r, r), r), all(1.0f));
  // 2^n as 2^(n-1) times 2, since 2^128 is not a float.
  return zero_below(x, low, mul(mul(p, exponent(shifted)), all(2.0f)));
}

inline float max_row(const float* x, int64_t n) {
  Vec best = all(-kInfinity);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) best = vmax(load(x + i), best);
  if (i < n) best = vmax(load_part(x + i, n - i, -kInfinity), best);
  return reduce_max(best);
}

float softmax(float* scores, int64_t n) {
  for (int64_t i = n; i % 16 != 0; ++i) scores[i] = -kInfinity;
  const Vec top = all(max_row(scores, n));
  Vec total = all(0.0f);
  for (int64_t i = 0; i < n; i += 16) {
    const Vec e = exp16(sub(load(scores + i), top));
    store(scores + i, e);
    total = add(total, e);
  }
  return reduce_sum(total);
}

void softmax_backward(float* p, float inverse, int64_t n, float* dp) {
  const Vec scale = all(inverse);
  Vec total = all(0.0f);
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t part = n - i < 16 ? n - i : 16;
    const Vec probability = mul(load_part(p + i, part, 0.0f), scale);
    store_part(p + i, part, probability);
    total = fma(probability, load_part(dp + i, part, 0.0f), total);
  }
  const Vec mean = all(reduce_sum(total));
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t part = n - i < 16 ? n - i : 16;
    const Vec deviation = sub(load_part(dp + i, part, 0.0f), mean);
    store_part(dp + i, part, mul(load_part(p + i, part, 0.0f), deviation));
  }
}

void log_sum(const float* x, int64_t n, float* max, float* sum, float* moment) {
  const float best = max_row(x, n);
  const Vec top = all(best);
  Vec total = all(0.0f), weighted = all(0.0f);
  for (int64_t i = 0; i < n; i += 16) {
    const Vec part = i + 16 <= n ? load(x + i) : load_part(x + i, n - i, -kInfinity);
    const Vec difference = sub(part, top);
    const Vec e = exp16(difference);
    total = add(total, e);
    // exp is 0 below -86.5: the bound keeps 0 * -infinity out.
    if (moment) weighted = fma(e, vmax(all(-100.0f), difference), weighted);
  }
  *max = best;
  *sum = reduce_sum(total);
  if (moment) *moment = reduce_sum(weighted);
}

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* y) {
  Vec squares = all(0.0f);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const Vec part = load(x + i);
    squares = fma(part, part, squares);
  }
  if (i < n) {
    const Vec part = load_part(x + i, n - i, 0.0f);
    squares = fma(part, part, squares);
  }
  const float mean = reduce_sum(squares) / static_cast<float>(n);
  const Vec scale = all(1.0f / __builtin_sqrtf(mean + eps));
  for (i = 0; i + 16 <= n; i += 16) store(y + i, mul(mul(load(x + i), scale), load(weight + i)));
  if (i < n) {
    const Vec part = load_part(x + i, n - i, 0.0f), w = load_part(weight + i, n - i, 0.0f);
    store_part(y + i, n - i, mul(mul(part, scale), w));
  }
}

// The squared distance from `mean` of n floats, all lanes added.
inline float squares_about(const float* x, float mean, int64_t n) {
  const Vec centre = all(mean);
  Vec squares = all(0.0f);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const Vec part = sub(load(x + i), centre);
    squares = fma(part, part, squares);
  }
  if (i < n) {
    const Vec part = sub(load_part(x + i, n - i, mean), centre);
    squares = fma(part, part, squares);
  }
  return reduce_sum(squares);
}

void layer_norm(
    const float* x, const float* weight, const float* bias, float eps, int64_t n, float* y) {
  Vec total = all(0.0f);
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) total = add(total, load(x + i));
  if (i < n) total = add(total, load_part(x + i, n - i, 0.0f));
  const float mean = reduce_sum(total) / static_cast<float>(n);
  const float variance = squares_about(x, mean, n) / static_cast<float>(n);
  const Vec centre = all(mean), scale = all(1.0f / __builtin_sqrtf(variance + eps));
  for (i = 0; i < n; i += 16) {
    const int64_t part = n - i < 16 ? n - i : 16;
    const Vec normal = mul(sub(load_part(x + i, part, 0.0f), centre), scale);
    const Vec w = load_part(weight + i, part, 0.0f), b = load_part(bias + i, part, 0.0f);
    store_part(y + i, part, add(mul(normal, w), b));
  }
}

// tanh within 2 units in the last place. Cephes' tanhf: an odd polynomial of degree 11 below 0.625,
// 1 - 2 / (e^2x + 1) above.
inline Vec tanh16(Vec x) {
  const Vec z = mul(x, x), size = vmax(x, sub(all(0.0f), x));
  Vec p = all(-5.70498872745e-3f);
  p = fma(p, z, all(2.06390887954e-2f));
  p = fma(p, z, all(-5.37397155531e-2f));
  p = fma(p, z, all(1.33314422036e-1f));
  p = fma(p, z, all(-3.33332819422e-1f));
  const Vec near = fma(mul(p, z), x, x);
  const Vec one = all(1.0f), two = all(2.0f);
  const Vec far = sub(one, div(two, add(exp16(mul(two, x)), one)));
  // Each is 0 where the other is wanted. The first float above -0.625 makes the two bounds meet.
  return add(zero_below(size, all(0.625f), far),
             zero_below(sub(all(0.0f), size), all(-0.62499994f), near));
}

inline Vec gelu16(Vec x) {
  const Vec cube = mul(mul(x, x), x);
  const Vec inner = mul(all(0.7978845608f), fma(all(0.044715f), cube, x));
  return mul(mul(all(0.5f), x), add(all(1.0f), tanh16(inner)));
}

void gelu(const float* x, const float* up, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t part = n - i < 16 ? n - i : 16;
    const Vec activated = gelu16(load_part(x + i, part, 0.0f));
    store_part(y + i, part, up ? mul(activated, load_part(up + i, part, 0.0f)) : activated);
  }
}

void softcap(const float* x, float cap, int64_t n, float* y) {
  const Vec scale = all(cap);
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t part = n - i < 16 ? n - i : 16;
    store_part(y + i, part, mul(scale, tanh16(div(load_part(x + i, part, 0.0f), scale))));
  }
}

inline Vec silu_times(Vec gate, Vec up) {
  const Vec one = all(1.0f);
  const Vec sigmoid = div(one, add(one, exp16(sub(all(0.0f), gate))));
  return mul(mul(gate, sigmoid), up);
}

void swiglu(const float* gate, const float* up, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(y + i, silu_times(load(gate + i), load(up + i)));
  if (i < n) {
    const Vec g = load_part(gate + i, n - i, 0.0f), u = load_part(up + i, n - i, 0.0f);
    store_part(y + i, n - i, silu_times(g, u));
  }
}

void rope(const float* x, const float* cos, const float* sin, int64_t half, float* y) {
  for (int64_t i = 0; i < half; i += 16) {
    const int64_t n = half - i < 16 ? half - i : 16;
    const Vec a = load_part(x + i, n, 0.0f), b = load_part(x + half + i, n, 0.0f);
    const Vec c = load_part(cos + i, n, 0.0f), s = load_part(sin + i, n, 0.0f);
    store_part(y + i, n, sub(mul(a, c), mul(b, s)));
    store_part(y + half + i, n, add(mul(b, c), mul(a, s)));
  }
}

// With s = 1 / sqrt(mean(x^2) + eps), n = x s and g the gradient: dx = s (w g - n mean(w g n)),
// dw = g n.
void rms_norm_backward(const float* grad,
                       const float* x,
                       const float* weight,
                       float eps,
                       int64_t n,
                       float* to_x,
                       float* to_weight) {
  Vec squares = all(0.0f), products = all(0.0f);
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t part = n - i < 16 ? n - i : 16;
    const Vec in = load_part(x + i, part, 0.0f), w = load_part(weight + i, part, 0.0f);
    squares = fma(in, in, squares);
    products = fma(mul(load_part(grad + i, part, 0.0f), w), in, products);
  }
  const float count = static_cast<float>(n);
  const float inverse = 1.0f / __builtin_sqrtf(reduce_sum(squares) / count + eps);
  const Vec scale = all(inverse), mean = all(reduce_sum(products) * inverse / count);
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t part = n - i < 16 ? n - i : 16;
    const Vec g = load_part(grad + i, part, 0.0f), w = load_part(weight + i, part, 0.0f);
    const Vec normal = mul(load_part(x + i, part, 0.0f), scale);
    store_part(to_x + i, part, mul(scale, sub(mul(g, w), mul(normal, mean))));
    if (to_weight)
      store_part(to_weight + i, part, fma(g, normal, load_part(to_weight + i, part, 0.0f)));
  }
}

void swiglu_backward(const float* grad,
                     const float* gate,
                     const float* up,
                     int64_t n,
                     float* to_gate,
                     float* to_up) {
  const Vec one = all(1.0f);
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t part = n - i < 16 ? n - i : 16;
    const Vec g = load_part(gate + i, part, 0.0f), y = load_part(grad + i, part, 0.0f);
    const Vec u = load_part(up + i, part, 0.0f);
    const Vec sigmoid = div(one, add(one, exp16(sub(all(0.0f), g))));
    const Vec slope = mul(sigmoid, fma(g, sub(one, sigmoid), one));
    store_part(to_gate + i, part, mul(mul(y, u), slope));
    store_part(to_up + i, part, mul(y, mul(g, sigmoid)));
  }
}

// With u = sqrt(2 / pi) (x + 0.044715 x^3) and t = tanh(u): gelu = x (1 + t) / 2,
// gelu' = (1 + t) / 2 + x (1 - t^2) u' / 2.
void gelu_backward(
    const float* grad, const float* x, const float* up, int64_t n, float* to_x, float* to_up) {
  const Vec one = all(1.0f), root = all(0.7978845608f), cubic = all(0.044715f);
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t part = n - i < 16 ? n - i : 16;
    const Vec in = load_part(x + i, part, 0.0f), y = load_part(grad + i, part, 0.0f);
    const Vec square = mul(in, in);
    const Vec t = tanh16(mul(root, mul(in, fma(cubic, square, one))));
    const Vec half = mul(all(0.5f), add(one, t));
    const Vec rise = mul(root, fma(mul(all(3.0f), cubic), square, one));
    const Vec slope = fma(mul(all(0.5f), mul(in, fma(sub(all(0.0f), t), t, one))), rise, half);
    const Vec through = mul(y, slope);
    store_part(to_x + i, part, up ? mul(through, load_part(up + i, part, 0.0f)) : through);
    if (up) store_part(to_up + i, part, mul(y, mul(in, half)));
  }
}

}  // namespace
}  // namespace praetor::ops::kernels
