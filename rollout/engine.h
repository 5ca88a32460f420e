#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/cuda/choose.h"
#include "core/model/generator.h"
#include "core/model/transformer.h"
#include "core/tokenizer/tokenizer.h"
#include "rollout/cached_model.h"
#include "rollout/engine_config.h"
#include "rollout/prefix_tree.h"
#include "rollout/processors/chain.h"
#include "rollout/sampler.h"
#include "rollout/voices.h"

namespace praetor {

/// What one call of generate did.
struct EngineStats {
  int64_t responses = 0;     ///< that ended
  int64_t tokens = 0;        ///< sampled, all responses
  double seconds = 0.0;      ///< wall clock
  int64_t steps = 0;         ///< each a forward pass of every model that its rows need
  int64_t prefill_rows = 0;  ///< rows of prompts, and of preempted sequences computed again
  int64_t decode_rows = 0;   ///< rows of one-token continuations and of drafts
  int64_t adopted_rows = 0;  ///< of prompts that began like others, so that nothing was computed
  int64_t drafted = 0;       ///< tokens guessed ahead
  int64_t accepted = 0;      ///< of them that were drawn
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
/// response is computed again later; sequences that begin alike share the full blocks of the
/// beginning. Requests that come and go: session.h.
///
/// A request's voice says whose distribution its tokens come from: the policy's, the companion's,
/// or a mixture of both full distributions at every token (voices.h). Requests of several voices
/// run side by side; a sequence costs a forward pass of each model that its voice needs, no more.
/// The log-probabilities of a Generation are then the voice's.
///
/// On a GPU (EngineConfig::device) forward passes and draws are the GPU library's, in bfloat16; all
/// else is the same. A model's weights are copied there, and again whenever they have changed.
///
/// On CPU in float32 a response is a function of the weights, their kind, the prompt, the
/// parameters, the voice and the key alone, bit for bit: batch, order, limits of EngineConfig,
/// preemption and threads do not touch it. Models and tokenizer are borrowed and outlive the
/// engine. The weights may be replaced in place between calls (and within one, set_refresh);
/// nothing is cached across calls. One thread at a time.
class Engine final : public Generator {
 public:
  /// The caches, one for each model that a call's voices need, are allocated by the calls, grow to
  /// what they need, and together stay below `cache_bytes`. The companion may have another shape,
  /// but has the same vocabulary; null: all requests are the policy's.
  /// @param device  for EngineDevice::kCuda, borrowed; null: the engine takes one of its own
  /// @throws InvalidArgument when a limit is out of range, a model has no language head or cannot
  /// have weights of the kind, or the device does not compute it, or the vocabularies differ;
  /// MissingInput when there is no GPU; DeviceMemoryError
  Engine(const Transformer& model,
         const Tokenizer& tokenizer,
         EngineConfig config = {},
         const Transformer* companion = nullptr,
         cuda::Device* device = nullptr);

  /// A response ends with a stop token or stop string, or when a processor says so (kStop), or at
  /// max_new_tokens or the last position of a model that its voice needs (kLength). After
  /// `on_finish` has returned false it is not called again.
  /// @throws InvalidArgument naming the request: an empty prompt, an id outside the vocabulary, a
  /// prompt that leaves no position for a response, a parameter or share out of range, a
  /// processor that cannot be made, a voice without its companion, a sequence that the whole cache
  /// cannot hold. Nothing has been generated then. DataError naming the request whose processors
  /// bar every token.
  void generate(std::span<const GenerationRequest> requests,
                const std::function<bool(Generation&&)>& on_finish) override;

  /// Called after every step from now on, by the thread that generates: a sign that work
  /// goes on, also while no response ends for long. Empty: nothing.
  void set_on_step(std::function<void()> on_step) { on_step_ = std::move(on_step); }

  /// Asked before each step of generate from now on, by the thread that generates: the version of
  /// weights that have just replaced the models' in place, or nothing. Running responses go on
  /// under them, with all keys and values computed anew, and Generation::versions says which tokens
  /// are whose (0: those from before). Empty: never.
  void set_refresh(std::function<std::optional<int64_t>()> refresh) {
    refresh_ = std::move(refresh);
  }

  /// Gives the caches' memory back, between calls and sessions; the next one takes it again.
  void release_cache();

  /// Of the last call of generate that returned.
  const EngineStats& stats() const { return stats_; }

 private:
  friend class Session;
  cuda::Device* open_device(cuda::Device* given);
  void bound_cache(cuda::Device* device);
  int64_t vocab_size() const;
  int64_t positions(const Voice& voice) const;
  int64_t response_limit(const GenerationRequest& request) const;  ///< tokens that it may have
  int64_t most_blocks(const ModelSet& used) const;                 ///< that cache_bytes allow
  int64_t blocks_wanted(std::span<const GenerationRequest> requests) const;
  /// The models of `used`, one bit each, that rotate a sequence of `length` tokens as a long one.
  PrefixTree::Models rotations(PrefixTree::Models used, int64_t length) const;
  /// Tokens that a sequence of `length` may grow by until one of them does so.
  int64_t tokens_before_switch(PrefixTree::Models used, int64_t length) const;
  void check(const GenerationRequest& request, const std::string& what);
  void check_fits(const GenerationRequest& request, const std::string& what, int64_t most) const;
  void make_room(int64_t blocks, const ModelSet& used);

  const Tokenizer& tokenizer_;
  EngineConfig config_;
  std::optional<cuda::ChosenDevice> own_device_;
  std::vector<std::unique_ptr<CachedModel>>
      models_;  ///< the policy; the companion, if there is one
  Sampler sampler_;
  ProcessorCache processors_;
  EngineStats stats_;
  std::function<void()> on_step_;
  std::function<std::optional<int64_t>()> refresh_;
  bool busy_ = false;  ///< a session has it
};

}  // namespace praetor
