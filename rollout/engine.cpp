#include "rollout/engine.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "rollout/sampling_config.h"
#include "rollout/scheduler.h"

namespace praetor {
namespace {

ModelSet models_of_all(std::span<const GenerationRequest> requests) {
  ModelSet all = {};
  for (const GenerationRequest& r : requests) {
    const ModelSet own = models_of(r.voice);
    for (size_t m = 0; m < all.size(); ++m) all[m] = all[m] || own[m];
  }
  return all;
}

void require(const char* key, int64_t value, const Range& range) {
  if (!range.holds(static_cast<double>(value))) {
    throw InvalidArgument("engine: ", key, ": ", value, " is outside ", range.text());
  }
}

}  // namespace

/// One call of Engine::generate.
class GenerationRun {
 public:
  GenerationRun(Engine& engine,
                std::span<const GenerationRequest> requests,
                int64_t blocks,
                const std::function<bool(Generation&&)>& on_finish)
      : engine_(engine),
        requests_(requests),
        used_(models_of_all(requests)),
        on_finish_(on_finish),
        scheduler_({.max_sequences = engine.config_.max_sequences,
                    .max_step_tokens = engine.config_.max_step_tokens,
                    .block_size = engine.config_.block_size,
                    .blocks = blocks},
                   [this] { return next_sequence(); }) {}

  EngineStats run() {
    while (!cancelled_) {
      const Scheduler::Step& step = scheduler_.plan();
      if (step.slices.empty()) break;
      for (const Scheduler::Copy& copy : step.copies) copy_block(copy);
      gather_rows(step);
      std::array<at::Tensor, 2> logits;
      for (size_t m = 0; m < engine_.models_.size(); ++m) logits[m] = engine_.models_[m].logits();
      ++stats_.steps;
      if (engine_.on_step_) engine_.on_step_();
      if (!ready_.empty()) sample(mix_voices(logits, voiced_));
    }
    stats_.preemptions = scheduler_.preemptions();
    stats_.peak_blocks = scheduler_.blocks().peak();
    return stats_;
  }

 private:
  const GenerationRequest& request_of(int64_t index) const {
    return requests_[static_cast<size_t>(index)];
  }

  std::unique_ptr<Response> new_response(int64_t request, int32_t sample) const {
    const GenerationRequest& r = request_of(request);
    return std::make_unique<Response>(r,
                                      request,
                                      sample,
                                      engine_.tokenizer_,
                                      engine_.response_limit(r),
                                      engine_.vocab_size(),
                                      engine_.processors_.start(r.params, request));
  }

  std::unique_ptr<Sequence> new_sequence(int64_t request, int32_t sample) const {
    const GenerationRequest& r = request_of(request);
    auto s = std::make_unique<Sequence>();
    s->request = request;
    s->sample = sample;
    s->tokens.reserve(r.prompt.size() + static_cast<size_t>(engine_.response_limit(r)));
    s->tokens = r.prompt;
    s->response = new_response(request, sample);
    return s;
  }

  std::unique_ptr<Sequence> next_sequence() {
    if (next_ == requests_.size()) return nullptr;
    auto s = new_sequence(static_cast<int64_t>(next_), 0);
    s->forks = requests_[next_].samples - 1;
    ++next_;
    return s;
  }

  // In every cache of the call: whose voice wrote the block does not matter, and the ids are one.
  void copy_block(const Scheduler::Copy& copy) {
    for (size_t m = 0; m < engine_.models_.size(); ++m) {
      if (used_[m]) engine_.models_[m].copy_block(copy);
    }
  }

  // A sequence's rows go to the models that its voice needs.
  void gather_rows(const Scheduler::Step& step) {
    for (CachedModel& model : engine_.models_) model.clear_rows();
    ready_.clear();
    voiced_.clear();
    for (const auto& [s, count] : step.slices) {
      (s->pending() == 1 ? stats_.decode_rows : stats_.prefill_rows) += count;
      const Voice& voice = request_of(s->request).voice;
      const ModelSet needed = models_of(voice);
      VoicedRow voiced{.share = voice.share};
      for (size_t m = 0; m < needed.size(); ++m) {
        if (needed[m]) voiced.row[m] = engine_.models_[m].add_rows(*s, count);
      }
      s->computed += count;
      if (s->pending() == 0) {
        ready_.push_back(s);
        voiced_.push_back(voiced);
      }
    }
  }

