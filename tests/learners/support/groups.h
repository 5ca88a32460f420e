#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "learners/learner.h"
#include "tests/learners/support/tiny.h"

namespace praetor::testing {

/// An algorithm from the YAML of its section, which must be without errors.
std::unique_ptr<Algorithm> algorithm_from(const std::string& name, const std::string& yaml = "{}");

/// A learner of the tiny policy.
Learner group_learner(std::unique_ptr<Algorithm> algorithm,
                      double learning_rate = 1e-3,
                      int64_t micro_batch_tokens = 8192);

/// Two prompts with four samples each, of mixed lengths; one is empty, two are cut by length.
std::vector<Roll> group_rolls();
/// What the engine would hand over of such rolls: `samples` neighbours answer one prompt. When
/// `algorithm` wants another voice, the last of them are that voice's.
Experience make_groups(const std::vector<Roll>& rolls,
                       int64_t samples,
                       const Transformer& policy,
                       const Algorithm& algorithm);

/// Without networks: `samples` neighbours answer one prompt, in `lengths` tokens each (default:
/// one), all with float64 log-probabilities of -1 under everything.
Experience scored(const std::vector<double>& scores,
                  int64_t samples,
                  std::vector<int64_t> lengths = {});

/// All of `experience` as one micro-batch, with log-probabilities `logprob` of the policy.
MicroBatch whole_batch(const Experience& experience, const Batch& batch, const at::Tensor& logprob);

/// Largest error of the loss's gradient against differences, of a batch with ratios away from 1.
double loss_gradient_error(Algorithm& algorithm);

}  // namespace praetor::testing
