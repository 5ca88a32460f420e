#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/cuda/device.h"
#include "core/model/packed.h"
#include "core/model/rope.h"
#include "core/model/transformer.h"

namespace praetor::cuda {

struct DecoderOptions {
  int64_t max_rows = 512;      ///< of a step, >= max_sequences
  int64_t max_sequences = 64;  ///< of a step, >= 1
  int64_t max_logits = 0;      ///< rows whose logits one step gives; 0: max_sequences
  int64_t max_tokens = 0;      ///< of a sequence; 0: the model's max_positions
  int64_t block_size = 16;     ///< tokens of a cache block, >= 1
  int64_t blocks = 1;          ///< of the cache, >= 0; `reserve` gives it others
};

/// A model's forward pass through a paged cache on a GPU: Transformer::hidden_cached and logits,
/// for every family. Weights of products and embeddings, keys and values are bfloat16; the residual
/// stream, scores and logits float32. A step that decodes one token of each sequence runs as one
/// recording for each power of two of rows, the rest of them idle, and of blocks of the longest
/// sequence.
///
/// Rows are not bitwise those of another batch: products and the split of the keys depend on the
/// number of rows. One thread; the device is borrowed.
class Decoder {
 public:
  /// What of `config` it does not compute, by key; empty when it computes all.
  static std::string unsupported(const ModelConfig& config);

  /// Weights are zero until they are set.
  /// @throws InvalidArgument for a config it does not compute, or not on this GPU, or options out
  /// of range; DeviceMemoryError
  Decoder(Device& device, const ModelConfig& config, const DecoderOptions& options);
  ~Decoder();

  /// Bytes of weights and of one block of the cache, for plans.
  static int64_t weight_bytes(const ModelConfig& config);
  static int64_t block_bytes(const ModelConfig& config, int64_t block_size);

  /// A cache of `blocks` empty blocks in place of the present one, which goes first; 0: none.
  /// @throws DeviceMemoryError, and there is none then
  void reserve(int64_t blocks);

  /// One parameter under its Hugging Face name (Transformer::parameters), any float dtype.
  /// @throws InvalidArgument for another name or shape
  void set(const std::string& name, const at::Tensor& values);
  /// All parameters of a model of this config.
  void load(const Transformer& model);

  /// One step: writes keys and values of all rows, and computes the logits behind the rows `want`
  /// (empty: all), which stay on the device.
  /// @throws InvalidArgument for more rows, sequences or logits than the options allow, tokens
  /// outside the vocabulary; what check_cached_rows throws
  void run(const CachedRows& rows, const std::vector<int64_t>& want = {});
  /// [want, V] float32 of the last step.
  at::Tensor logits();
  /// The same of some of those rows. @throws InvalidArgument for one that is not there
  at::Tensor logits(std::span<const int64_t> rows);
  /// Draws from logits of the last step; `row` of a spec counts among `want`.
  /// @throws DataError when a row's logits are not finite
  std::vector<SampleResult> sample(std::span<const SampleSpec> specs);

  /// Copies a block of the cache, all layers.
  void copy_block(int32_t from, int32_t to);
  int64_t recordings() const { return static_cast<int64_t>(recordings_.size()); }

 private:
  struct Layer;
  struct NormWeights {
    DeviceArray<float> weight, bias;  ///< empty where there is none
  };
  /// Cosines and sines of the pairs that are rotated.
  struct Rope {
    RopeTables tables;  ///< for the rows of positions; its own cosines and sines are gone
    DeviceArray<float> cos, sin;
    int64_t half = 0;
  };
  /// What a step's launches depend on beside the arrays' content.
  struct Sizes {
    int64_t rows, tiles, splits, wanted, stride;
  };
  struct Place {
    DeviceArray<Bfloat16>* matrix;  ///< or
    DeviceArray<float>* vector;
    int64_t at;
    std::vector<int64_t> shape;
    float plus = 0;  ///< is added to a vector
  };

  void check_options() const;
  void check_step(const CachedRows& rows, const std::vector<int64_t>& want) const;
  void place_weights();
  void add_rope(const RopeConfig& rope);
  int64_t splits_of(int64_t rows, int64_t tiles) const;
  void upload(const CachedRows& rows, const std::vector<int64_t>& want, int64_t idle);
  void forward(const Sizes& sizes);
  void layer(const Layer& layer, const Sizes& sizes);
  /// The product of h_, which goes to the residual stream with its bias and under its norm.
  void finish(const DeviceArray<Bfloat16>& weight,
              const DeviceArray<float>& bias,
              const NormWeights& norm,
              int64_t rows,
              int64_t inputs);
  void norm(const NormWeights& weights, const int32_t* index, int64_t rows);

  Device& device_;
  ModelConfig config_;
  DecoderOptions options_;
  int64_t most_stride_;  ///< blocks of the longest sequence
  bool gelu_ = false, gated_ = true;
  float scale_, embedding_scale_ = 1;
  std::map<std::string, Place> places_;
  DeviceArray<Bfloat16> embedding_, positions_, head_;
  NormWeights final_norm_;
  std::vector<Rope> ropes_;  ///< of all layers, or of those without and those with a window
  std::vector<std::unique_ptr<Layer>> layers_;

  // What a step reads: one array, so that one copy brings it.
  DeviceArray<int32_t> input_;
  std::vector<int32_t> staged_;
  struct Offsets {
    int64_t tokens, positions, turns, blocks, want, tiles, tables, total;
  } at_;
  int64_t staged_tiles_ = 0, staged_stride_ = 0;

  DeviceArray<float> x_, qkv_, gates_, part_, part_state_, logits_;
  DeviceArray<float> apart_;  ///< of products that are normed before they are added to x_
  DeviceArray<Bfloat16> h_;
  DeviceArray<SampleSpec> specs_;
  DeviceArray<SampleResult> results_;
  int64_t wanted_ = 0;
  /// By rows and stride of the tables.
  std::map<std::pair<int64_t, int64_t>, std::unique_ptr<Recording>> recordings_;
};

/// The spec that draws what the CPU's sampler would (rollout/sampler.h); `params` without penalties
/// and processors.
SampleSpec sample_spec(int32_t row,
                       double temperature,
                       int64_t top_k,
                       double top_p,
                       double min_p,
                       const SampleKey& key,
                       uint32_t position);

}  // namespace praetor::cuda
