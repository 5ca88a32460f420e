#include "rollout/engine.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "rollout/sampling_config.h"
#include "rollout/scheduler.h"

namespace praetor {
namespace {

int64_t block_bytes(const ModelConfig& model, int64_t block_size, int64_t element_size) {
  return model.num_layers * 2 * block_size * model.num_kv_heads * model.head_dim * element_size;
}

// Tokens that the response to `request` may have.
int64_t response_limit(const GenerationRequest& request, const ModelConfig& model) {
  return std::min(request.params.max_new_tokens,
                  model.max_positions - static_cast<int64_t>(request.prompt.size()));
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
                const std::function<bool(Generation&&)>& on_finish)
      : engine_(engine),
        requests_(requests),
        on_finish_(on_finish),
        scheduler_({.max_sequences = engine.config_.max_sequences,
                    .max_step_tokens = engine.config_.max_step_tokens,
                    .block_size = engine.config_.block_size,
                    .blocks = engine.blocks_},
                   [this] { return next_sequence(); }) {}

  EngineStats run() {
    while (!cancelled_) {
      const Scheduler::Step& step = scheduler_.plan();
      if (step.slices.empty()) break;
      for (const Scheduler::Copy& copy : step.copies) copy_block(copy);
      gather_rows(step);
      const at::Tensor hidden = engine_.model_.hidden_cached(rows_, engine_.cache_, want_);
      ++stats_.steps;
      if (engine_.on_step_) engine_.on_step_();
      // Rows whose hidden state nobody wants are computed for the cache alone.
      if (!ready_.empty()) sample(engine_.model_.logits(hidden).to(at::kFloat).contiguous());
    }
    stats_.preemptions = scheduler_.preemptions();
    stats_.peak_blocks = scheduler_.blocks().peak();
    return stats_;
  }

 private:
  std::unique_ptr<Response> new_response(int64_t request, int32_t sample) const {
    const GenerationRequest& r = requests_[static_cast<size_t>(request)];
    const ModelConfig& model = engine_.model_.config();
    return std::make_unique<Response>(
        r, request, sample, engine_.tokenizer_, response_limit(r, model), model.vocab_size);
  }

  std::unique_ptr<Sequence> new_sequence(int64_t request, int32_t sample) const {
    const GenerationRequest& r = requests_[static_cast<size_t>(request)];
    auto s = std::make_unique<Sequence>();
    s->request = request;
    s->sample = sample;
    s->tokens.reserve(r.prompt.size() +
                      static_cast<size_t>(response_limit(r, engine_.model_.config())));
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

  void copy_block(const Scheduler::Copy& copy) {
    for (KvLayer& layer : engine_.cache_.layers) {
      for (at::Tensor* tensor : {&layer.keys, &layer.values}) {
        tensor->select(0, copy.to)
            .narrow(0, 0, copy.rows)
            .copy_(tensor->select(0, copy.from).narrow(0, 0, copy.rows));
      }
    }
  }

  void gather_rows(const Scheduler::Step& step) {
    rows_.tokens.clear();
    rows_.positions.clear();
    rows_.sequence.clear();
    rows_.tables.clear();
    want_.clear();
    ready_.clear();
    for (const auto& [s, count] : step.slices) {
      (s->pending() == 1 ? stats_.decode_rows : stats_.prefill_rows) += count;
      const auto table = static_cast<int32_t>(rows_.tables.size());
      rows_.tables.push_back(&s->table);
      for (int64_t i = 0; i < count; ++i) {
        rows_.tokens.push_back(s->tokens[static_cast<size_t>(s->computed + i)]);
        rows_.positions.push_back(static_cast<int32_t>(s->computed + i));
        rows_.sequence.push_back(table);
      }
      s->computed += count;
      if (s->pending() == 0) {
        ready_.push_back(s);
        want_.push_back(static_cast<int64_t>(rows_.tokens.size()) - 1);
      }
    }
    // An empty list would mean all rows.
    if (want_.empty()) want_.push_back(0);
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
      if (!cancelled_ && advance(*s, own)) {
        const std::unique_ptr<Sequence> ended = scheduler_.finish(s);
        deliver(*ended);
      }
      if (cancelled_) return;
    }
  }

