#include "core/model/rope.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/base/error.h"

namespace praetor {

namespace {

constexpr double kTwoPi = 2.0 * std::numbers::pi;

/// Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended.
void scale_llama3(const RopeConfig& rope, double original, std::vector<float>& inverse) {
  const auto factor = static_cast<float>(rope.factor);
  const auto low_wavelength = static_cast<float>(original / rope.low_freq_factor);
  const auto high_wavelength = static_cast<float>(original / rope.high_freq_factor);
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto range = static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  for (float& value : inverse) {
    const float wavelength = static_cast<float>(kTwoPi) / value;
    if (wavelength > low_wavelength) {
      value /= factor;
    } else if (wavelength >= high_wavelength) {
      const float smooth = (static_cast<float>(original) / wavelength - low) / range;
      value = (1.0f - smooth) * value / factor + smooth * value;
    }
  }
}

/// YaRN: a ramp over the dimensions from extrapolation (fast ones) to interpolation (slow ones).
void scale_yarn(const RopeConfig& rope, double original, int64_t dim, std::vector<float>& inverse) {
  const auto dimension_of = [&](double rotations) {
    return static_cast<double>(dim) * std::log(original / (rotations * kTwoPi)) /
           (2.0 * std::log(rope.theta));
  };
  double low = dimension_of(rope.beta_fast);
  double high = dimension_of(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < inverse.size(); ++i) {
    const float ramp = std::clamp(
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low),
        0.0f,
        1.0f);
    const float keep = 1.0f - ramp;
    inverse[i] = inverse[i] / static_cast<float>(rope.factor) * (1.0f - keep) + inverse[i] * keep;
  }
}

template <typename Scalar>
void fill(const std::vector<float>& inverse, double scale, at::Tensor cos, at::Tensor sin) {
  Scalar* c = cos.mutable_data_ptr<Scalar>();
  Scalar* s = sin.mutable_data_ptr<Scalar>();
  for (int64_t position = 0; position < cos.size(0); ++position) {
    for (const float frequency : inverse) {
      const float angle =
          static_cast<float>(position) * frequency;  // float32, as transformers does
      *c++ = static_cast<Scalar>(std::cos(static_cast<double>(angle)) * scale);
      *s++ = static_cast<Scalar>(std::sin(static_cast<double>(angle)) * scale);
    }
  }
}

}  // namespace

int64_t rotated_dims(const ModelConfig& config, const RopeConfig& rope) {
  return static_cast<int64_t>(static_cast<double>(config.head_dim) * rope.partial);
}

std::vector<float> inverse_frequencies(const ModelConfig& config,
                                       const RopeConfig& rope,
                                       bool long_factors) {
  const int64_t dim = rotated_dims(config, rope);
  std::vector<float> powers, inverse;
  for (int64_t i = 0; i < dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(dim);
    powers.push_back(static_cast<float>(std::pow(rope.theta, static_cast<double>(exponent))));
    inverse.push_back(1.0f / powers.back());
  }
  const auto original = static_cast<double>(
      rope.original_max_positions > 0 ? rope.original_max_positions : config.max_positions);
  if (rope.scaling == "linear") {
    for (float& value : inverse) value /= static_cast<float>(rope.factor);
  } else if (rope.scaling == "llama3") {
    scale_llama3(rope, original, inverse);
  } else if (rope.scaling == "yarn") {
    scale_yarn(rope, original, dim, inverse);
  } else if (rope.scaling == "longrope") {
    const auto& factors = long_factors ? rope.long_factor : rope.short_factor;
    if (factors.size() != inverse.size()) {
      throw InvalidArgument("model: longrope has ",
                            factors.size(),
                            " factors, ",
                            inverse.size(),
                            " pairs of dimensions are rotated");
    }
    for (size_t i = 0; i < inverse.size(); ++i)
      inverse[i] = 1.0f / (static_cast<float>(factors[i]) * powers[i]);
  } else if (rope.scaling != "default" && rope.scaling != "dynamic") {
    throw InvalidArgument("model: rope scaling \"",
                          rope.scaling,
                          "\" is not one of default, linear, dynamic, llama3, yarn, longrope");
  }
  return inverse;
}

RopeTables rope_tables(const ModelConfig& config, const RopeConfig& rope, at::ScalarType dtype) {
  const bool longrope = rope.scaling == "longrope";
  const at::ScalarType computed = dtype == at::kDouble ? at::kDouble : at::kFloat;
  RopeTables out;
  if (longrope) out.short_rows = std::min(rope.original_max_positions, config.max_positions);
  const std::vector<int64_t> shape = {out.short_rows + config.max_positions,
                                      rotated_dims(config, rope) / 2};
  out.cos = at::empty(shape, at::dtype(computed));
  out.sin = at::empty(shape, at::dtype(computed));
  const double scale = longrope || rope.scaling == "yarn" ? rope.attention_factor : 1.0;
  const auto fill_rows = [&](bool long_factors, int64_t begin, int64_t rows) {
    const std::vector<float> inverse = inverse_frequencies(config, rope, long_factors);
    const auto part = [&](const at::Tensor& x) { return x.narrow(0, begin, rows); };
    if (computed == at::kDouble) {
      fill<double>(inverse, scale, part(out.cos), part(out.sin));
    } else {
      fill<float>(inverse, scale, part(out.cos), part(out.sin));
    }
  };
  if (longrope) fill_rows(false, 0, out.short_rows);
  fill_rows(longrope, out.short_rows, config.max_positions);
  out.cos = out.cos.to(dtype);
  out.sin = out.sin.to(dtype);
  return out;
}

}  // namespace praetor