  // Draws for every sequence that is ready, the forks of a fresh prompt from its one row.
  void sample(const at::Tensor& logits) {
    draws_.clear();
    forks_.clear();
    for (size_t i = 0; i < ready_.size(); ++i) {
      Sequence* s = ready_[i];
      const auto row = static_cast<int64_t>(i);
      draws_.push_back(s->response->next_row(row));
      for (int32_t k = 1; k <= s->forks; ++k) {
        forks_.push_back(new_sequence(s->request, k));
        draws_.push_back(forks_.back()->response->next_row(row));
      }
    }
    engine_.sampler_.sample(logits, draws_, drawn_);
    size_t draw = 0;
    size_t fork = 0;
    for (Sequence* s : ready_) {
      const SampledToken own = drawn_[draw++];
      // Forks share the parent's blocks, so they are made before it can end.
      for (; s->forks > 0; --s->forks) add_fork(*s, std::move(forks_[fork++]), drawn_[draw++]);
      if (cancelled_) return;
      if (advance(*s, own)) {
        const std::unique_ptr<Sequence> ended = scheduler_.finish(s);
        deliver(*ended);
      } else if (outgrew_cache(*s)) {
        scheduler_.add(scheduler_.finish(s));
      }
      if (cancelled_) return;
    }
  }

  void add_fork(const Sequence& parent, std::unique_ptr<Sequence> fork, const SampledToken& first) {
    fork->computed = parent.computed;
    if (cancelled_) return;
    if (advance(*fork, first)) {
      deliver(*fork);
    } else if (outgrew_cache(*fork)) {
      fork->computed = 0;
      scheduler_.add(std::move(fork));
    } else {
      scheduler_.fork(parent, std::move(fork));
    }
  }

  // True when the last token made the sequence longer than its model's switch length: the keys in
  // the cache are of the shorter sequence's rotation, and all are computed again.
  bool outgrew_cache(const Sequence& s) const {
    const ModelSet needed = models_of(request_of(s.request).voice);
    for (size_t m = 0; m < engine_.models_.size(); ++m) {
      const int64_t most = needed[m] ? engine_.models_[m].config().switch_length() : 0;
      if (most > 0 && s.length() == most + 1) return true;
    }
    return false;
  }

  bool advance(Sequence& s, const SampledToken& sampled) {
    ++stats_.tokens;
    s.tokens.push_back(sampled.token);
    return s.response->push(sampled);
  }

  void deliver(Sequence& s) {
    ++stats_.responses;
    cancelled_ = !on_finish_(s.response->take());
  }

