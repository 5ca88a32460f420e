#include "core/publication/weight_file.h"

#include <c10/core/GradMode.h>

#include <charconv>
#include <set>
#include <span>

#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/base/text.h"
#include "core/model/config_text.h"
#include "core/model/families.h"
#include "core/model/narrow_model.h"
#include "core/model/transformer.h"
#include "core/model/transformer_builder.h"
#include "core/publication/weight_format.h"

namespace praetor {

namespace fs = std::filesystem;
namespace format = weight_format;

namespace {

std::string shape_text(at::IntArrayRef shape) {
  std::string out;
  for (const int64_t size : shape) out += (out.empty() ? "[" : ", ") + std::to_string(size);
  return out.empty() ? "[]" : out + ']';
}

bool is_hash(const std::string& text) {
  return text.size() == format::kHashDigits &&
         text.find_first_not_of("0123456789abcdef") == text.npos;
}

/// The metadata of a file; every key is taken once.
class Metadata {
 public:
  explicit Metadata(const SafetensorsFile& file) : path_(file.path()), rest_(file.metadata()) {}

  std::string take(const std::string& key) {
    const auto found = rest_.find(key);
    if (found == rest_.end()) fail("has no metadata \"", printable(key), "\"");
    std::string out = std::move(found->second);
    rest_.erase(found);
    return out;
  }
  template <typename Number>
  Number number(const std::string& key) {
    const std::string text = take(key);
    Number out = 0;
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), out);
    if (failure != std::errc() || end != text.data() + text.size() || text[0] == '-')
      fail("metadata \"", key, "\": \"", printable(text), "\" is not a whole number from 0 up");
    return out;
  }
  void done() const {
    if (!rest_.empty())
      fail("metadata \"", printable(rest_.begin()->first), "\" is not of this format");
  }
  template <typename... Args>
  [[noreturn]] void fail(const Args&... args) const {
    throw DataError(path_.string(), ": ", args...);
  }

 private:
  const fs::path& path_;
  std::map<std::string, std::string> rest_;
};

/// The tensors that a config asks for, in the model's order.
std::vector<ParameterSpec> layout_of(const Metadata& in, const ModelConfig& config) {
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
  Metadata in(tensors);
  if (!tensors.metadata().contains(format::kVersionKey))
    in.fail("is not a file of published weights: has no metadata \"", format::kVersionKey, "\"");
  const std::string version = in.take(format::kVersionKey);
  if (version != format::kVersion) {
    in.fail("format version \"",
            printable(version),
            "\" of published weights; this program reads version ",
            format::kVersion);
  }
  out.stamp_ = {
      in.number<uint32_t>("stage"), in.number<int64_t>("lineage"), in.number<int64_t>("step")};
  out.digest_ = in.take("digest");
  const std::string config = in.take("config");
  const std::string seal = in.take("seal");

  std::map<std::string, format::TensorFacts> facts;
  for (const std::string& name : tensors.names()) {
    std::string hash = in.take(std::string(format::kHashPrefix) + name);
    if (!is_hash(hash)) {
      in.fail("tensor \"", printable(name), "\": \"", printable(hash), "\" is not a SHA-256");
    }
    facts[name] = {tensors.dtype(name), tensors.shape(name), hash};
    out.hashes_[name] = std::move(hash);
    out.tensor_bytes_ += static_cast<int64_t>(tensors.tensor(name).nbytes());
  }
  in.done();
  const std::string found = format::digest_of(facts, config);
  if (found != out.digest_) {
    in.fail("the header was changed: its tensors and config have digest ",
            found,
            ", it says ",
            printable(out.digest_));
  }
  if (seal != format::seal_of(out.stamp_, out.digest_)) {
    in.fail("the header was changed: stage ",
            out.stamp_.stage,
            ", lineage ",
            out.stamp_.lineage,
            ", step ",
            out.stamp_.step,
            " and digest do not match their seal");
  }
  if (!digest.empty() && digest != out.digest_) {
    in.fail("holds the weights with digest ", out.digest_, ", those with ", digest, " are wanted");
  }

  out.config_ = parse_model_config(config, file.string() + ": config");
  const std::vector<ParameterSpec> wanted = layout_of(in, out.config_);
  for (const ParameterSpec& spec : wanted) {
    const auto there = facts.find(spec.name);
    if (there == facts.end()) in.fail("lacks tensor \"", spec.name, "\", which its config wants");
    if (there->second.shape != spec.shape) {
      in.fail("tensor \"",
              spec.name,
              "\" is ",
              shape_text(there->second.shape),
              ", its config wants ",
              shape_text(spec.shape));
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

void WeightFile::verify(int threads) const {
  verify(threads, /*release=*/false);
}

// `release`: what was hashed does not stay mapped in.
void WeightFile::verify(int threads, bool release) const {
  if (verified_->load()) return;
  const std::vector<std::string>& names = tensors_.names();
  std::vector<uint64_t> sizes;
  sizes.reserve(names.size());
  for (const std::string& name : names) sizes.push_back(tensors_.tensor(name).nbytes());
  const std::vector<size_t> order = format::largest_first(sizes);
  format::run_parallel(threads, order.size(), [&](size_t i) {
    const std::string& name = names[order[i]];
    const at::Tensor tensor = tensors_.tensor(name);
    const std::string found = sha256_hex(
        std::span(static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()));
    check_hash(name, found);
    if (release) tensors_.release(name);
  });
  verified_->store(true);
}

void WeightFile::check_hash(const std::string& name, const std::string& found) const {
  const std::string& wanted = hashes_.at(name);
  if (found == wanted) return;
  throw DataError(path().string(),
                  ": tensor \"",
                  name,
                  "\": its bytes have SHA-256 ",
                  found,
                  ", the header says ",
                  wanted);
}

std::vector<WeightFile::Extent> WeightFile::extents() const {
  std::vector<Extent> out;
  for (const std::string& name : tensors_.names()) {
    const auto [begin, end] = tensors_.range(name);
    out.push_back({name, begin, end});
  }
  return out;
}

void WeightFile::verify_with(const std::map<std::string, std::string>& found) const {
  for (const auto& [name, unused] : hashes_) {
    const auto hash = found.find(name);
    PRAETOR_CHECK(hash != found.end(), "weights: tensor ", name, " was not hashed");
    check_hash(name, hash->second);
  }
  verified_->store(true);
}

void WeightFile::check_fits(const Transformer& model) const {
  const std::vector<NamedTensor>& parameters = model.parameters();
  if (parameters.size() != hashes_.size()) {
    throw DataError(path().string(),
                    ": has ",
                    hashes_.size(),
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
                      shape_text(shape),
                      ", the model to take it has ",
                      safetensors_dtype(named.tensor.scalar_type()),
                      " ",
                      shape_text(named.tensor.sizes()));
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
