#pragma once

#include <string>
#include <vector>

#include "core/model/generator.h"
#include "rollout/processors/options.h"
#include "rollout/processors/processor.h"

namespace praetor {

/// Every logit processor: one source below rollout/processors with read_NAME, one line here. NAME
/// is its `kind` in `sampling.processors`.
#define PRAETOR_PROCESSORS(X) \
  X(allowed_tokens)           \
  X(bad_words)                \
  X(frequency_penalty)        \
  X(json_schema)              \
  X(logit_bias)               \
  X(min_new_tokens)           \
  X(presence_penalty)         \
  X(regex)

/// Each reads and checks its own options. Unknown keys are the caller's to reject.
/// @throws InvalidArgument "key: ..."
#define X(name) BindProcessor read_##name(ProcessorOptions& in);
PRAETOR_PROCESSORS(X)
#undef X

/// Names of all processors.
const std::vector<std::string>& processor_kinds();

/// Reads the options of a processor. @throws InvalidArgument "KIND: key: ..." or naming the known
/// kinds
BindProcessor read_processor(const ProcessorSpec& spec);

}  // namespace praetor
