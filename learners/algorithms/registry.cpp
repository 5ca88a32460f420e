#include <ATen/ATen.h>

#include "core/base/error.h"
#include "core/base/text.h"
#include "learners/algorithm.h"

// The list is explicit: linkers drop self-registering objects from static libraries.
#define PRAETOR_ALGORITHMS(X) \
  X(ppo)                      \
  X(sft)                      \
  X(reward_model)             \
  X(attribute_model)          \
  X(attribute_probe)          \
  X(attribute_gate)           \
  X(preference_model)         \
  X(dpo)                      \
  X(nash_md)                  \
  X(nash_ema)                 \
  X(online_dpo)               \
  X(online_ipo)               \
  X(ipo_md)                   \
  X(xpo)                      \
  X(inpo)                     \
  X(sppo)                     \
  X(cgpo)                     \
  X(grpo)                     \
  X(dr_grpo)                  \
  X(dapo)                     \
  X(gspo)                     \
  X(rloo)                     \
  X(reinforce_pp)             \
  X(remax)                    \
  X(raft)                     \
  X(dpa)

namespace praetor {

#define X(name) std::unique_ptr<Algorithm> make_##name(const AlgorithmContext& context);
PRAETOR_ALGORITHMS(X)
#undef X

const std::vector<std::string>& algorithm_names() {
#define X(name) #name,
  static const std::vector<std::string> kNames{PRAETOR_ALGORITHMS(X)};
#undef X
  return kNames;
}

std::unique_ptr<Algorithm> make_algorithm(const std::string& name,
                                          const AlgorithmContext& context) {
#define X(known) \
  if (name == #known) return make_##known(context);
  PRAETOR_ALGORITHMS(X)
#undef X
  const auto near = nearest(name, algorithm_names());
  throw InvalidArgument(
      "algorithm \"",
      name,
      "\" is not known; ",
      near ? "did you mean \"" + *near + "\"?" : "there are " + join(algorithm_names(), ", "));
}

Batch Algorithm::build_batch(Experience& /*experience*/, const BatchContext& /*context*/) {
  return {};
}

}  // namespace praetor
