#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/config/yaml_reader.h"
#include "reward/judge.h"

namespace praetor {

/// Every judge: one source reward/judges/NAME.cpp with make_NAME, one line here. NAME is its `kind`
/// in the job file.
#define PRAETOR_JUDGES(X)  \
  X(code)                  \
  X(external)              \
  X(format)                \
  X(instruction_following) \
  X(keywords)              \
  X(length)                \
  X(math_answer)           \
  X(quote)                 \
  X(regex)                 \
  X(repetition)

/// Each reads its own keys of a part ("name", "kind" and "weight" are read already) and records
/// what is wrong with them in the document; the judge is empty when it could not be made. Unknown
/// keys are the caller's to reject.
#define X(name) std::shared_ptr<const Judge> make_##name(YamlReader& in);
PRAETOR_JUDGES(X)
#undef X

/// Names of all judges.
const std::vector<std::string>& judge_kinds();
/// Calls the one named `kind`; InternalError when there is none.
std::shared_ptr<const Judge> make_judge(const std::string& kind, YamlReader& in);

}  // namespace praetor
