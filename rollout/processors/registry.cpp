#include "rollout/processors/registry.h"

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {
namespace {

BindProcessor read_options(const std::string& kind, ProcessorOptions& in) {
#define X(name) \
  if (kind == #name) return read_##name(in);
  PRAETOR_PROCESSORS(X)
#undef X
  throw InvalidArgument("no processor is of this kind; known: ", join(processor_kinds(), ", "));
}

}  // namespace

const std::vector<std::string>& processor_kinds() {
#define X(name) #name,
  static const std::vector<std::string> kKinds = {PRAETOR_PROCESSORS(X)};
#undef X
  return kKinds;
}

BindProcessor read_processor(const ProcessorSpec& spec) {
  try {
    ProcessorOptions options(spec.options);
    BindProcessor bind = read_options(spec.kind, options);
    options.reject_unknown_keys();
    return bind;
  } catch (const InvalidArgument& failure) {
    throw InvalidArgument(printable(spec.kind), ": ", failure.what());
  }
}

}  // namespace praetor
