#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/threads.h"
#include "core/data/example.h"
#include "core/data/experience.h"
#include "core/model/transformer.h"
#include "learners/learner.h"

namespace praetor::testing {

constexpr int64_t kTinyVocabulary = 11;

/// A random Llama of two layers, width 16, 11 tokens, 32 positions.
std::unique_ptr<Transformer> tiny_policy(uint64_t seed = 1, at::ScalarType dtype = at::kFloat);
/// The same with a scalar head.
std::unique_ptr<ScalarModel> tiny_scalar(uint64_t seed = 2, at::ScalarType dtype = at::kFloat);

/// A prompt, its response and what it scored.
struct Roll {
  std::vector<int64_t> prompt;
  std::vector<int64_t> response;
  double score = 0;
  bool finished = true;
  int64_t ordinal = -1;  ///< of its prompt; -1: a prompt of its own
  int32_t sample = 0;
  int32_t voice = 0;
  int8_t satisfied = -1;
  std::string task = {};
  std::vector<Preference> preferences = {};
};

/// As the engine would hand it over; behavior log-probabilities are those of `policy`.
Experience make_experience(const std::vector<Roll>& rolls,
                           const Transformer& policy,
                           double temperature = 1.0);

/// Five rollouts of mixed lengths: one cut by length, one of a single token.
std::vector<Roll> mixed_rolls();

/// Prompt tokens, then completion tokens which are the targets.
Example make_example(const std::vector<int64_t>& prompt,
                     const std::vector<int64_t>& completion,
                     double margin = 0);

/// One thread of tensor work while it lives: tensors this small gain nothing from two, and threads
/// that wait for each other on a busy machine cost seconds.
class OneThread {
 public:
  OneThread() : before_(threads()) { set_threads(1); }
  ~OneThread() { set_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

/// All tensors of `learner.state()` end to end as float64, weights only when `weights_only`.
at::Tensor flat_state(const Learner& learner, bool weights_only = false);
/// How far the weights that `weights_after(micro_batch_tokens)` makes are off when each unit is a
/// micro-batch by itself: the norm of the difference over theirs.
double cut_error(const std::function<at::Tensor(int64_t)>& weights_after);
/// The value of a metric; fails the test when it is not there.
double metric(const StepReport& report, const std::string& name);

}  // namespace praetor::testing
