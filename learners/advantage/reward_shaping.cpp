#include "learners/advantage/reward_shaping.h"

#include <ATen/ATen.h>

#include "core/base/error.h"
#include "learners/algorithms/aggregate.h"
#include "learners/algorithms/checks.h"

namespace praetor {
namespace {

/// Index of the last token of each sequence in [R], and which sequence it ends; empty sequences
/// have none.
struct LastTokens {
  at::Tensor index;
  at::Tensor sequence;
};

LastTokens last_tokens(const at::Tensor& sequence_of) {
  const int64_t count = sequence_of.numel();
  if (count == 0) {
    const at::Tensor none = at::empty({0}, sequence_of.options());
    return {none, none};
  }
  const at::Tensor ends = at::cat({sequence_of.slice(0, 0, count - 1).ne(sequence_of.slice(0, 1)),
                                   at::ones({1}, sequence_of.options().dtype(at::kBool))});
  const at::Tensor index = ends.nonzero().squeeze(1);
  return {index, sequence_of.index_select(0, index)};
}

/// [N] punishment of what is too long, 0 or below.
at::Tensor overlong_penalty(const at::Tensor& sequence_of,
                            const std::vector<bool>& finished,
                            const RewardShaping& shaping) {
  const auto sequences = static_cast<int64_t>(finished.size());
  const at::Tensor lengths =
      segment_sum(at::ones_like(sequence_of, at::kDouble), sequence_of, sequences);
  const at::Tensor past = lengths - (shaping.overlong_limit - shaping.overlong_buffer);
  return (-past / shaping.overlong_buffer)
      .clamp(-1, 0)
      .masked_fill(flags_tensor(finished).logical_not(), -1.0);
}

}  // namespace

double penalised_score(const Experience& experience, int64_t sequence, double missing_eos_penalty) {
  const bool finished = experience.finished[static_cast<size_t>(sequence)];
  return experience.score[sequence].item<double>() - (finished ? 0 : missing_eos_penalty);
}

at::Tensor flags_tensor(const std::vector<bool>& flags) {
  at::Tensor out = at::zeros({static_cast<int64_t>(flags.size())}, at::kBool);
  for (size_t i = 0; i < flags.size(); ++i) out.mutable_data_ptr<bool>()[i] = flags[i];
  return out;
}

ShapedReward shape_reward(const at::Tensor& score,
                          const std::vector<bool>& finished,
                          const at::Tensor& proximal_logprob,
                          const at::Tensor& reference_logprob,
                          const at::Tensor& sequence_of,
                          const RewardShaping& shaping) {
  require_same_shape("shape_reward", proximal_logprob, {{"sequence_of", sequence_of}});
  require_ascending("shape_reward", sequence_of);
  const int64_t sequences = score.numel();
  if (score.dim() != 1 || static_cast<int64_t>(finished.size()) != sequences) {
    throw ShapeError(
        "shape_reward: ", sequences, " scores, but ", finished.size(), " finished flags");
  }
  if (sequence_of.numel() > 0 && sequence_of[-1].item<int64_t>() >= sequences) {
    throw ShapeError("shape_reward: sequence_of names ",
                     sequence_of[-1].item<int64_t>(),
                     ", but there are ",
                     sequences,
                     " scores");
  }

  ShapedReward out;
  out.score =
      score.detach().to(proximal_logprob.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
  if (shaping.score_clip > 0) out.score.clamp_(-shaping.score_clip, shaping.score_clip);
  if (shaping.missing_eos_penalty != 0) {
    for (int64_t i = 0; i < sequences; ++i) {
      if (!finished[static_cast<size_t>(i)]) out.score[i].sub_(shaping.missing_eos_penalty);
    }
  }

  if (shaping.overlong_buffer > 0)
    out.score.add_(overlong_penalty(sequence_of, finished, shaping).to(out.score.scalar_type()));

  const LastTokens last = last_tokens(sequence_of);
  out.reward = at::zeros_like(proximal_logprob);
  at::Tensor at_end = out.score;
  if (reference_logprob.defined()) {
    out.kl = kl_per_token(proximal_logprob.detach(), reference_logprob.detach(), shaping.estimator);
    if (shaping.per_sample_kl) {
      at_end = at_end - shaping.kl_coefficient * segment_sum(out.kl, sequence_of, sequences);
    } else {
      out.reward = out.kl * -shaping.kl_coefficient;
    }
  }
  out.reward.index_add_(0, last.index, at_end.index_select(0, last.sequence));
  return out;
}

}  // namespace praetor
