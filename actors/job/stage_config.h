#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "actors/job/sections.h"
#include "actors/toy/toy_language.h"
#include "core/config/yaml_reader.h"
#include "core/model/generator.h"
#include "learners/algorithm.h"
#include "learners/learner.h"
#include "reward/reward_config.h"
#include "rollout/engine_config.h"

namespace praetor {

/// Kind of the stage that writes a tokenizer and data; every other kind is an algorithm's name.
constexpr const char* kToyLanguage = "toy_language";
/// What `kind` of a stage may be: also the name of the section with the kind's own keys.
const std::vector<std::string>& stage_kind_names();

/// What a stage leaves in RUN_DIR/stages/NAME for later ones.
enum class StageResult {
  kLanguage,         ///< a tokenizer and data files (toy_language)
  kPolicy,           ///< a causal language model with its tokenizer
  kRewardModel,      ///< a scalar model with its tokenizer
  kPreferenceModel,  ///< a causal language model that answers which of two responses is better
  kAttributeModel,   ///< a model of several numbers with its tokenizer
};
const char* to_string(StageResult result);  ///< "a tokenizer and data", "a policy", "a reward
                                            ///< model", "a preference model",
                                            ///< "an attribute model"

/// One stage of a job. Sources that the file leaves out are filled in from the earlier stages.
struct StageConfig {
  explicit StageConfig(YamlReader section) : in(std::move(section)) {}

  YamlReader in;  ///< the stage's mapping, for messages about its keys
  uint32_t index = 0;
  std::string name;  ///< unique, safe as a folder name; default: the kind
  std::string kind;
  bool usable = false;  ///< false: kind unknown, nothing else was read
  StageResult result = StageResult::kPolicy;
  StageResult start = StageResult::kPolicy;  ///< what it starts from
  bool probes = false;                       ///< a reward model's backbone will do as well
  RowForm rows = RowForm::kPrompt;           ///< of data.train; not of toy_language
  CheckpointConfig checkpoint;

  ToyLanguageSize toy;  ///< toy_language alone; nothing below concerns it

  ModelSection model;
  Source tokenizer;  ///< folder
  /// The model's shape when it can be known before the job runs; vocab_size 0: the tokenizer's.
  std::optional<ModelConfig> shape;
  DataConfig data;
  std::optional<int64_t>
      epochs;                    ///< passes over data.train; exactly one of epochs and steps is set
  std::optional<int64_t> steps;  ///< updates
  EvalConfig eval;
  LearnerConfig learner;  ///< section learner; seed, stage, temperature and the schedule's
                          ///< total_steps are set by whoever runs it

  SamplingParams sampling;  ///< online; stop_tokens without the model's own end tokens
  EngineConfig engine;      ///< online
  RewardConfig rewards;     ///< online
  /// Online: updates that the weights a sample comes from may be behind those it trains; 0: none,
  /// sampling and updates take turns.
  int64_t max_staleness = 0;
  /// Responses that are being generated when new weights come go on under them.
  bool partial_rollouts = false;

  bool trains() const { return kind != kToyLanguage; }
  /// Learns from rollouts; else from the rows of data.train.
  bool online() const { return trains() && rows == RowForm::kPrompt; }
  /// Engines run in float32 on CPU (core/model/ops.h), with the learner's bits if its weights: not
  /// with an adapter's merged ones, not beside a learner's bfloat16 or on another device, nor where
  /// its sums go over tensor ranks.
  bool exact_rollouts() const {
    return engine.weights == WeightKind::kFloat32 && !learner.lora &&
           learner.precision == at::kFloat && learner.device.is_cpu() &&
           learner.sharding.tensor == 1;
  }
  /// The method, from the section named after the kind. The document behind `in` must live.
  std::unique_ptr<Algorithm> make_algorithm() const;
  /// Updates over `row_count` rows of data.train when each takes `per_step` of them: `steps`, or
  /// the whole steps in `epochs` passes (rows of one pass may end a step that the next begins; what
  /// is left over at the end is not used); with `per_step` 0, all of them, the only one.
  int64_t total_steps(int64_t row_count, int64_t per_step) const;

  /// First pass: kind and name. `usable` is false afterwards when the kind is unknown.
  static StageConfig identify(YamlReader in, uint32_t index);
  /// Second pass: all else, with what depends on `earlier` stages filled in. `names`: of all stages
  /// of the job. `checkpoint`: the job's section.
  void read(std::span<const StageConfig> earlier,
            const std::vector<std::string>& names,
            const CheckpointConfig& checkpoint);

 private:
  void read_toy_language();
  void read_model(std::span<const StageConfig> earlier, const std::vector<std::string>& names);
  void read_tokenizer(std::span<const StageConfig> earlier, const std::vector<std::string>& names);
  void read_data(std::span<const StageConfig> earlier, const std::vector<std::string>& names);
  void read_length();
  void read_learner(const Algorithm& algorithm);
  void read_online(std::span<const StageConfig> earlier, const std::vector<std::string>& names);
  void read_staleness(const Algorithm& algorithm);
};

}  // namespace praetor
