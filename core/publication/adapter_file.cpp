#include "core/publication/adapter_file.h"

#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/base/error.h"
#include "core/base/str.h"
#include "core/base/text.h"
#include "core/publication/weight_format.h"

namespace praetor {

namespace fs = std::filesystem;
namespace format = weight_format;

namespace {

constexpr std::string_view kA = ".lora_A.weight";
constexpr std::string_view kB = ".lora_B.weight";

std::string json_of(const LoraConfig& config) {
  return nlohmann::json{{"rank", config.rank},
                        {"alpha", config.alpha},
                        {"rslora", config.rslora},
                        {"targets", config.targets}}
      .dump();
}

LoraConfig config_of(const format::Metadata& in, const std::string& text) {
  try {
    const auto json = nlohmann::json::parse(text);
    return {.rank = json.at("rank").get<int64_t>(),
            .alpha = json.at("alpha").get<double>(),
            .rslora = json.at("rslora").get<bool>(),
            .targets = json.at("targets").get<std::vector<std::string>>()};
  } catch (const nlohmann::json::exception& error) {
    in.fail("metadata \"adapter\": ", error.what());
  }
}

format::Contents contents_of(const std::string& adapter, const AdapterBase& base) {
  return {.kind = format::kAdapterVersionKey,
          .what = "base and adapter",
          .metadata = {{"adapter", adapter},
                       {"base", base.digest},
                       {"base_bytes", std::to_string(base.bytes)},
                       {"base_file", base.file}},
          .digested = str("base ", base.digest, '\n', adapter),
          .sealed = str(' ', base.bytes, ' ', base.file)};
}

}  // namespace

WrittenWeights write_adapter_file(const fs::path& folder,
                                  const WeightStamp& stamp,
                                  const LoraAdapter& adapter,
                                  const AdapterBase& base,
                                  const WeightWriteOptions& options) {
  if (base.digest.empty()) throw InvalidArgument("an adapter's base has no digest");
  const std::vector<NamedTensor> tensors = adapter.parameters();
  WeightFileWriter out(
      folder, stamp, tensors, contents_of(json_of(adapter.config()), base), options);
  out.put(tensors);
  return out.commit();
}

AdapterFile AdapterFile::open(const fs::path& file, std::string_view digest) {
  AdapterFile out{SafetensorsFile(file)};
  format::Metadata in(out.tensors_);
  in.take_version(format::kAdapterVersionKey, "adapters");
  const std::string adapter = in.take("adapter");
  out.base_.digest = in.take("base");
  out.base_.bytes = in.number<int64_t>("base_bytes");
  out.base_.file = in.take("base_file");
  const Facts facts = out.read_head(in, contents_of(adapter, out.base_), digest);
  out.config_ = config_of(in, adapter);
  if (facts.empty()) in.fail("holds no tensors");
  const at::ScalarType dtype = facts.begin()->second.dtype;
  for (const auto& [name, fact] : facts) {
    const bool is_a = name.ends_with(kA);
    if (!is_a && !name.ends_with(kB))
      in.fail("tensor \"", printable(name), "\" is neither A nor B of a layer");
    const std::string other =
        str(std::string_view(name).substr(0, name.size() - kA.size()), is_a ? kB : kA);
    if (!facts.contains(other)) in.fail("lacks tensor \"", printable(other), '"');
    if (fact.dtype != dtype || !at::isFloatingType(dtype)) {
      in.fail("tensor \"",
              printable(name),
              "\" is ",
              safetensors_dtype(fact.dtype),
              "; all must be of one floating-point dtype");
    }
  }
  return out;
}

LoraAdapter AdapterFile::adapter(const WeightFile& base, int threads) const {
  if (base.digest() != base_.digest) {
    throw DataError(path().string(),
                    ": is an adapter beside the weights with digest ",
                    base_.digest,
                    " (",
                    printable(base_.file),
                    "), not beside those of ",
                    base.path().string(),
                    " with digest ",
                    base.digest(),
                    "; start the learners again, which publish both anew");
  }
  verify(threads);
  std::vector<LoraAdapter::Module> modules;
  for (const std::string& name : tensors_.names()) {
    if (!name.ends_with(kA)) continue;
    const std::string layer = name.substr(0, name.size() - kA.size());
    modules.push_back({layer, tensors_.tensor(name), tensors_.tensor(str(layer, kB))});
  }
  try {
    return LoraAdapter(base.config(), config_, std::move(modules));
  } catch (const InvalidArgument& failure) {
    throw DataError(path().string(), ": ", failure.what());
  }
}

AnyPublished open_published(const fs::path& file, std::string_view digest) {
  if (SafetensorsFile(file).metadata().contains(format::kAdapterVersionKey))
    return AdapterFile::open(file, digest);
  return WeightFile::open(file, digest);
}

}  // namespace praetor
