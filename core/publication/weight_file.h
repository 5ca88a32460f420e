#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "core/model/model_config.h"
#include "core/model/named_tensor.h"
#include "core/model/weight_kind.h"
#include "core/publication/published_file.h"

namespace praetor {

class LoraAdapter;
class Transformer;

/// Writes a policy's weights as one safetensors file
/// `FOLDER/stage-0-lineage-0-step-000012-0123456789abcdef.safetensors`, the last part being the
/// first digits of the digest. The file gets this name by a rename once it is whole. Its metadata:
///
///   praetor.weights           version of this format, "1"
///   stage, lineage, step
///   config                    config.json of the model (its dtype is not meant: the tensors' is)
///   sha256:NAME               of the bytes of tensor NAME
///   digest                    SHA-256 over name, dtype, shape and hash of every tensor, by name,
///                             and over config: the same weights have the same digest
///   seal                      SHA-256 over stage, lineage, step and digest
///
/// The weights must not change meanwhile: publish from a copy when training goes on. One writer a
/// folder at a time; readers need no care. A core of a Xeon with SHA instructions writes and hashes
/// 1.0 GB/s to a tmpfs, verifies 1.4 GB/s and applies 6.5 GB/s.
/// @throws InvalidArgument for a model without a language head; IoError
WrittenWeights write_weight_file(const std::filesystem::path& folder,
                                 const WeightStamp& stamp,
                                 const Transformer& model,
                                 const WeightWriteOptions& options = {});

/// The same file made of tensors that come in groups, so that the model need not be in memory as a
/// whole. Not committed: nothing is left.
class WeightFileWriter {
 public:
  /// @param model  its parameters' names, dtypes and shapes count, their values are not looked at
  /// @throws as write_weight_file
  WeightFileWriter(const std::filesystem::path& folder,
                   const WeightStamp& stamp,
                   const Transformer& model,
                   const WeightWriteOptions& options = {});
  /// Of other tensors and another kind of header; for this folder's sources.
  WeightFileWriter(const std::filesystem::path& folder,
                   const WeightStamp& stamp,
                   std::vector<NamedTensor> forms,
                   const weight_format::Contents& contents,
                   const WeightWriteOptions& options);
  ~WeightFileWriter();
  WeightFileWriter(const WeightFileWriter&) = delete;
  WeightFileWriter& operator=(const WeightFileWriter&) = delete;

  /// @throws InternalError for one that is not the model's, or comes twice; IoError
  void put(std::span<const NamedTensor> tensors);
  /// @throws InternalError when one has not come; IoError
  WrittenWeights commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A published file of whole weights, mapped.
class WeightFile final : public PublishedFile {
 public:
  /// Checks all that the header says: sizes, the hashes' digest, the seal, that the tensors are
  /// those of the config. `digest`: the one that is wanted; empty: any.
  /// @throws MissingInput, IoError; DataError naming the file and what is wrong with it
  static WeightFile open(const std::filesystem::path& file, std::string_view digest = {});

  const ModelConfig& config() const { return config_; }
  at::ScalarType dtype() const { return dtype_; }

  /// Copies every tensor into `model` in place, so that its storage and whoever refers to it stay
  /// (the packed forms of its weights notice). Names, shapes and dtype are compared, and verify()
  /// is called, before anything is changed. @throws DataError
  void apply(Transformer& model, int threads = 0) const;

  /// A model of its own with these weights, verified. @throws DataError
  Transformer make_model(int threads = 0) const;

  /// The same for an engine alone, matrix by matrix (core/model/narrow_model.h).
  /// @throws InvalidArgument for weights that are not float32
  Transformer make_narrow_model(WeightKind kind, int threads = 0) const;
  /// As apply, into a model that make_narrow_model made.
  void renew(Transformer& model, int threads = 0) const;

  /// The tensors of `model` that `adapter` changes become W + scale B A, W being these weights
  /// whatever `model` held: the learner's merge (LoraAdapter::merged_weight), and its bits. In
  /// place, as apply (as renew).
  /// @param model    with the other tensors of these weights
  /// @param adapter  for these weights (AdapterFile::adapter). @throws as apply
  void apply(const LoraAdapter& adapter, Transformer& model, int threads = 0) const;
  void renew(const LoraAdapter& adapter, Transformer& model, int threads = 0) const;

 private:
  explicit WeightFile(SafetensorsFile tensors) : PublishedFile(std::move(tensors)) {}
  void check_fits(const Transformer& model) const;
  /// Hands over the parameters of `model` that the adapter changes, with their merged values.
  void merge(const LoraAdapter& adapter,
             const Transformer& model,
             const std::function<void(const NamedTensor&, const at::Tensor&)>& put) const;

  ModelConfig config_;
  at::ScalarType dtype_ = at::kFloat;
};

/// Removes what nobody will ask for again: of `stage` all but the `keep` newest files by lineage
/// and step, of earlier stages every file, and temporaries that no living writer holds. Other files
/// stay. A missing folder holds nothing.
/// @return files removed
/// @throws InvalidArgument when keep < 1; IoError
int64_t keep_newest(const std::filesystem::path& folder, uint32_t stage, int64_t keep);

}  // namespace praetor
