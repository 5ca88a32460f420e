#include "learners/sharding/lock_step.h"

#include <algorithm>
#include <exception>

#include "core/base/error.h"
#include "learners/sharding/sharded_network.h"

namespace praetor {
namespace {

/// Forwards in order, then backwards in the opposite order: autograd runs the newest node first.
std::vector<Exchange> program_of(const std::vector<LockStep::Use>& uses) {
  std::vector<Exchange> out;
  for (const LockStep::Use& use : uses) use.network->add_forward(out);
  for (auto use = uses.rbegin(); use != uses.rend(); ++use) {
    if (use->backward) use->network->add_backward(out);
  }
  return out;
}

}  // namespace

void LockStep::run(size_t count,
                   const std::function<std::vector<Use>(size_t pass)>& uses,
                   const std::function<void(size_t pass)>& work) {
  PRAETOR_CHECK(!running_, "a pass within a pass");
  std::exception_ptr failure;
  running_ = true;
  try {
    for (size_t pass = 0; pass < count; ++pass) {
      const std::vector<Use> networks = uses(pass);
      program_ = program_of(networks);
      next_ = 0;
      try {
        if (!failure) work(pass);
      } catch (const CollectiveError&) {
        throw;
      } catch (...) {
        failure = std::current_exception();
      }
      for (const Use& use : networks) use.network->release();
      finish_pass();
    }
  } catch (...) {
    running_ = false;
    throw;
  }
  running_ = false;
  if (failure) std::rethrow_exception(failure);
}

void LockStep::reach(const Exchange& exchange) {
  const auto from = program_.begin() + static_cast<std::ptrdiff_t>(next_);
  const auto found = std::find(from, program_.end(), exchange);
  PRAETOR_CHECK(found != program_.end(),
                "a pass came to an exchange of part ",
                exchange.part,
                " that its ranks do not expect there");
  const auto at = static_cast<size_t>(found - program_.begin());
  while (next_ < at) {
    const Exchange skipped = program_[next_++];
    skipped.network->perform(skipped, false);
  }
  ++next_;
  exchange.network->perform(exchange, true);
}

void LockStep::finish_pass() {
  while (next_ < program_.size()) {
    const Exchange left = program_[next_++];
    left.network->perform(left, false);
  }
}

}  // namespace praetor
