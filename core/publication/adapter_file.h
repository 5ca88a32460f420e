#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "core/model/lora.h"
#include "core/publication/weight_file.h"

namespace praetor {

/// The whole weights that a published adapter is beside.
struct AdapterBase {
  std::string digest;
  int64_t bytes = 0;  ///< of their file
  std::string file;   ///< its name, without a folder
};

/// Writes A and B of a policy's adapter alone, as one safetensors file named and made as
/// write_weight_file does. Its metadata has in place of `praetor.weights` and `config`
///
///   praetor.adapter           version of this format, "1"
///   adapter                   JSON: rank, alpha, rslora, targets
///   base                      digest of the whole weights that it is beside
///   base_bytes, base_file     size and name of their file
///
/// The digest is over the tensors as in a file of weights, then `base` and `adapter`: policies of
/// one base and equal adapters are equal. The seal covers the rest.
/// @throws InvalidArgument for a base without digest, or a stamp below 0; IoError
WrittenWeights write_adapter_file(const std::filesystem::path& folder,
                                  const WeightStamp& stamp,
                                  const LoraAdapter& adapter,
                                  const AdapterBase& base,
                                  const WeightWriteOptions& options = {});

/// A published adapter, mapped.
class AdapterFile final : public PublishedFile {
 public:
  /// Checks all that the header says. `digest`: the one that is wanted; empty: any.
  /// @throws MissingInput, IoError; DataError naming the file and what is wrong with it
  static AdapterFile open(const std::filesystem::path& file, std::string_view digest = {});

  const AdapterBase& base() const { return base_; }
  /// Without dropout, which is nothing to whoever generates.
  const LoraConfig& config() const { return config_; }

  /// The adapter, verified, of tensors that keep the mapping alive: for merges into `base`.
  /// @throws DataError when it was made beside other weights, or does not fit these
  LoraAdapter adapter(const WeightFile& base, int threads = 0) const;

 private:
  explicit AdapterFile(SafetensorsFile tensors) : PublishedFile(std::move(tensors)) {}

  AdapterBase base_;
  LoraConfig config_;
};

using AnyPublished = std::variant<WeightFile, AdapterFile>;
/// A file of either kind, by what its header says. @throws as their open
AnyPublished open_published(const std::filesystem::path& file, std::string_view digest = {});

}  // namespace praetor
