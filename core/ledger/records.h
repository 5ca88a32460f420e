#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/data/sample.h"
#include "core/model/generator.h"

namespace praetor {

/// Names one sample of a stage: which prompt in issue order, and which of its samples. Offline
/// stages use sample 0.
struct SampleId {
  int64_t ordinal = 0;
  int32_t sample = 0;
  auto operator<=>(const SampleId&) const = default;
};

/// A prompt (or an offline row) that was taken from the data set.
struct PromptRecord {
  int64_t ordinal = 0;  ///< issue order over the whole stage, from 0, without gaps
  int64_t epoch = 0;
  int64_t row = 0;      ///< index of the row in the data set
  int32_t samples = 1;  ///< how many samples of it are wanted, >= 1
};

/// One finished response as the engine made it. P prompt tokens, R response tokens.
struct RolloutRecord {
  SampleId id;
  std::vector<int64_t> tokens;           ///< [P + R], each in [0, 2^31)
  int64_t prompt_length = 0;             ///< P
  std::vector<float> behavior_logprobs;  ///< [R]
  std::vector<float> model_logprobs;     ///< [R] or empty
  std::vector<float> sampled_logprobs;   ///< [R] or empty
  std::string text;                      ///< the response, decoded
  FinishReason finish = FinishReason::kLength;
  int64_t weight_version = 0;  ///< step of the weights that sampled it; of its first token
  /// [R] of the weights that each token was drawn from, rising; empty: all of weight_version.
  std::vector<int64_t> versions;
  std::string worker;
  int32_t voice = 0;  ///< 0: the policy; i: the algorithm's i-th other voice, below 2^16
  bool operator==(const RolloutRecord&) const = default;
};

/// What the judges gave a sample. `score.score` is absent when a part failed; a number must be
/// finite.
struct ScoreRecord {
  SampleId id;
  Score score;
  std::string worker;
};

enum class LeaseKind : uint8_t { kGenerate, kScore };
enum class LeaseState : uint8_t {
  kOpen,
  kCompleted,
  kExpired,  ///< its deadline passed or its worker died; the controller gave the items to another
  kLost,     ///< it was open when the owner of the ledger ended
};
const char* to_string(LeaseKind kind);    ///< "generate", "score"
const char* to_string(LeaseState state);  ///< "open", "completed", "expired", "lost"

using TimePoint = std::chrono::system_clock::time_point;

/// Work handed to a worker. Kept as history; whom to hand what is the controller's decision.
struct LeaseRecord {
  int64_t id = 0;  ///< never used twice in a run directory, also not after a crash
  LeaseKind kind = LeaseKind::kGenerate;
  int32_t stage = 0;
  std::string worker;
  TimePoint issued_at;  ///< kept to the millisecond
  TimePoint deadline;
  LeaseState state = LeaseState::kOpen;
  std::vector<SampleId> items;
};

/// What one optimizer step trains on, in order.
struct BatchRecord {
  int64_t step = 0;  ///< from 1, per stage
  std::vector<SampleId> samples;
  std::string manifest = "{}";  ///< JSON: rank and micro-batch cut
};

/// One finished optimizer step.
struct StepRecord {
  int64_t step = 0;
  std::string loss_digest;
  std::string gradient_digest;
  std::string metrics = "{}";  ///< JSON object
  bool replayable =
      false;  ///< set by `rewind`: recorded, but after the checkpoint that training goes on from
};

/// How a step relates to what the ledger knew of it.
enum class StepOutcome {
  kNew,
  kReplayedIdentical,  ///< both digests equal the ones recorded before the rewind
  kReplayedDifferent,
};

enum class StageForm : uint8_t {
  kOnline,   ///< samples are generated, scored, trained
  kOffline,  ///< rows of a data set are trained as they are; no rollouts, no scores
};

struct StageRecord {
  int32_t stage = 0;  ///< index in the job
  std::string name;
  StageForm form = StageForm::kOnline;
  bool finished = false;
  std::string result;  ///< path of what the stage made; empty until it is finished
};

struct CheckpointRecord {
  int32_t stage = 0;
  int64_t step = 0;
  std::string path;      ///< relative to the run directory
  bool durable = false;  ///< renamed into place and synced; payload up to its step may go
};

/// Where a sample stands.
struct SampleState {
  SampleId id;
  bool rolled_out = false;
  bool scored = false;
  bool pruned = false;  ///< its payload was given up after a checkpoint
  std::optional<double> score;
  std::optional<std::string> drop_reason;
  std::optional<int64_t> step;  ///< the batch it stands in
};

/// issued = trained + dropped + pending, and pending is the sum of its four parts; each is counted
/// on its own.
struct Balance {
  int64_t prompts = 0;
  int64_t issued = 0;                      ///< samples
  int64_t trained = 0;                     ///< in the batch of a finished step of the lineage
  std::map<std::string, int64_t> dropped;  ///< by reason
  int64_t awaiting_rollout = 0;
  int64_t awaiting_score = 0;
  int64_t ready = 0;     ///< scored, in no batch
  int64_t in_batch = 0;  ///< in a batch whose step is not finished, or is to be replayed
  int64_t total_dropped() const;
  int64_t pending() const { return awaiting_rollout + awaiting_score + ready + in_batch; }
  bool holds() const { return issued == trained + total_dropped() + pending(); }
};

}  // namespace praetor
