#pragma once

#include <memory>
#include <vector>

#include "core/model/forward_hooks.h"
#include "core/model/transformer.h"
#include "learners/compute_copy.h"
#include "learners/sharding/flat_unit.h"
#include "learners/sharding/lock_step.h"

namespace praetor {

/// A network whose gradients (ZeRO stage 2), or gradients and weights (stage 3, arXiv:1910.02054),
/// the ranks of a copy keep in parts. Its units are the embedding, each layer, and the final norm
/// with the language head (alone where the head is tied to the embedding) and a scalar head.
///
/// Stage 3: a forward gathers a part's units as it enters the part and releases them as it leaves;
/// so does the backward, the other way round. Stages 2 and 3: once the backward has left a part,
/// its gradients are summed over the ranks into the owners' parts; those of a tied embedding wait
/// for its second use. All of it in the passes of a LockStep. Outside of one, weights of stage 3
/// can be read between `gather` and `release` alone.
class ShardedNetwork final : public ForwardHooks {
 public:
  struct Options {
    bool trained = false;       ///< else frozen: its weights have no gradients
    bool passed = false;        ///< frozen, but gradients pass through it to an adapter's
    bool cut = false;           ///< stage 3
    bool language_head = true;  ///< used; else a head that is there is kept in parts for good
    std::vector<NamedTensor> scalar_head = {};  ///< used with the last part
    FlatUnit::Reader read = nullptr;  ///< of a network that is cut, and waits for its weights
    /// Borrowed: of the model and that head. Passes run it in place of the model, and at stage 3
    /// gather its weights; gradients, `gather` and `units` are the model's.
    ComputeCopy* copy = nullptr;
  };
  /// `model`, `steps` and `meter` are borrowed. The model keeps its tensors.
  /// @param who  in messages
  ShardedNetwork(const std::string& who,
                 Transformer& model,
                 ShardingRanks ranks,
                 LockStep& steps,
                 UnitMeter& meter,
                 Options options);
  ~ShardedNetwork() override;
  ShardedNetwork(const ShardedNetwork&) = delete;
  ShardedNetwork& operator=(const ShardedNetwork&) = delete;

  const Transformer& model() const { return model_; }
  bool is_cut() const { return options_.cut; }
  /// Those that are used.
  const std::vector<FlatUnit*>& units() const { return used_; }

  at::Tensor enter(size_t part, const at::Tensor& x) override;
  at::Tensor leave(size_t part, const at::Tensor& x) override;
  /// The heads have been used too, for what `outputs` point at; undefined ones do not count.
  void finish(const std::vector<at::Tensor*>& outputs);

  /// Every unit, outside of a pass; all ranks of a copy. `keep`: this rank wants the weights.
  void gather(bool keep);
  void release();
  /// The owned weights have changed: those of the copy are made from them anew.
  void refresh_copies() const;

  /// For LockStep.
  void add_forward(std::vector<Exchange>& program);
  void add_backward(std::vector<Exchange>& program);
  /// @param computes  this rank goes on to use what is gathered
  void perform(const Exchange& exchange, bool computes);
  /// The same in two calls: gathers,
  void start_gather(const Exchange& exchange);
  void finish_gather(const Exchange& exchange, bool computes);
  /// and sums, each of which ends before the next one begins, the last one with finish_sums.
  void start_sum(const Exchange& exchange);
  void finish_sums();
  /// Two parts read weights of one unit.
  bool share_units(size_t a, size_t b) const;

 private:
  struct Part {
    std::vector<FlatUnit*> read;    ///< units whose weights it uses
    std::vector<FlatUnit*> summed;  ///< those whose backward ends with this part's
  };
  size_t last() const { return parts_.size() - 1; }
  bool has_backward() const { return options_.trained || options_.passed; }
  void release_part(size_t part);
  void measure_gradients();
  /// As the units are, of the copy; none without one.
  std::vector<std::vector<NamedTensor>> parts_of_copy() const;
  FlatUnit* add_unit(const std::string& who,
                     std::vector<NamedTensor> parameters,
                     ShardingRanks ranks,
                     const FlatUnit::Reader& read);

  Transformer& model_;
  LockStep& steps_;
  UnitMeter& meter_;
  Options options_;
  std::vector<std::unique_ptr<FlatUnit>> units_;
  std::vector<FlatUnit*> used_;
  struct Twin {
    const FlatUnit* unit;
    FlatUnit* copy;
  };
  std::vector<Twin> twins_;  ///< of the copy's units, once they are cut
  std::vector<Part> parts_;
  std::vector<FlatUnit*> summing_;
  bool open_ = false;   ///< between gather and release
  bool whole_ = false;  ///< this rank has the weights in between
};

}  // namespace praetor
