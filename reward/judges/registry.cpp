#include "reward/judges/registry.h"

#include "core/base/error.h"

namespace praetor {

const std::vector<std::string>& judge_kinds() {
#define X(name) #name,
  static const std::vector<std::string> kKinds = {PRAETOR_JUDGES(X)};
#undef X
  return kKinds;
}

std::shared_ptr<const Judge> make_judge(const std::string& kind, YamlReader& in) {
#define X(name) \
  if (kind == #name) return make_##name(in);
  PRAETOR_JUDGES(X)
#undef X
  throw InternalError("no judge is named ", kind);
}

}  // namespace praetor
