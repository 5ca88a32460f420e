#include "core/publication/weight_file.h"

#include <c10/core/GradMode.h>

#include <set>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/model/config_text.h"
#include "core/model/families.h"
#include "core/model/lora.h"
#include "core/model/narrow_model.h"
#include "core/model/transformer.h"
#include "core/model/transformer_builder.h"
#include "core/publication/weight_format.h"

namespace praetor {

namespace fs = std::filesystem;
namespace format = weight_format;

namespace {

/// The tensors that a config asks for, in the model's order.
std::vector<ParameterSpec> layout_of(const format::Metadata& in, const ModelConfig& config) {
  if (config.num_labels > 0) in.fail("config: a causal language model is wanted");
  try {
    return parameter_layout(config);
  } catch (const InvalidArgument& failure) {
    in.fail("config: ", failure.what());
  }
}

}  // namespace

WeightFile WeightFile::open(const fs::path& file, std::string_view digest) {
  WeightFile out{SafetensorsFile(file)};
  const SafetensorsFile& tensors = out.tensors_;
  format::Metadata in(tensors);
  in.take_version(format::kVersionKey, "weights");
  const std::string config = in.take("config");
  const Facts facts = out.read_head(in, format::contents_of_weights(config), digest);

  out.config_ = parse_model_config(config, file.string() + ": config");
  const std::vector<ParameterSpec> wanted = layout_of(in, out.config_);
  for (const ParameterSpec& spec : wanted) {
    const auto there = facts.find(spec.name);
    if (there == facts.end()) in.fail("lacks tensor \"", spec.name, "\", which its config wants");
    if (there->second.shape != spec.shape) {
      in.fail("tensor \"",
              spec.name,
              "\" is ",
              format::shape_text(there->second.shape),
              ", its config wants ",
              format::shape_text(spec.shape));
    }
    if (spec.name == wanted.front().name) out.dtype_ = there->second.dtype;
    if (there->second.dtype != out.dtype_ || !at::isFloatingType(out.dtype_)) {
      in.fail("tensor \"",
              spec.name,
              "\" is ",
              safetensors_dtype(there->second.dtype),
              "; all must be of one floating-point dtype");
    }
  }
  if (facts.size() != wanted.size()) {
    std::set<std::string> known;
    for (const ParameterSpec& spec : wanted) known.insert(spec.name);
    for (const auto& [name, unused] : facts) {
      if (!known.count(name))
        in.fail("tensor \"", printable(name), "\" is not one that its config wants");
    }
  }
  return out;
}

void WeightFile::check_fits(const Transformer& model) const {
  const std::vector<NamedTensor>& parameters = model.parameters();
  if (parameters.size() != tensor_count()) {
    throw DataError(path().string(),
                    ": has ",
                    tensor_count(),
                    " tensors, the model to take them has ",
                    parameters.size());
  }
  for (const NamedTensor& named : parameters) {
    if (!tensors_.contains(named.name)) {
      throw DataError(
          path().string(), ": lacks tensor \"", named.name, "\" of the model to take it");
    }
    const auto& shape = tensors_.shape(named.name);
    const at::ScalarType dtype = tensors_.dtype(named.name);
    if (named.tensor.sizes() != at::IntArrayRef(shape) || named.tensor.scalar_type() != dtype) {
      throw DataError(path().string(),
                      ": tensor \"",
                      named.name,
                      "\" is ",
                      safetensors_dtype(dtype),
                      " ",
                      format::shape_text(shape),
                      ", the model to take it has ",
                      safetensors_dtype(named.tensor.scalar_type()),
                      " ",
                      format::shape_text(named.tensor.sizes()));
    }
  }
}

void WeightFile::apply(Transformer& model, int threads) const {
  check_fits(model);
  verify(threads);
  const c10::NoGradGuard no_grad;
  for (const NamedTensor& named : model.parameters())
    named.tensor.copy_(tensors_.tensor(named.name));  // moves the version counter
}

void WeightFile::renew(Transformer& model, int threads) const {
  check_fits(model);
  verify(threads, /*release=*/true);
  for (const NamedTensor& named : model.parameters()) {
    renew_narrowed(named, tensors_.tensor(named.name));
    tensors_.release(named.name);
  }
}

void WeightFile::merge(
    const LoraAdapter& adapter,
    const Transformer& model,
    const std::function<void(const NamedTensor&, const at::Tensor&)>& put) const {
  for (const NamedTensor& named : model.parameters()) {
    const NamedTensor base{named.name, tensors_.tensor(named.name)};
    const at::Tensor merged = adapter.merged_weight(base);
    if (!merged.is_same(base.tensor)) put(named, merged);
    tensors_.release(named.name);
  }
}

void WeightFile::apply(const LoraAdapter& adapter, Transformer& model, int threads) const {
  check_fits(model);
  verify(threads);
  const c10::NoGradGuard no_grad;
  merge(adapter, model, [](const NamedTensor& named, const at::Tensor& merged) {
    named.tensor.copy_(merged);
  });
}

void WeightFile::renew(const LoraAdapter& adapter, Transformer& model, int threads) const {
  check_fits(model);
  verify(threads, /*release=*/true);
  merge(adapter, model, renew_narrowed);
}

Transformer WeightFile::make_narrow_model(WeightKind kind, int threads) const {
  if (dtype_ != at::kFloat) {
    throw InvalidArgument(path().string(),
                          ": weights of kind ",
                          to_string(kind),
                          " are made of float32 ones, not of ",
                          safetensors_dtype(dtype_));
  }
  verify(threads, /*release=*/true);
  std::vector<NamedTensor> kept;
  for (const ParameterSpec& spec : parameter_layout(config_)) {
    kept.push_back({spec.name, narrowed(spec.name, tensors_.tensor(spec.name), kind)});
    tensors_.release(spec.name);
  }
  return TransformerBuilder::assemble(config_, std::move(kept));
}

Transformer WeightFile::make_model(int threads) const {
  verify(threads);
  std::vector<NamedTensor> copies;
  for (const ParameterSpec& spec : parameter_layout(config_))
    copies.push_back({spec.name, tensors_.tensor(spec.name).clone()});
  return TransformerBuilder::assemble(config_, std::move(copies));
}

}  // namespace praetor
