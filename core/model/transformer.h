#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/base/random.h"
#include "core/model/model_config.h"
#include "core/model/named_tensor.h"
#include "core/model/ops.h"
#include "core/model/packed.h"

namespace praetor {

/// A decoder-only transformer with its language head: the same kernels, and so the same bits, for
/// training, scoring and decoding. Holds plain tensors under Hugging Face names. Not synchronised:
/// one thread at a time, or const calls only.
class Transformer {
 public:
  /// Random weights: normal(0, initializer_range), norms 1, biases 0, from `stream`.
  Transformer(ModelConfig config, RandomStream stream, at::ScalarType dtype = at::kFloat);
  /// Loads a Hugging Face folder (one safetensors file, or an index of several), converted to
  /// `dtype`.
  /// @throws MissingInput, DataError (names file, tensor, found and wanted shape).
  static Transformer load(const std::filesystem::path& folder, at::ScalarType dtype = at::kFloat);
  /// A deep copy (the reference, an anchor): own storage, no gradients.
  Transformer clone() const;
  ~Transformer();
  Transformer(Transformer&&) noexcept;
  Transformer& operator=(Transformer&&) noexcept;

  const ModelConfig& config() const { return config_; }
  /// Every trainable tensor in a fixed order. A tied head is listed once, as the embedding.
  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  void set_requires_grad(bool on);
  /// SHA-256 over names, dtypes, shapes and bytes, in order.
  std::string digest() const;
  /// Copies values from `other`, which has the same parameters.
  void copy_from(const Transformer& other);

  /// False for the backbone of a sequence-classification folder: head() and logits() then throw
  /// InvalidArgument.
  bool has_head() const { return head_.weight.defined(); }

  /// Hidden states after the final norm, [T,H], each with the bits that the whole sequence by
  /// itself would give it; autograd when parameters require grad and grad mode is on.
  /// @param want  [R] int64, rows in any order and as often as wanted, in any memory (of the
  /// processor's they are checked): those alone, [R,H], with less work in the last layer;
  /// undefined: all
  /// @throws ShapeError for a batch or rows that are not of that form; DataError for a token
  /// outside the vocabulary or a sequence longer than max_positions, naming the bound.
  at::Tensor hidden(const PackedTokens& batch, const at::Tensor& want = {}) const;
  /// The same for one step of the engine, through the cache: [M,H]; no autograd. `want`: rows whose
  /// hidden state is needed (the last layer's remaining work is skipped for others); empty: all.
  at::Tensor hidden_cached(const CachedRows& rows,
                           KvCache& cache,
                           const std::vector<int64_t>& want = {}) const;
  /// [M,V] from hidden states [M,H].
  at::Tensor logits(const at::Tensor& hidden) const;
  /// The language head; its weight is the embedding when tied.
  const ops::LanguageHead& head() const;
  at::ScalarType dtype() const { return embedding_.scalar_type(); }
  /// An empty cache of `blocks` blocks.
  KvCache make_cache(int64_t blocks, int64_t block_size = 16) const;

 private:
  struct Blocks;
  friend struct TransformerBuilder;
  Transformer();
  struct Places;
  template <typename Attend>
  at::Tensor forward(const at::Tensor& tokens,
                     const Places& places,
                     const at::Tensor& want,
                     Attend attend) const;
  at::Tensor embed(const at::Tensor& tokens, const Places& places) const;

  ModelConfig config_;
  std::vector<NamedTensor> parameters_;
  std::unique_ptr<const Blocks> blocks_;
  at::Tensor embedding_;
  ops::LanguageHead head_;
};

/// Linear(H -> L) on hidden states: value head, reward head (L = 1), heads of L attributes.
struct ScalarHead {
  at::Tensor weight;  ///< [L,H]; Hugging Face name "score.weight"
  /// N(0, 1/sqrt(H+1)).
  static ScalarHead make(int64_t hidden_size,
                         RandomStream stream,
                         at::ScalarType dtype = at::kFloat,
                         int64_t labels = 1);
  /// From hidden [M,H]: [M], or [M,L] with several labels.
  at::Tensor operator()(const at::Tensor& hidden) const;
};

/// A backbone with a scalar head: a reward model, or a separate critic; or with one head an
/// attribute. A Hugging Face sequence-classification folder (num_labels L) in and out; the language
/// head of the backbone is not used.
struct ScalarModel {
  Transformer backbone;
  ScalarHead head;
  std::vector<std::string> labels = {};  ///< names of the L numbers; empty: they have none
  /// Loads LlamaForSequenceClassification folders as they are; a causal-LM folder gets a fresh head
  /// from `stream`. @throws DataError when a folder has another number of labels than `labels`
  static ScalarModel load(const std::filesystem::path& folder,
                          RandomStream stream,
                          at::ScalarType dtype = at::kFloat,
                          int64_t labels = 1);
  /// Of the folder that save_hf writes.
  ModelConfig config() const;
  /// Scores at the last token of each sequence, [N], or [N,L] with several labels.
  at::Tensor score(const PackedTokens& batch) const;
  /// Values at every position, [T] ([T,L]).
  at::Tensor values(const PackedTokens& batch) const;
  std::vector<NamedTensor> parameters()
      const;  ///< backbone's without the language head, then the head's
};

/// Writes config.json, generation_config.json, model.safetensors (sharded above `max_shard_bytes`
/// with an index). Tokenizer files are copied by the caller. @throws IoError
void save_hf(const Transformer& model,
             const std::filesystem::path& folder,
             int64_t max_shard_bytes = int64_t{4} << 30);
void save_hf(const ScalarModel& model,
             const std::filesystem::path& folder,
             int64_t max_shard_bytes = int64_t{4} << 30);
/// Of tensors under the model's own names, a scalar head's among them where the config has labels.
void save_hf(const ModelConfig& config,
             const std::vector<NamedTensor>& tensors,
             const std::filesystem::path& folder,
             int64_t max_shard_bytes = int64_t{4} << 30);

}  // namespace praetor
