#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"
#include "learners/advantage/groups.h"
#include "learners/algorithm.h"

namespace praetor {

/// Section `raft` of a stage.
struct RaftConfig {
  int64_t prompts_per_step = 64;
  int64_t samples_per_prompt = 8;  ///< n, >= 1
  int64_t epochs = 1;              ///< passes over what is kept, >= 1
  int64_t minibatches = 1;         ///< optimizer steps of a pass, >= 1
  double keep = 0;     ///< share of a prompt's samples, the best first, [0, 1]; one at least
  bool unique = true;  ///< of equal responses to a prompt the first alone is kept
  std::string weights = "none";     ///< none, softmax
  double weight_temperature = 1.0;  ///< of the softmax, > 0
  double missing_eos_penalty = 0;   ///< taken from the score of a response that did not end itself
  double kl_coefficient = 0;        ///< beta: ranked by s - beta sum_t k1; 0: no reference is held

  static RaftConfig from_yaml(YamlReader in);
};

/// KL divergence of the best of n samples from the policy they are drawn from is at most
/// log n - (n - 1) / n (arXiv:2401.01879 shows that it is a bound). @param n >= 1
double best_of_n_kl_bound(double n);

/// Kept sequences of one group, best first; ties go to the earlier sample.
/// @param rank  [N] float64
std::vector<int64_t> keep_best(const at::Tensor& rank,
                               const std::vector<int64_t>& group,
                               double keep);

std::unique_ptr<Algorithm> make_raft(RaftConfig config);

}  // namespace praetor