  Engine& engine_;
  std::span<const GenerationRequest> requests_;
  const ModelSet used_;
  const std::function<bool(Generation&&)>& on_finish_;
  Scheduler scheduler_;
  size_t next_ = 0;
  bool cancelled_ = false;
  EngineStats stats_;
  // One step's, kept for their memory.
  std::vector<Sequence*> ready_;
  std::vector<VoicedRow> voiced_;  ///< of ready_
  std::vector<std::unique_ptr<Sequence>> forks_;
  std::vector<SampleRow> draws_;
  std::vector<SampledToken> drawn_;
};

Engine::Engine(const Transformer& model,
               const Tokenizer& tokenizer,
               EngineConfig config,
               const Transformer* companion)
    : tokenizer_(tokenizer), config_(config), processors_(tokenizer, model.config().vocab_size) {
  require("max_sequences", config.max_sequences, at_least(1));
  require("max_step_tokens",
          config.max_step_tokens,
          at_least(static_cast<double>(config.max_sequences)));
  require("block_size", config.block_size, at_least(1));
  models_.emplace_back(model, config.block_size);
  if (companion) {
    models_.emplace_back(*companion, config.block_size);
    const int64_t vocab = companion->config().vocab_size;
    if (vocab != vocab_size()) {
      throw InvalidArgument("engine: the companion's vocabulary of ",
                            vocab,
                            " tokens is not the policy's of ",
                            vocab_size(),
                            ": voices are mixed token by token, so they must be the same");
    }
  }
  int64_t bytes = 0;
  for (const CachedModel& m : models_) bytes += m.block_bytes();
  require("cache_bytes", config.cache_bytes, at_least(static_cast<double>(bytes)));
}

int64_t Engine::vocab_size() const {
  return models_[kPolicyModel].config().vocab_size;
}

int64_t Engine::positions(const Voice& voice) const {
  int64_t least = std::numeric_limits<int64_t>::max();
  const ModelSet needed = models_of(voice);
  for (size_t m = 0; m < models_.size(); ++m) {
    if (needed[m]) least = std::min(least, models_[m].config().max_positions);
  }
  return least;
}

int64_t Engine::response_limit(const GenerationRequest& request) const {
  return std::min(request.params.max_new_tokens,
                  positions(request.voice) - static_cast<int64_t>(request.prompt.size()));
}

int64_t Engine::most_blocks(const ModelSet& used) const {
  int64_t bytes = 0;
  for (size_t m = 0; m < models_.size(); ++m) {
    if (used[m]) bytes += models_[m].block_bytes();
  }
  return config_.cache_bytes / bytes;
}

// Blocks with which nothing waits for one: the longest sequences of the call side by side, each
// with a block for the part of a prompt that it shared at first.
int64_t Engine::blocks_wanted(std::span<const GenerationRequest> requests) const {
  std::vector<int64_t> blocks;
  for (const GenerationRequest& r : requests) {
    const int64_t length = static_cast<int64_t>(r.prompt.size()) + response_limit(r);
    const int64_t copies = std::min<int64_t>(r.samples, config_.max_sequences);
    blocks.insert(
        blocks.end(), static_cast<size_t>(copies), blocks_for(length, config_.block_size) + 1);
  }
  const auto running = std::min(static_cast<std::ptrdiff_t>(blocks.size()),
                                static_cast<std::ptrdiff_t>(config_.max_sequences));
  std::partial_sort(blocks.begin(), blocks.begin() + running, blocks.end(), std::greater<>());
  return std::accumulate(blocks.begin(), blocks.begin() + running, int64_t{1});
}

void Engine::check(const GenerationRequest& request, size_t index) const {
  const std::string what = str("request ", index);
  check_sampling(request.params, what);
  const Voice& voice = request.voice;
  if (voice.kind != VoiceKind::kPolicy && models_.size() <= kCompanionModel)
    throw InvalidArgument(what, ": its voice needs a companion, and the engine has none");
  if (voice.kind == VoiceKind::kMixture && !open(0, 1).holds(voice.share)) {
    throw InvalidArgument(
        what, ": the companion's share of a mixture: ", voice.share, " is outside (0, 1)");
  }
  if (request.samples < 1) {
    throw InvalidArgument(what, ": samples: ", request.samples, " is outside >= 1");
  }
  const auto length = static_cast<int64_t>(request.prompt.size());
  if (length == 0)
    throw InvalidArgument(what, ": the prompt is empty: it needs at least one token");
  if (length >= positions(voice)) {
    throw InvalidArgument(what,
                          ": the prompt has ",
                          length,
                          " tokens; the model has ",
                          positions(voice),
                          " positions, and the response needs at least one of them");
  }
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    const int64_t id = request.prompt[i];
    if (id < 0 || id >= vocab_size()) {
      throw InvalidArgument(what,
                            ": prompt token ",
                            id,
                            " at position ",
                            i,
                            " is outside the model's vocabulary of ",
                            vocab_size());
    }
  }
}

void Engine::check_fits(const GenerationRequest& request, size_t index, int64_t most) const {
  const int64_t longest = static_cast<int64_t>(request.prompt.size()) + response_limit(request);
  const int64_t needed = blocks_for(longest, config_.block_size);
  if (needed > most) {
    throw InvalidArgument("request ",
                          index,
                          ": ",
                          longest,
                          " tokens need ",
                          needed,
                          " cache blocks, and there are ",
                          most,
                          ": raise cache_bytes (now ",
                          config_.cache_bytes,
                          ") or lower max_new_tokens");
  }
}

void Engine::make_room(int64_t blocks, const ModelSet& used) {
  const auto grows = [&](size_t m) { return used[m] && models_[m].blocks() < blocks; };
  int64_t bytes = 0;
  for (size_t m = 0; m < models_.size(); ++m) {
    bytes += (grows(m) ? blocks : models_[m].blocks()) * models_[m].block_bytes();
  }
  // What an earlier call left is in the way.
  if (bytes > config_.cache_bytes) {
    for (CachedModel& model : models_) model.release();
  }
  for (size_t m = 0; m < models_.size(); ++m) {
    if (grows(m)) models_[m].allocate(blocks);
  }
}

void Engine::generate(std::span<const GenerationRequest> requests,
                      const std::function<bool(Generation&&)>& on_finish) {
  const c10::NoGradGuard no_grad;
  for (size_t i = 0; i < requests.size(); ++i) {
    check(requests[i], i);
    processors_.check(requests[i].params, str("request ", i));
  }
  if (requests.empty()) {
    stats_ = {};
    return;
  }
  const ModelSet used = models_of_all(requests);
  const int64_t most = most_blocks(used);
  for (size_t i = 0; i < requests.size(); ++i) check_fits(requests[i], i, most);
  const auto start = std::chrono::steady_clock::now();
  const int64_t blocks = std::min(most, blocks_wanted(requests));
  make_room(blocks, used);
  EngineStats stats = GenerationRun(*this, requests, blocks, on_finish).run();
  stats.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  stats_ = stats;
}

}  // namespace praetor
