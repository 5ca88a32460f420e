#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "rollout/cached_model.h"
#include "rollout/sampler.h"
#include "rollout/voices.h"

namespace praetor {

/// What the engine's models say of a step's rows, and tokens drawn from it. On the processor all
/// draws are the sampler's. On a GPU a token is drawn where the logits lie; a mixture's, a
/// penalised or processed one, or one beside which the most likely are wanted, is the sampler's,
/// from rows of logits that are copied for it. Models and sampler are borrowed. One thread.
class StepLogits {
 public:
  using Models = std::vector<std::unique_ptr<CachedModel>>;
  StepLogits(const Models& models, Sampler& sampler) : models_(models), sampler_(sampler) {}

  /// One forward pass of every model that has rows.
  void compute();
  /// Draws `rows`, whose logits_row counts among `voiced`: those whose logits the pass gave, the
  /// same at every call until the next pass. @throws as Sampler::sample
  void draw(std::span<const VoicedRow> voiced,
            std::span<const SampleRow> rows,
            std::vector<SampledToken>& out);

 private:
  cuda::Decoder* place_of(const VoicedRow& voiced, const SamplingParams& params) const;
  void draw_there(cuda::Decoder& decoder,
                  size_t model,
                  std::span<const VoicedRow> voiced,
                  std::span<const SampleRow> rows,
                  std::vector<SampledToken>& out);
  void draw_here(std::span<const VoicedRow> voiced,
                 std::span<const SampleRow> rows,
                 std::vector<SampledToken>& out);

  const Models& models_;
  Sampler& sampler_;
  at::Tensor mixed_;  ///< on the processor: a row for each of `voiced`
  // One call's, kept for their memory.
  std::vector<size_t> mine_;  ///< of `rows`, those drawn at one place
  std::vector<SampleRow> here_;
  std::vector<SampledToken> drawn_;
};

}  // namespace praetor
