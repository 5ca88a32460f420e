#include "learners/sharding/lock_step.h"

#include <algorithm>
#include <exception>

#include "core/base/error.h"
#include "learners/sharding/sharded_network.h"

namespace praetor {
namespace {

/// Forwards in order, then backwards in the opposite order: autograd runs the newest node first.
/// Networks apart come one after the other.
std::vector<Exchange> program_of(const std::vector<LockStep::Use>& uses) {
  std::vector<Exchange> out;
  for (const LockStep::Use& use : uses) {
    use.network->add_forward(out);
    if (use.apart && use.backward) use.network->add_backward(out);
  }
  for (auto use = uses.rbegin(); use != uses.rend(); ++use) {
    if (use->backward && !use->apart) use->network->add_backward(out);
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
      next_ = started_ = 0;
      try {
        if (!failure) work(pass);
      } catch (const CollectiveError&) {
        throw;
      } catch (...) {
        failure = std::current_exception();
      }
      for (const Use& use : networks) use.network->release();
      finish_pass(networks);
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
  while (next_ < at) perform(next_++, false);
  perform(next_++, true);
}

void LockStep::perform(size_t at, bool computes) {
  const Exchange& exchange = program_[at];
  if (prefetch_ == 0) return exchange.network->perform(exchange, computes);
  if (exchange.kind == Exchange::Kind::kReduce) return exchange.network->start_sum(exchange);
  start_gathers(at);
  exchange.network->finish_gather(exchange, computes);
}

void LockStep::start_gathers(size_t at) {
  const auto start = [&](size_t i) {
    program_[i].network->start_gather(program_[i]);
    started_ = i + 1;
  };
  std::vector<size_t> in_use{at};  // with those on their way
  for (size_t i = at + 1; i < started_; ++i) {
    if (program_[i].kind != Exchange::Kind::kReduce) in_use.push_back(i);
  }
  if (started_ <= at) start(at);
  for (size_t i = started_; i < program_.size(); ++i) {
    if (static_cast<int64_t>(in_use.size()) > prefetch_) return;
    const Exchange& next = program_[i];
    if (next.kind == Exchange::Kind::kReduce) continue;
    const bool waits = std::ranges::any_of(in_use, [&](size_t other) {
      return program_[other].network == next.network &&
             next.network->share_units(program_[other].part, next.part);
    });
    if (waits) return;
    start(i);
    in_use.push_back(i);
  }
}

void LockStep::finish_pass(const std::vector<Use>& networks) {
  while (next_ < program_.size()) perform(next_++, false);
  for (const Use& use : networks) use.network->finish_sums();
}

}  // namespace praetor
