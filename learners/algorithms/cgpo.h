#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "core/config/yaml_reader.h"
#include "learners/algorithm.h"

namespace praetor {

/// Constrained generative policy optimisation with a mixture of judges (Xu et al. 2024, "The
/// Perfect Blend", arXiv:2409.20370): maximise a calibrated reward over the responses that break no
/// constraint, with a cap on the KL to the reference.
///
///   R_calib(a) = sigma(r(a) - r(baseline answer))
///   crpg    policy gradient of R~ = max(1 - log-ratio / kl_max, 0) R_calib [satisfied], less its
///           mean over the task's responses
///   codpo   DPO on the best satisfied against the worst violating response, and the likelihood of
///           the former
///   crraft  likelihood of the best response that is satisfied and within kl_max, weighted by
///           R_calib; the baseline answer (R_calib 1/2) where there is none
struct CgpoTask {
  std::string optimizer = "crpg";
  int64_t samples_per_prompt = 4;     ///< K
  double kl_max = 100;                ///< nats a response, > 0; crpg, crraft
  double weight = 1;                  ///< rho, of the task's gradient, >= 0
  double beta = 0.1;                  ///< codpo, > 0
  double likelihood_coefficient = 1;  ///< lambda of codpo, >= 0: over the response's length
  bool clip_kl_factor_at_one =
      false;  ///< crpg: a response that the reference likes better gets no bonus
  bool length_normalise = false;  ///< crpg, crraft: log-probabilities as means over tokens
};

struct CgpoConfig {
  int64_t prompts_per_step = 64;
  std::string baseline = "reference";  ///< reference, dataset
  double missing_eos_penalty = 0;
  int64_t alarm_after = 20;               ///< steps in a row without a satisfied response; 0: never
  std::map<std::string, CgpoTask> tasks;  ///< by the prompts' task; "" alone: there are none

  static CgpoConfig from_yaml(YamlReader in);
};

/// sigma(r - r_baseline)
double calibrated_reward(double score, double baseline_score);
/// R~ of crpg.
/// @param log_ratio  log pi(a) - log ref(a), of the whole response
double crpg_reward(double calibrated, bool satisfied, double log_ratio, const CgpoTask& task);
/// codpo's loss of pairs, [p]: softplus(-beta gap) - likelihood * chosen_logprob.
/// @param gap         [p] difference of the log-ratios, chosen less rejected; with gradient
/// @param likelihood  [p] lambda / length of the chosen response
at::Tensor codpo_loss(const at::Tensor& gap,
                      const at::Tensor& chosen_logprob,
                      const at::Tensor& likelihood,
                      const at::Tensor& beta);

std::unique_ptr<Algorithm> make_cgpo(CgpoConfig config);

}  // namespace praetor