  void add_fork(const Sequence& parent, std::unique_ptr<Sequence> fork, const SampledToken& first) {
    fork->computed = parent.computed;
    if (cancelled_) return;
    if (advance(*fork, first)) {
      deliver(*fork);
    } else {
      scheduler_.fork(parent, std::move(fork));
    }
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
  const std::function<bool(Generation&&)>& on_finish_;
  Scheduler scheduler_;
  size_t next_ = 0;
  bool cancelled_ = false;
  EngineStats stats_;
  // One step's, kept for their memory.
  CachedRows rows_;
  std::vector<int64_t> want_;
  std::vector<Sequence*> ready_;
  std::vector<std::unique_ptr<Sequence>> forks_;
  std::vector<SampleRow> draws_;
  std::vector<SampledToken> drawn_;
};

Engine::Engine(const Transformer& model,
               const Tokenizer& tokenizer,
               EngineConfig config,
               const Transformer* companion)
    : model_(model), companion_(companion), tokenizer_(tokenizer), config_(config) {
  require("max_sequences", config.max_sequences, at_least(1));
  require("max_step_tokens",
          config.max_step_tokens,
          at_least(static_cast<double>(config.max_sequences)));
  require("block_size", config.block_size, at_least(1));
  const ModelConfig& c = model.config();
  const int64_t bytes =
      block_bytes(c, config.block_size, static_cast<int64_t>(model.head().element_size()));
  require("cache_bytes", config.cache_bytes, at_least(static_cast<double>(bytes)));
  most_blocks_ = config.cache_bytes / bytes;
}

// Blocks with which nothing waits for one: the longest sequences of the call side by side, each
// with a block for the part of a prompt that it shared at first.
int64_t Engine::blocks_wanted(std::span<const GenerationRequest> requests) const {
  std::vector<int64_t> blocks;
  for (const GenerationRequest& r : requests) {
    const int64_t length =
        static_cast<int64_t>(r.prompt.size()) + response_limit(r, model_.config());
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
  const ModelConfig& c = model_.config();
  check_sampling(request.params, what);
  if (request.voice.kind != VoiceKind::kPolicy && !companion_)
    throw InvalidArgument(what, ": its voice needs a companion, and the engine has none");
  if (request.samples < 1) {
    throw InvalidArgument(what, ": samples: ", request.samples, " is outside >= 1");
  }
  const auto length = static_cast<int64_t>(request.prompt.size());
  if (length == 0)
    throw InvalidArgument(what, ": the prompt is empty: it needs at least one token");
  if (length >= c.max_positions) {
    throw InvalidArgument(what,
                          ": the prompt has ",
                          length,
                          " tokens; the model has ",
                          c.max_positions,
                          " positions, and the response needs at least one of them");
  }
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    const int64_t id = request.prompt[i];
    if (id < 0 || id >= c.vocab_size) {
      throw InvalidArgument(what,
                            ": prompt token ",
                            id,
                            " at position ",
                            i,
                            " is outside the model's vocabulary of ",
                            c.vocab_size);
    }
  }
  const int64_t longest = length + response_limit(request, c);
  const int64_t needed = blocks_for(longest, config_.block_size);
  if (needed > most_blocks_) {
    throw InvalidArgument(what,
                          ": ",
                          longest,
                          " tokens need ",
                          needed,
                          " cache blocks, and there are ",
                          most_blocks_,
                          ": raise cache_bytes (now ",
                          config_.cache_bytes,
                          ") or lower max_new_tokens");
  }
}

void Engine::generate(std::span<const GenerationRequest> requests,
                      const std::function<bool(Generation&&)>& on_finish) {
  const c10::NoGradGuard no_grad;
  for (size_t i = 0; i < requests.size(); ++i) check(requests[i], i);
  const auto start = std::chrono::steady_clock::now();
  const int64_t wanted = std::min(most_blocks_, blocks_wanted(requests));
  if (wanted > blocks_) {
    // The old cache goes first, so that the two are never held together.
    cache_ = {};
    blocks_ = 0;
    cache_ = model_.make_cache(wanted, config_.block_size);
    blocks_ = wanted;
  }
  EngineStats stats = GenerationRun(*this, requests, on_finish).run();
  stats.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  stats_ = stats;
}

}  // namespace praetor
