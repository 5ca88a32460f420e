#include "core/model/weight_kind.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

const std::vector<std::string>& weight_kind_names() {
  static const std::vector<std::string> kNames = {"float32", "bfloat16", "int8"};
  return kNames;
}

WeightKind weight_kind_of(const std::string& name) {
  const auto& names = weight_kind_names();
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) {
    throw InvalidArgument(printable(name), " is no kind of weights; known: ", join(names, ", "));
  }
  return static_cast<WeightKind>(found - names.begin());
}

const std::string& to_string(WeightKind kind) {
  return weight_kind_names().at(static_cast<size_t>(kind));
}

}  // namespace praetor
