#include "core/model/attribute_gate.h"

#include <ATen/ATen.h>

#include <cmath>
#include <map>

#include "core/base/error.h"
#include "core/model/ops.h"
#include "core/model/safetensors.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFile = "praetor_gate.safetensors";
constexpr double kTemperature = 10.0;

}  // namespace

AttributeGate AttributeGate::make(int64_t hidden_size,
                                  int64_t attributes,
                                  int64_t layers,
                                  int64_t width,
                                  RandomStream stream,
                                  at::ScalarType dtype) {
  if (hidden_size < 1 || attributes < 1 || layers < 0 || (layers > 0 && width < 1)) {
    throw InvalidArgument("gate: ",
                          layers,
                          " layers of ",
                          width,
                          " from ",
                          hidden_size,
                          " to ",
                          attributes,
                          " attributes");
  }
  AttributeGate out;
  int64_t in = hidden_size;
  for (int64_t i = 0; i <= layers; ++i) {
    const int64_t size = i < layers ? width : attributes;
    const double bound = 1.0 / std::sqrt(static_cast<double>(in));
    at::Tensor weight = at::empty({size, in}, at::kDouble);
    double* values = weight.mutable_data_ptr<double>();
    for (int64_t k = 0; k < weight.numel(); ++k) values[k] = (2 * stream.uniform() - 1) * bound;
    out.weights.push_back(weight.to(dtype));
    out.biases.push_back(at::zeros({size}, dtype));
    in = size;
  }
  out.scale = at::ones({1}, dtype);
  out.correction = at::zeros({attributes}, dtype);
  return out;
}

at::Tensor AttributeGate::operator()(const at::Tensor& hidden) const {
  at::Tensor x = hidden;
  for (size_t i = 0; i < weights.size(); ++i) {
    x = ops::linear(x, weights[i], biases[i]);
    if (i + 1 < weights.size()) x = x.relu();
  }
  return (x / kTemperature).softmax(-1) * scale;
}

AttributeGate AttributeGate::moved(at::Device device) const {
  AttributeGate out = *this;
  const auto move = [&](at::Tensor& t) { t = t.detach().to(device); };
  for (at::Tensor& weight : out.weights) move(weight);
  for (at::Tensor& bias : out.biases) move(bias);
  move(out.scale);
  move(out.correction);
  return out;
}

at::Tensor AttributeGate::corrected(const at::Tensor& values) const {
  if (verbosity < 0) return values;
  return values - values.slice(1, verbosity, verbosity + 1) * correction;
}

std::vector<NamedTensor> AttributeGate::parameters() const {
  std::vector<NamedTensor> out;
  for (size_t i = 0; i < weights.size(); ++i) {
    out.push_back({str("layers.", i, ".weight"), weights[i]});
    out.push_back({str("layers.", i, ".bias"), biases[i]});
  }
  out.push_back({"scale", scale});
  return out;
}

bool AttributeGate::in(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / kFile, ignored);
}

void AttributeGate::save(const fs::path& folder) const {
  std::vector<NamedTensor> tensors = parameters();
  for (NamedTensor& one : tensors) one.tensor = one.tensor.detach().contiguous();
  tensors.push_back({"correction", correction});
  write_safetensors(folder / kFile, tensors, {{"verbosity", std::to_string(verbosity)}});
}

AttributeGate AttributeGate::load(const fs::path& folder, int64_t hidden_size, int64_t attributes) {
  const fs::path path = folder / kFile;
  const SafetensorsFile file(path);
  const auto take = [&](const std::string& name, const std::vector<int64_t>& shape) {
    if (!file.contains(name)) throw DataError(path.string(), ": missing ", name);
    at::Tensor out = file.tensor(name).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    if (out.sizes() != at::IntArrayRef(shape)) {
      throw DataError(
          path.string(), ": ", name, " is ", out.sizes(), ", not ", at::IntArrayRef(shape));
    }
    return out;
  };
  AttributeGate out;
  int64_t in = hidden_size;
  for (int64_t i = 0; file.contains(str("layers.", i, ".bias")); ++i) {
    const bool last = !file.contains(str("layers.", i + 1, ".bias"));
    const int64_t size = last ? attributes : file.tensor(str("layers.", i, ".bias")).numel();
    out.weights.push_back(take(str("layers.", i, ".weight"), {size, in}));
    out.biases.push_back(take(str("layers.", i, ".bias"), {size}));
    in = size;
  }
  if (out.weights.empty()) throw DataError(path.string(), ": missing layers.0.bias");
  out.scale = take("scale", {1});
  out.correction = take("correction", {attributes});
  const auto said = file.metadata().find("verbosity");
  if (said == file.metadata().end())
    throw DataError(path.string(), ": the metadata has no \"verbosity\"");
  out.verbosity = std::atoll(said->second.c_str());
  if (out.verbosity < -1 || out.verbosity >= attributes) {
    throw DataError(path.string(), ": verbosity is attribute ", said->second, " of ", attributes);
  }
  return out;
}

at::Tensor verbosity_correction(const at::Tensor& values, int64_t verbosity) {
  const at::Tensor centred = values.to(at::kDouble) - values.to(at::kDouble).mean(0, true);
  const at::Tensor v = centred.slice(1, verbosity, verbosity + 1);
  const at::Tensor variance = v.square().mean();
  if (!(variance.item<double>() > 0)) return at::zeros({values.size(1)}, values.options());
  return ((centred * v).mean(0) / variance).to(values.scalar_type());
}

}  // namespace praetor
