#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/random.h"
#include "core/model/model_config.h"
#include "core/model/named_tensor.h"

namespace praetor {

class Transformer;
struct LayerPart;
struct PackedTokens;

/// `targets` that means every linear layer but the language head.
constexpr const char* kAllLinear = "all_linear";

/// Settings of a low-rank adapter (LoRA, Hu et al. 2021, arXiv:2106.09685), named as peft names
/// them.
struct LoraConfig {
  int64_t rank = 16;    ///< r, >= 1
  double alpha = 32;    ///< > 0
  double dropout = 0;   ///< [0, 1) share of the adapter's input that is left out in training
  bool rslora = false;  ///< the scale is alpha / sqrt(r) (arXiv:2312.03732)
  /// Linear layers by the names that the family's Hugging Face folders give them, or the end of
  /// such a name ("q_proj", "c_attn", "mlp.c_proj"); kAllLinear among them: all.
  std::vector<std::string> targets = {kAllLinear};
  double scale() const;  ///< alpha / r
  bool operator==(const LoraConfig&) const = default;
};

/// What `targets` may name in a model: "q_proj", "k_proj", ...; of GPT-2 "c_attn", "c_proj",
/// "c_fc".
std::vector<std::string> lora_target_names(const ModelConfig& config);
/// What is wrong with `target` for such a model, with what would be right; nothing when it is good.
std::optional<std::string> wrong_lora_target(const ModelConfig& config, std::string_view target);

/// What is wrong with the rank for such a model, with what would be right; nothing when it is good.
/// A product B A has no more than rank min(in, out), so that one which is above that of every layer
/// it adapts is a mistake. The targets are good.
std::optional<std::string> wrong_lora_rank(const ModelConfig& config, const LoraConfig& lora);

/// The model's layers that such an adapter adds to, "model.layers.0.self_attn.q_proj", ..., sorted.
std::vector<std::string> lora_layers(const ModelConfig& config, const LoraConfig& lora);

/// Numbers of an adapter for such a model. @throws InvalidArgument as LoraAdapter::make
struct LoraSize {
  int64_t parameters = 0;  ///< of A and B
  int64_t changed = 0;     ///< weights of the model that they change
};
LoraSize lora_size(const ModelConfig& config, const LoraConfig& lora);

struct LoraDropout;

/// What an adapter adds to a linear layer of the model, y = x W^T + scale (dropped(x) A^T) B^T.
struct LoraTerm {
  at::Tensor a;       ///< [r,in]
  at::Tensor b;       ///< [out,r] of the stored layer, which may hold several of the model's
  int64_t begin = 0;  ///< the first row of `b` that is this layer's
  int64_t rows = 0;   ///< its outputs
  double scale = 1;
  uint32_t number = 0;  ///< of the stored layer
  std::shared_ptr<const LoraDropout> dropout;

  /// Adds it to `out` [M,rows], what the layer makes of x [M,in], and gives that back: the memory
  /// is that of `out`, which nothing else may read. Products are in the adapter's dtype, whatever
  /// that of x, and the sum is rounded once. Autograd: of the forward x itself is kept, and [M,r];
  /// what dropout left out is found again in the backward.
  ///
  /// With a `part`, of a layer that is split: of this rank's inputs to its outputs; every rank has
  /// all of A and B, and all of their gradients.
  at::Tensor add_to(const at::Tensor& out,
                    const at::Tensor& x,
                    const LayerPart* part = nullptr) const;
  /// scale B A, [rows,in] in the adapter's dtype: the same bits on every machine.
  at::Tensor product() const;
};

/// Pairs of small matrices A [r,in] and B [out,r] beside the linear layers of a model, whose own
/// weights stay as they are: what is trained in their place. A layer is one of the family's
/// folders: where these hold several of the model's in one (GPT-2's c_attn), they share A, and B
/// has the rows of all. Tensors are the adapter's own; copies of the object share them.
///
/// One thread at a time.
class LoraAdapter {
 public:
  struct Module {
    std::string name;  ///< of the layer, as the folder names it
    at::Tensor a, b;
  };
  /// A from U(-1/sqrt(in), 1/sqrt(in)) (Kaiming's with a = sqrt(5), as peft draws it), each layer
  /// from a stream of its own under `key`; B zeros, so that nothing is added at first.
  /// @throws InvalidArgument for settings out of range, a target that the model does not have, or a
  /// rank that is too large for one
  static LoraAdapter make(const ModelConfig& config,
                          const LoraConfig& lora,
                          const SampleKey& key,
                          at::ScalarType dtype = at::kFloat);
  /// Of tensors at hand. @throws InvalidArgument for a layer that the model does not have, or one
  /// of another shape
  LoraAdapter(const ModelConfig& config, LoraConfig lora, std::vector<Module> modules);

