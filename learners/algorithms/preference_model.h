#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "core/config/yaml_reader.h"
#include "core/data/pair_question.h"
#include "learners/algorithm.h"

namespace praetor {

struct AnswerLossOptions {
  bool vocabulary = false;     ///< the other tokens of the vocabulary compete as well
  double label_smoothing = 0;  ///< epsilon: chance that a label is wrong, [0, 0.5)
};

struct AnswerLoss {
  at::Tensor loss;         ///< scalar; carries the gradient
  double correct = 0;      ///< answers with P(right) > 1/2; a tie counts half
  double consistent = 0;   ///< pairs of which both orders name the same response
  double probability = 0;  ///< sum over pairs of the symmetrised P(chosen preferred)
};

/// Negative log-likelihood of the answers that name the chosen response (Dong et al. 2024,
/// arXiv:2405.07863), each pair in both orders.
///
///   nll(x | y) = -log(e^x / (e^x + e^y)), or with `vocabulary` -x
///   loss = sum((1 - epsilon) nll(right | wrong) + epsilon nll(wrong | right)) / (2 pairs)
///
/// @param right, wrong  [2P] log-probabilities of the answer that names the chosen response and of
///                      the other one: of each pair with the chosen one first, then second
/// @param pairs         of the whole optimizer step, every rank
/// @throws ShapeError; InvalidArgument when pairs <= 0
AnswerLoss answer_loss(const at::Tensor& right,
                       const at::Tensor& wrong,
                       double pairs,
                       AnswerLossOptions options = {});

/// Section `preference_model` of a stage.
struct PreferenceModelConfig {
  int64_t batch_size = 32;  ///< pairs of one optimizer step, >= 1
  PairQuestion question;
  AnswerLossOptions loss;
  static PreferenceModelConfig from_yaml(YamlReader in);
};

std::unique_ptr<Algorithm> make_preference_model(PreferenceModelConfig config);

}  // namespace praetor
