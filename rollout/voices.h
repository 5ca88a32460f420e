#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <span>

#include "core/model/generator.h"

namespace praetor {

/// Which of the engine's models something concerns: the policy, the companion.
using ModelSet = std::array<bool, 2>;
constexpr size_t kPolicyModel = 0;
constexpr size_t kCompanionModel = 1;

/// The models whose logits a response of `voice` needs.
constexpr ModelSet models_of(const Voice& voice) {
  return {voice.kind != VoiceKind::kCompanion, voice.kind != VoiceKind::kPolicy};
}

/// The logits that a token is drawn from: a row of each model that its voice needs.
struct VoicedRow {
  std::array<int64_t, 2> row = {-1, -1};  ///< by model; -1: not needed
  double share = 0;                       ///< of the companion, where both are needed
};

/// One row of logits for each voice, of the two models' logits: a model's own, or
///
///   z_v = (1 - share) policy_v + share companion_v        float32
///
/// whose softmax is the normalised geometric mixture of the two distributions, since what is
/// constant over v cancels (Nash-MD, arXiv:2312.00886, section 7). To divide z by a temperature
/// afterwards tempers both alike. A row depends on its own rows alone; rows are shared out over the
/// tensor threads inside.
///
/// @param logits  by model, [.,V] float32, contiguous; undefined where no row needs the model. When
///                one alone is defined, rows[i] needs its row i
/// @return        [rows,V], in order. When rows[i] needs the policy's row i throughout, these are
///                the policy's logits, overwritten; when one model is defined, its logits untouched
at::Tensor mix_voices(const std::array<at::Tensor, 2>& logits, std::span<const VoicedRow> rows);

}  // namespace praetor
