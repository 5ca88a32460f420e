#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>

#include "core/model/generator.h"
#include "core/model/transformer.h"
#include "core/tokenizer/tokenizer.h"
#include "rollout/engine_config.h"
#include "rollout/sampler.h"

namespace praetor {

/// What one call of generate did.
struct EngineStats {
  int64_t responses = 0;     ///< that ended
  int64_t tokens = 0;        ///< sampled, all responses
  double seconds = 0.0;      ///< wall clock
  int64_t steps = 0;         ///< forward passes
  int64_t prefill_rows = 0;  ///< rows of prompts, and of preempted sequences computed again
  int64_t decode_rows = 0;   ///< rows of one-token continuations
  int64_t preemptions = 0;
  int64_t peak_blocks = 0;  ///< most cache blocks in use
  double mean_batch() const {
    return steps == 0
               ? 0.0
               : static_cast<double>(prefill_rows + decode_rows) / static_cast<double>(steps);
  }
};

/// The generation engine: continuous batching over a paged KV cache. A response that ends makes
/// room at once; prompts are computed in chunks beside running responses, without padding; the n
/// samples of a prompt share its computation and its blocks. When blocks run short the youngest
/// response is computed again later.
///
/// On CPU in float32 a response is a function of the weights, the prompt, the parameters and the
/// key alone, bit for bit: batch, order, limits of EngineConfig, preemption and threads do not
/// touch it. Model and tokenizer are borrowed and outlive the engine. The weights may be replaced
/// in place between calls; nothing is cached across calls. One thread at a time.
class Engine final : public Generator {
 public:
  /// The cache is allocated by the calls, grows to what they need, and stays below `cache_bytes`.
  /// @throws InvalidArgument when a limit is out of range
  Engine(const Transformer& model,
         const Tokenizer& tokenizer,
         EngineConfig config = {},
         const Transformer* companion = nullptr);

  /// A response ends with a stop token or stop string (kStop), or at max_new_tokens or the model's
  /// last position (kLength). After `on_finish` has returned false it is not called again.
  /// @throws InvalidArgument naming the request: an empty prompt, an id outside the vocabulary, a
  /// prompt that leaves no position for a response, a parameter out of range, a sequence that the
  /// whole cache cannot hold. Nothing has been generated then.
  void generate(std::span<const GenerationRequest> requests,
                const std::function<bool(Generation&&)>& on_finish) override;

  /// Called after every forward pass from now on, by the thread that generates: a sign that work
  /// goes on, also while no response ends for long. Empty: nothing.
  void set_on_step(std::function<void()> on_step) { on_step_ = std::move(on_step); }

  /// Of the last call of generate that returned.
  const EngineStats& stats() const { return stats_; }

 private:
  friend class GenerationRun;
  void check(const GenerationRequest& request, size_t index) const;
  int64_t blocks_wanted(std::span<const GenerationRequest> requests) const;

  const Transformer& model_;
  const Transformer* companion_;
  const Tokenizer& tokenizer_;
  EngineConfig config_;
  int64_t most_blocks_ = 0;  ///< that cache_bytes allow
  int64_t blocks_ = 0;       ///< of cache_
  KvCache cache_;
  Sampler sampler_;
  EngineStats stats_;
  std::function<void()> on_step_;
};

}  // namespace praetor
