#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/job/stage_config.h"
#include "core/tokenizer/tokenizer.h"
#include "reward/part_counters.h"

namespace praetor {

/// One row of the prompt data, ready to be sent out.
struct Prompt {
  std::vector<int64_t> tokens;
  std::string text;             ///< as a reward worker sees it
  std::string metadata = "{}";  ///< the row's other fields
  std::string task;             ///< empty without
  Example answered;             ///< prompt and the row's own answer; empty where it is not wanted
  std::string answer;           ///< text of it
  Row row = {};                 ///< as it was read
};

/// What one online stage asks of its workers.
struct OnlinePlan {
  uint32_t stage = 0;
  uint64_t job_seed = 0;
  int64_t prompts_per_step = 1;
  int32_t samples_per_prompt = 1;  ///< of the policy
  std::map<std::string, int64_t> samples_by_task;
  std::vector<VoicePlan> others;
  ScorePlan scores = ScorePlan::kScalar;
  int64_t max_staleness = 0;  ///< updates that a sample's weights may be behind those it trains
  int64_t total_steps = 0;    ///< nothing is issued for later ones; 0: not known
  bool shuffle = true;
  SamplingParams params;

  /// Of the policy, to one prompt.
  int32_t policy_samples(const Prompt& prompt) const;
  int32_t total_samples(const Prompt& prompt) const;
  /// Of all voices to any prompt, >= 1.
  int32_t most_samples() const;
  /// 0: the policy; i: others[i - 1].
  int32_t voice_of(const Prompt& prompt, int32_t sample) const;
  bool pairwise() const { return scores == ScorePlan::kPairs || scores == ScorePlan::kRivals; }
  /// A voice speaks the rows' own answers.
  bool wants_answers() const;
  /// Whose samples the figures of a step are of: the policy's, or the first other voice's where
  /// the policy gives none.
  int32_t measured_voice() const { return samples_per_prompt > 0 ? 0 : 1; }
  /// True when `sample` is to be compared with `other` of the same prompt.
  bool rivals(const Prompt& prompt, int32_t sample, int32_t other) const;
  std::vector<PartCounters> parts;  ///< of the reward, nothing counted
  /// The prompt as it is asked at its place in the order of issue (or among those of an
  /// evaluation); empty: as it is.
  std::function<Prompt(const Prompt&, int64_t ordinal, Purpose purpose)> ask;
  std::chrono::milliseconds lease_time{std::chrono::minutes(10)};
};

/// The plan of an online stage. `results`: RUN_DIR/stages. @throws MissingInput, DataError when the
/// policy's folder or the tokenizer names no token that ends a response
OnlinePlan online_plan(const StageConfig& stage,
                       uint64_t job_seed,
                       const std::filesystem::path& results);

/// The rows' own answers (field `baseline`).
struct WantedAnswers {
  int64_t end = 0;      ///< token that ends them
  int64_t longest = 0;  ///< tokens, the end included
};

/// The rows of a prompt file.
/// @param task_field  names the row's task
/// @throws MissingInput, DataError naming file and line
std::vector<Prompt> read_prompts(const std::filesystem::path& file,
                                 const Tokenizer& tokenizer,
                                 const TextFormat& format,
                                 const std::string& task_field,
                                 std::optional<WantedAnswers> answers = std::nullopt);

/// Prompts asked in directions: each with its direction told before it, and as the field
/// "direction" of its metadata. Its text, which is what rewards read, stays as it is.
/// @param key  seed and stage; the rest is the prompt's
std::function<Prompt(const Prompt&, int64_t ordinal, Purpose purpose)> asked_in_directions(
    DirectionPlan plan,
    TextFormat format,
    std::shared_ptr<const Tokenizer> tokenizer,
    SampleKey key);

/// The ids that end a response: the model's, or the tokenizer's when its config.json names none.
std::vector<int64_t> end_tokens(const StageConfig& stage,
                                const Tokenizer& tokenizer,
                                const std::filesystem::path& results);

}  // namespace praetor
