#include "rollout/engine.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "rollout/sampling_config.h"
#include "rollout/session.h"

namespace praetor {
namespace {

/// Of a GPU's cache that nobody bounds: sixteen million tokens at the default block_size.
constexpr int64_t kMostOwnBlocks = int64_t{1} << 20;

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

// Indices of `requests`, those with one prompt side by side where the first stands, the ones that
// need more models first: what they compute serves the others. Responses do not depend on it.
std::vector<size_t> submission_order(std::span<const GenerationRequest> requests) {
  std::map<std::vector<int64_t>, size_t> first;
  std::vector<std::pair<size_t, int>> rank;
  for (size_t i = 0; i < requests.size(); ++i) {
    const ModelSet models = models_of(requests[i].voice);
    const auto alone = static_cast<int>(std::count(models.begin(), models.end(), false));
    rank.emplace_back(first.emplace(requests[i].prompt, i).first->second, alone);
  }
  std::vector<size_t> order(requests.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(
      order.begin(), order.end(), [&](size_t a, size_t b) { return rank[a] < rank[b]; });
  return order;
}

}  // namespace

Engine::Engine(const Transformer& model,
               const Tokenizer& tokenizer,
               EngineConfig config,
               const Transformer* companion,
               cuda::Device* device)
    : tokenizer_(tokenizer), config_(config), processors_(tokenizer, model.config().vocab_size) {
  require("max_sequences", config.max_sequences, at_least(1));
  require("max_step_tokens",
          config.max_step_tokens,
          at_least(static_cast<double>(config.max_sequences)));
  require("block_size", config.block_size, at_least(1));
  require("draft_tokens", config.draft_tokens, at_least(0));
  device = open_device(device);
  models_.push_back(CachedModel::make(model, config, device));
  if (companion) {
    models_.push_back(CachedModel::make(*companion, config, device));
    const int64_t vocab = companion->config().vocab_size;
    if (vocab != vocab_size()) {
      throw InvalidArgument("engine: the companion's vocabulary of ",
                            vocab,
                            " tokens is not the policy's of ",
                            vocab_size(),
                            ": voices are mixed token by token, so they must be the same");
    }
  }
  bound_cache(device);
}

// Where the models compute; null: on the processor.
cuda::Device* Engine::open_device(cuda::Device* given) {
  if (config_.device == EngineDevice::kCpu) return nullptr;
  if (config_.weights != WeightKind::kBfloat16) {
    throw InvalidArgument(
        "engine: weights: ", to_string(config_.weights), ": device cuda multiplies by bfloat16");
  }
  if (given) return given;
  own_device_.emplace(cuda::ChosenDevice::take());
  return &own_device_->device();
}

void Engine::bound_cache(cuda::Device* device) {
  int64_t bytes = 0;
  for (const auto& m : models_) bytes += m->block_bytes();
  if (device) {
    // Behind the weights, which have their memory already. What is left of it is for CUDA itself.
    const int64_t room = device->free_bytes() / 10 * 9;
    if (room < bytes) {
      throw cuda::DeviceMemoryError(str("engine: device: cuda: ",
                                        device->free_bytes(),
                                        " bytes of ",
                                        device->description().name,
                                        " are free beside the weights, and one block of the cache "
                                        "takes ",
                                        bytes));
    }
    const int64_t wanted = config_.cache_bytes > 0 ? config_.cache_bytes : kMostOwnBlocks * bytes;
    config_.cache_bytes = std::min(wanted, room);
  }
  require("cache_bytes", config_.cache_bytes, at_least(static_cast<double>(bytes)));
}

int64_t Engine::vocab_size() const {
  return models_[kPolicyModel]->config().vocab_size;
}

int64_t Engine::positions(const Voice& voice) const {
  int64_t least = std::numeric_limits<int64_t>::max();
  const ModelSet needed = models_of(voice);
  for (size_t m = 0; m < models_.size(); ++m) {
    if (needed[m]) least = std::min(least, models_[m]->config().max_positions);
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
    if (used[m]) bytes += models_[m]->block_bytes();
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

int64_t Engine::tokens_before_switch(PrefixTree::Models used, int64_t length) const {
  int64_t least = std::numeric_limits<int64_t>::max();
  for (size_t m = 0; m < models_.size(); ++m) {
    const int64_t most = (used >> m & 1U) != 0 ? models_[m]->config().switch_length() : 0;
    if (most >= length) least = std::min(least, most - length);
  }
  return least;
}

PrefixTree::Models Engine::rotations(PrefixTree::Models used, int64_t length) const {
  PrefixTree::Models switched = 0;
  for (size_t m = 0; m < models_.size(); ++m) {
    const int64_t most = (used >> m & 1U) != 0 ? models_[m]->config().switch_length() : 0;
    switched |= most > 0 && length > most ? 1U << m : 0U;
  }
  return switched;
}

void Engine::check(const GenerationRequest& request, const std::string& what) {
  check_sampling(request.params, what);
  processors_.check(request.params, what);
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

void Engine::check_fits(const GenerationRequest& request,
                        const std::string& what,
                        int64_t most) const {
  const int64_t longest = static_cast<int64_t>(request.prompt.size()) + response_limit(request);
  const int64_t needed = blocks_for(longest, config_.block_size);
  if (needed > most) {
    throw InvalidArgument(what,
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
  const auto grows = [&](size_t m) { return used[m] && models_[m]->blocks() < blocks; };
  int64_t bytes = 0;
  for (size_t m = 0; m < models_.size(); ++m) {
    bytes += (grows(m) ? blocks : models_[m]->blocks()) * models_[m]->block_bytes();
  }
  // What an earlier call left is in the way.
  if (bytes > config_.cache_bytes) {
    for (const auto& model : models_) model->release();
  }
  for (size_t m = 0; m < models_.size(); ++m) {
    if (grows(m)) models_[m]->allocate(blocks);
  }
}

void Engine::release_cache() {
  PRAETOR_CHECK(!busy_, "the cache of an engine at work");
  for (const auto& model : models_) model->release();
}

void Engine::generate(std::span<const GenerationRequest> requests,
                      const std::function<bool(Generation&&)>& on_finish) {
  for (size_t i = 0; i < requests.size(); ++i) check(requests[i], str("request ", i));
  if (requests.empty()) {
    stats_ = {};
    return;
  }
  const ModelSet used = models_of_all(requests);
  const int64_t most = most_blocks(used);
  for (size_t i = 0; i < requests.size(); ++i) check_fits(requests[i], str("request ", i), most);
  Session session(*this, used, std::min(most, blocks_wanted(requests)), /*keep_responses=*/false);
  bool wanted = true;
  for (const size_t i : submission_order(requests)) {
    const auto deliver = [&wanted, &on_finish, i](Generation&& made) {
      if (!wanted) return;
      made.request = static_cast<int64_t>(i);
      wanted = on_finish(std::move(made));
    };
    // The caller keeps the requests.
    session.submit({std::shared_ptr<void>(), &requests[i]}, {.on_finish = deliver}, std::nullopt);
  }
  while (wanted) {
    if (const auto version = refresh_ ? refresh_() : std::nullopt)
      session.weights_replaced(*version, /*recompute=*/true);
    if (!session.step()) break;
  }
  stats_ = session.stats();
}

}  // namespace praetor
