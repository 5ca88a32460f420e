#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/collective/collective.h"
#include "core/model/named_tensor.h"
#include "learners/optim/optimizer_config.h"

namespace praetor {

/// Elements that an operator takes at once on another device than the CPU: its temporaries are as
/// large, also where they are wider.
constexpr int64_t kDeviceElements = int64_t{1} << 24;

/// A tensor that an optimizer keeps for a parameter.
struct StateSpec {
  std::string name;  ///< "exp_avg", ...
  std::vector<int64_t> sizes;
  c10::ScalarType dtype = c10::kFloat;
  bool elementwise = true;  ///< of the parameter's shape, and cut as it is; else whole everywhere
};

/// What an optimizer of this configuration keeps for a parameter of these sizes and this dtype.
std::vector<StateSpec> state_of(const OptimizerConfig& config,
                                at::IntArrayRef sizes,
                                c10::ScalarType dtype);

/// What an optimizer works on.
struct OptimizerSetup {
  std::string name;                     ///< "policy", in messages and in the key of rounding
  std::vector<NamedTensor> parameters;  ///< whole, those of all ranks; their names and sizes count
  /// What this rank steps: the parameters, or pieces NAME@BEGIN-END of them (flat_layout.h),
  /// contiguous. The tensors are shared with the model.
  std::vector<NamedTensor> owned;
  Collective* ranks = nullptr;  ///< borrowed; null: this rank owns everything
};

/// Steps parameters by their gradients. A parameter without a gradient keeps its weights and its
/// state. The version counter of each changed tensor moves, so that caches made from it are made
/// anew. Of pieces on another device than the CPU the states are there, too, unless the
/// configuration offloads them. What is written does not depend on the number of threads. With
/// ranks every call but the getters, and zero_grad, is made by all of them alike. Not synchronised.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// One step with the gradients that the owned pieces hold.
  /// @param learning_rate  of this step, schedule applied
  void step(double learning_rate);
  /// Drops the gradients.
  void zero_grad();

  /// The owned pieces.
  const std::vector<NamedTensor>& parameters() const { return owned_; }
  const OptimizerConfig& config() const { return config_; }
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

  struct HeldState {
    std::string name;  ///< of the whole: "exp_avg/NAME"
    int64_t begin = 0;
    int64_t whole = 0;  ///< elements of the whole
    at::Tensor tensor;  ///< its elements from `begin` on
    bool everywhere = false;
  };
  /// What this rank keeps. The tensors themselves, not copies.
  std::vector<HeldState> held_state() const;
  /// This rank's share of a checkpoint: "exp_avg/NAME@BEGIN-END", ...; of what every rank keeps,
  /// rank 0's.
  std::vector<NamedTensor> state() const;
  /// Bytes of held_state.
  int64_t state_bytes() const;

 protected:
  /// @throws InvalidArgument naming a piece that is not contiguous float32 or float64, a name that
  /// is given twice, or a group that no parameter belongs to; for `offload` of pieces on the CPU
  Optimizer(OptimizerSetup setup, OptimizerConfig config);

  /// A parameter, over all ranks.
  struct Whole {
    std::string name;
    std::vector<int64_t> sizes;
    int64_t numel = 0;
    double rate = 1;   ///< times the learning rate
    double decay = 0;  ///< weight decay
    std::vector<StateSpec> specs;
    std::vector<at::Tensor> states;  ///< beside `specs`; undefined where elementwise
    uint64_t key = 0;                ///< of stochastic rounding
  };
  /// What is owned of one.
  struct Piece {
    size_t whole = 0;  ///< index
    int64_t begin = 0;
    at::Tensor weight;
    std::vector<at::Tensor> states;  ///< beside `specs`; undefined where not elementwise
  };
  /// A piece whose states are in the processor's memory, with its weight and gradient there.
  struct OffloadedPiece {
    OffloadedPiece(const Piece& of, const at::Tensor& its_gradient);
    void give_back(const Piece& to) const;  ///< the weight
    Piece piece;
    at::Tensor gradient;
  };

  /// The step; steps() counts it already.
  virtual void update(double learning_rate) = 0;

  /// Calls work(piece, gradient, begin, end) for [begin, end) of the elements of every owned piece
  /// that has a gradient, some thousand at a time, side by side. Each call writes its own elements
  /// alone. Pieces on another device come one after the other, `most` elements at a time, and work
  /// that moves their states does so there; with `offload` on copies in the processor's memory,
  /// which are then copied back.
  template <typename Work>
  void over_elements(const Work& work, int64_t most = kDeviceElements) const;
  /// Moves the version counters of the owned weights with a gradient.
  void bump_versions() const;

  std::vector<Whole> wholes_;
  std::vector<Piece> pieces_;
  Collective* ranks_;

 private:
  std::vector<NamedTensor> owned_;
  OptimizerConfig config_;
  int64_t steps_ = 0;
};

/// The optimizer of `config.kind`.
std::unique_ptr<Optimizer> make_optimizer(OptimizerSetup setup, OptimizerConfig config);

}  // namespace praetor
