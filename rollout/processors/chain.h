#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/model/generator.h"
#include "rollout/processors/processor.h"

namespace praetor {

/// The processors of one response, in the order of its parameters.
class ProcessorChain {
 public:
  using Links = std::vector<std::pair<std::string, std::unique_ptr<LogitProcessor>>>;  ///< by kind

  /// @param request  its index, for messages
  ProcessorChain(int64_t request, Links links) : request_(request), links_(std::move(links)) {}

  void push(int64_t token);
  /// @throws DataError naming request and processor, when one has left no token
  void apply(std::span<float> z);
  bool complete();

 private:
  int64_t request_;
  Links links_;
};

/// The processors of an engine's requests, read and bound once for each set of options. Keeps those
/// used last. One thread.
class ProcessorCache {
 public:
  ProcessorCache(const Tokenizer& tokenizer, int64_t vocab_size)
      : vocabulary_(tokenizer, vocab_size) {}

  /// @throws InvalidArgument "`what`: processors[1]: regex: ..." when one cannot be made
  void check(const SamplingParams& params, const std::string& what);
  /// Null when there are none. The parameters are borrowed and have been checked.
  std::unique_ptr<ProcessorChain> start(const SamplingParams& params, int64_t request);

 private:
  static constexpr size_t kMost = 64;
  const StartProcessor& bound(const ProcessorSpec& spec);

  ProcessorVocabulary vocabulary_;
  std::list<std::pair<ProcessorSpec, StartProcessor>> bound_;  ///< the one used last first
};

}  // namespace praetor