  const LoraConfig& config() const { return config_; }
  const std::vector<Module>& modules() const { return modules_; }
  /// "NAME.lora_A.weight", "NAME.lora_B.weight" of each layer, in the folder's order.
  std::vector<NamedTensor> parameters() const;
  /// A deep copy without gradients.
  LoraAdapter clone() const;
  /// The same on `device`, without gradients; what is there already stays the very tensors.
  LoraAdapter moved(at::Device device) const;
  /// What it adds to the model's layer "model.layers.0.self_attn.q_proj"; null: nothing.
  const LoraTerm* find(const std::string& layer) const;

  /// Which inputs are left out is a function of `key`, the layer and the tokens up to the row: it
  /// depends neither on the cut into micro-batches nor on what neighbours share.
  void set_dropout_key(uint64_t key);
  /// A forward over `batch` begins: inputs are left out when grad mode is on, in what its backward
  /// runs again as well.
  /// @param want  rows that WantedRows stands for, [R] int64
  void begin_forward(const PackedTokens& batch, const at::Tensor& want = {}) const;

  /// A model whose weights are those of `base` with scale B A added, in memory of their own where
  /// that is anything; the other tensors are base's own.
  Transformer merged(const Transformer& base) const;
  /// The same into what merged(base) has made: its tensors stay the same ones.
  void merge_into(Transformer& merged, const Transformer& base) const;
  /// One tensor of such a model from the base's: itself where nothing is added.
  at::Tensor merged_weight(const NamedTensor& base) const;

 private:
  friend class WantedRows;
  /// Of the model's "model.layers.0.self_attn.q_proj.weight"; null: nothing is added to it.
  const LoraTerm* term_of_weight(const std::string& parameter) const;

  LoraConfig config_;
  ModelConfig model_;
  std::vector<Module> modules_;
  std::map<std::string, LoraTerm> terms_;  ///< by the model's layer
  std::shared_ptr<LoraDropout> dropout_;
};

/// While it lives, layers are given the rows alone that the adapter's forward wants.
class WantedRows {
 public:
  /// @param adapter  borrowed; null: nothing changes
  explicit WantedRows(const LoraAdapter* adapter);
  ~WantedRows();
  WantedRows(const WantedRows&) = delete;
  WantedRows& operator=(const WantedRows&) = delete;

 private:
  LoraDropout* dropout_;
};

/// How a model is made whose weights are those of `base` with `adapter` merged (borrowed).
struct Adapted {
  const Transformer* base = nullptr;
  const LoraAdapter* adapter = nullptr;  ///< null: the model is made otherwise, and has no base
};

/// A model of the very tensors of `model`.
Transformer shared_copy(const Transformer& model);

/// While it lives, forwards over whole sequences (Transformer::hidden) of `model` run with
/// `adapter` (null: with none), both borrowed; afterwards as before. hidden_cached wants none:
/// engines decode with merged weights.
class AdapterScope {
 public:
  AdapterScope(const Transformer& model, const LoraAdapter* adapter);
  ~AdapterScope();
  AdapterScope(const AdapterScope&) = delete;
  AdapterScope& operator=(const AdapterScope&) = delete;

 private:
  const Transformer& model_;
  const LoraAdapter* before_;
};

}  // namespace praetor
