#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"
#include "reward/external_service.h"
#include "reward/judge.h"
#include "reward/models/attribute_part.h"
#include "reward/models/llm_judge.h"
#include "reward/models/preference.h"
#include "reward/models/reward_model.h"

namespace praetor {

/// What becomes of a sample when a part could not score it, after its retries.
enum class OnError {
  kDrop,      ///< it has no score; the caller drops and counts it
  kFail,      ///< the scoring ends
  kValue,     ///< of the section: its score is `error_value`; of a part: the part's score is
  kViolated,  ///< of a part: its verdict is "failed", its score 0
};

/// What a part is for.
enum class PartUse {
  kReward,      ///< a summand of the score
  kConstraint,  ///< its verdict is one of those that make a sample satisfied
  kMonitor,     ///< measured and counted only
};

/// How a tree makes one result of its children's. Children that are not applicable are left out;
/// when all are, so is the tree.
///
///   all_of   every verdict passes; the lowest score
///   any_of   one verdict passes; the highest score
///   k_of_n   k verdicts pass (all, where fewer apply); the k-th highest score
///   gate     every verdict of the constraints passes; the score of the value, at most `cap` when
///            one fails
///   sum      no verdict fails; the weighted sum of the scores
enum class TreeKind { kAllOf, kAnyOf, kKOfN, kGate, kSum };

struct TreeRule {
  TreeKind kind = TreeKind::kAllOf;
  int64_t k = 1;     ///< k_of_n: 1 .. children
  double cap = 0.0;  ///< gate
};

/// One part of the mixture: a judge, a model, or a tree of parts.
struct PartConfig {
  std::string name;     ///< unique; letters, digits, "_", "-", "."; names its metrics
  std::string kind;     ///< one of part_kinds()
  double weight = 1.0;  ///< any sign; 0 only measures, and stands where a part enters no sum
  PartUse use = PartUse::kReward;
  /// Exactly one of the six, where the section has no errors.
  std::shared_ptr<const Judge> judge;
  std::optional<ExternalServiceConfig> service;
  std::optional<RewardModelConfig> model;
  std::optional<AttributePartConfig> attributes;
  std::optional<LlmJudgeConfig> llm_judge;
  std::optional<PreferenceConfig> preference;
  std::optional<TreeRule> tree;
  std::vector<PartConfig> children;  ///< of a tree; the last one of a gate is its value

  std::optional<std::chrono::milliseconds> timeout;  ///< of a judge or service; absent:
                                                     ///< the section's
  std::optional<int64_t> retries;                    ///< likewise
  std::optional<OnError> on_error;                   ///< absent: the section's; in a tree: it fails
  double error_value = 0.0;                          ///< of kValue
  std::optional<YamlReader> place;                   ///< for what is found wrong later

  /// True when it passes or fails every sample that it applies to.
  bool gives_verdict() const;
  /// The folder it loads; nothing for judges and trees.
  std::optional<ModelFolder> folder() const;
};

/// The parts for the samples of one task.
struct TaskConfig {
  std::string name;
  std::vector<PartConfig> parts;
};

/// The section `rewards` of a job: score = sum over parts of weight * score.
struct RewardConfig {
  std::chrono::milliseconds timeout{2000};  ///< of one judge on one sample, or one call of a
                                            ///< service; models have none
  int64_t retries = 1;                ///< attempts of a judge or service after one that failed
  OnError on_error = OnError::kDrop;  ///< kDrop, kFail or kValue
  double error_value = 0.0;           ///< given exactly when on_error is kValue
  int64_t cache_entries = 65536;      ///< verdicts that are kept; 0: none
  std::vector<PartConfig> parts;      ///< for every sample
  std::string task_field = "task";    ///< of a row, names its task
  std::vector<TaskConfig> tasks;      ///< in the file's order; empty: there are none

  static RewardConfig from_yaml(YamlReader in);

  /// Index in `tasks` of the task that a row names; nothing without tasks.
  /// @param metadata  the row's other fields, a JSON object
  /// @throws DataError naming what the row has and the tasks there are
  std::optional<size_t> task_of(const std::string& metadata) const;
};

/// "model", "attributes", "llm_judge", "preference", the trees', then the judges' of
/// reward/judges/registry.h.
const std::vector<std::string>& part_kinds();

/// A part where it stands.
struct ListedPart {
  const PartConfig* config = nullptr;  ///< borrowed
  std::optional<size_t> task;          ///< index in RewardConfig::tasks; nothing: every sample
  bool top = true;                     ///< not within a tree
  PartUse use = PartUse::kReward;      ///< its own, or that of the tree it stands in
  std::vector<size_t> children;        ///< places in the list, behind this one's
};
/// Every part of a configuration, trees before what is in them: those for every sample, then the
/// tasks'.
std::vector<ListedPart> list_parts(const RewardConfig& config);

}  // namespace praetor
