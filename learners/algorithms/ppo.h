#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/config/yaml_reader.h"
#include "learners/advantage/mismatch.h"
#include "learners/algorithm.h"
#include "learners/algorithms/kl_config.h"

namespace praetor {

/// Section `ppo` of a stage.
struct PpoConfig {
  double clip_low = 0.2;     ///< ratio floor is 1 - clip_low, (0, 1)
  double clip_high = 0.2;    ///< ratio ceiling is 1 + clip_high, > 0
  double dual_clip = 0;      ///< c of arXiv:1912.09729, > 1; 0: off
  double value_clip = 0.2;   ///< >= 0; 0: off
  double gamma = 1.0;        ///< discount, (0, 1]
  double gae_lambda = 0.95;  ///< [0, 1], arXiv:1506.02438
  int64_t epochs = 4;        ///< passes over each batch of experience, >= 1
  int64_t minibatches = 1;   ///< optimizer steps of a pass, >= 1
  int64_t prompts_per_step = 64;
  int64_t samples_per_prompt = 1;

  KlConfig kl;
  MismatchConfig mismatch;
  bool per_sample_kl = false;  ///< the whole penalty on the last token

  bool whiten_advantages = true;
  bool whiten_rewards = false;  ///< keeps the mean
  double score_clip = 0;        ///< scores to [-c, c], after normalisation; 0: off
  bool score_normalise =
      false;  ///< (score - mean) / std of all scores so far, this step's included
  double missing_eos_penalty = 0;    ///< taken from the score of a response that did not end itself
  bool mask_truncated = false;       ///< such responses are left out of the loss
  bool bootstrap_truncated = false;  ///< their last value is the critic's, not 0
  double entropy_coefficient = 0;    ///< >= 0
  double value_coefficient = 0.1;    ///< >= 0
  double target_kl_update = 0;       ///< mean k3 that ends the update early; 0: off

  struct Critic {
    std::string init =
        "policy";         ///< policy: its weights and a fresh head; reward: a reward model's folder
    bool shared = false;  ///< a value head on the policy, one backward
    OptimizerConfig optimizer{.learning_rate = 1e-5};
  } critic;

  static PpoConfig from_yaml(YamlReader in);
};

std::unique_ptr<Algorithm> make_ppo(PpoConfig config);

}  // namespace praetor
