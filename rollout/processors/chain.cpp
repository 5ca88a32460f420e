#include "rollout/processors/chain.h"

#include <algorithm>

#include "core/base/error.h"
#include "rollout/draw.h"
#include "rollout/processors/registry.h"

namespace praetor {

void ProcessorVocabulary::check_token(const char* key, int64_t id) const {
  if (id < 0 || id >= size_)
    throw InvalidArgument(key, ": token ", id, " is outside the vocabulary of ", size_);
}

std::shared_ptr<const grammar::TokenTable> ProcessorVocabulary::table() {
  if (!table_) table_ = std::make_shared<const grammar::TokenTable>(tokenizer_, size_);
  return table_;
}

void ProcessorChain::push(int64_t token) {
  for (auto& [kind, processor] : links_) processor->push(token);
}

void ProcessorChain::apply(std::span<float> z) {
  for (auto& [kind, processor] : links_) {
    processor->apply(z);
    const bool left = std::any_of(z.begin(), z.end(), [](float value) { return value != kBarred; });
    if (!left) {
      throw DataError("request ",
                      request_,
                      ": the sampling processor ",
                      kind,
                      " has barred every token that was left");
    }
  }
}

bool ProcessorChain::complete() {
  return std::any_of(
      links_.begin(), links_.end(), [](const auto& link) { return link.second->complete(); });
}

const StartProcessor& ProcessorCache::bound(const ProcessorSpec& spec) {
  const auto known = std::find_if(
      bound_.begin(), bound_.end(), [&](const auto& each) { return each.first == spec; });
  if (known != bound_.end()) {
    bound_.splice(bound_.begin(), bound_, known);
    return bound_.front().second;
  }
  const BindProcessor bind = read_processor(spec);
  bound_.emplace_front(spec, StartProcessor());
  try {
    bound_.front().second = bind(vocabulary_);
  } catch (const InvalidArgument& failure) {
    bound_.pop_front();
    throw InvalidArgument(spec.kind, ": ", failure.what());
  }
  if (bound_.size() > kMost) bound_.pop_back();
  return bound_.front().second;
}

void ProcessorCache::check(const SamplingParams& params, const std::string& what) {
  for (size_t i = 0; i < params.processors.size(); ++i) {
    try {
      bound(params.processors[i]);
    } catch (const InvalidArgument& failure) {
      throw InvalidArgument(what, ": processors[", i, "]: ", failure.what());
    }
  }
}

std::unique_ptr<ProcessorChain> ProcessorCache::start(const SamplingParams& params,
                                                      int64_t request) {
  if (params.processors.empty()) return nullptr;
  ProcessedResponse response;
  if (!params.ignore_eos) response.stop_tokens = params.stop_tokens;
  if (params.temperature > 0) response.temperature = params.temperature;
  ProcessorChain::Links links;
  for (const ProcessorSpec& spec : params.processors)
    links.emplace_back(spec.kind, bound(spec)(response));
  return std::make_unique<ProcessorChain>(request, std::move(links));
}

}  // namespace praetor
