#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <utility>
#include <vector>

#include "core/base/sha256.h"
#include "learners/learner.h"
#include "learners/micro_batch.h"
#include "learners/statistics.h"

namespace praetor {

/// What the networks say about one slice; undefined where the plan has no such network.
struct Outputs {
  at::Tensor logprob;    ///< [r]
  at::Tensor entropy;    ///< [r] when asked for
  at::Tensor value;      ///< [r]
  at::Tensor bootstrap;  ///< [n] value at the last token, when asked for
  at::Tensor score;      ///< [n]
};

struct Learner::Impl {
  LearnerConfig config;
  std::unique_ptr<Algorithm> algorithm;
  LearnerModels models;
  ModelPlan plan;
  std::unique_ptr<AdamW>
      optimizer;  ///< of the policy (and a shared value head), or of the reward model
  std::unique_ptr<AdamW> critic_optimizer;  ///< of a separate critic
  int64_t updates = 0;                      ///< done

  struct Want {
    bool entropy = false;
    bool bootstrap = false;
  };
  /// One forward of every network in training over a slice with at least one row.
  Outputs forward(const PackedSlice& slice, Want want) const;
  double temperature() const { return algorithm->online() ? config.temperature : 1.0; }
  /// Log-probabilities of all predicted tokens under `model`, [R], without gradient.
  at::Tensor logprobs(const Transformer& model,
                      const SequenceBatch& batch,
                      double at_temperature) const;
  /// All sequences in order, cut by the token budget.
  std::vector<std::vector<int64_t>> whole_cut(const SequenceBatch& batch, int64_t unit = 1) const;

  /// Proximal and reference log-probabilities and values of `experience`.
  BatchContext prepare(Experience& experience, const SequenceBatch& batch) const;

  /// What one optimizer step works on.
  struct Step {
    const SequenceBatch& batch;
    const Experience* experience = nullptr;          ///< online
    const std::vector<Example>* examples = nullptr;  ///< offline
    at::Tensor mask;                                 ///< [R] bool
    std::vector<std::vector<int64_t>> micro_batches;
  };
  struct Digests {
    Sha256 loss;
    Sha256 gradient;
  };
  Denominators denominators(const Step& step) const;
  MicroBatch micro_batch(const Step& step,
                         const PackedSlice& slice,
                         const Outputs& outputs,
                         const Denominators& totals) const;
  /// Forward, loss and backward of every micro-batch; gradients are left on the parameters.
  /// @return false when the step has nothing that counts
  bool accumulate(const Step& step, Statistics& statistics, Digests& digests);
  /// Clip and step of every optimizer.
  void apply(Statistics& statistics, Digests& digests);
  void drop_gradients();

  StepReport report(const Statistics& statistics, Digests& digests, Metrics metrics) const;

  /// {"policy", optimizer}, {"critic", ...}
  std::vector<std::pair<std::string, AdamW*>> optimizers() const;
};

}  // namespace praetor
