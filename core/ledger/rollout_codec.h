#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/ledger/records.h"

namespace praetor {

/// Payload of a rollout in a segment, little-endian:
///
///   version u8 = 1 or 2, finish u8, voice u16, stage i32, ordinal i64, sample i32, prompt_length
///   u32, weight_version i64, then the counts u32 of tokens, behavior, model and sampled
///   log-probabilities and of the bytes of worker and text, then these: tokens i32[],
///   log-probabilities f32[], bytes.
///
/// Version 2 is of responses whose tokens are of several weights, and goes on with them: count u32
/// of runs, then each as weights i64, tokens u32.
///
/// It names its own sample, so that a segment can be read without the database.
std::string encode_rollout(int32_t stage, const RolloutRecord& rollout);

struct StagedRollout {
  int32_t stage = 0;
  RolloutRecord rollout;
};
/// @throws DataError saying what does not fit
StagedRollout decode_rollout(std::string_view payload);

/// @throws InvalidArgument naming the sample and the field that does not fit the others
void check_rollout(int32_t stage, const RolloutRecord& rollout);

/// The parts of a score as a JSON array, and back. @throws DataError for text that is not such an
/// array
std::string score_to_json(const Score& score);
void score_from_json(std::string_view json, Score& score);

}  // namespace praetor
