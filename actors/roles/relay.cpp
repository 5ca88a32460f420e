#include "actors/roles/relay.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"

namespace praetor {

namespace {

using std::chrono::milliseconds;

/// What is left until the first of them has waited long enough.
template <typename Item>
milliseconds time_left(const std::vector<Item*>& all) {
  const auto first =
      (*std::ranges::min_element(all, {}, [](const Item* one) { return one->end; }))->end;
  return std::max(
      milliseconds(0),
      std::chrono::duration_cast<milliseconds>(first - std::chrono::steady_clock::now()));
}

}  // namespace

Relay::Relay(WorkerService& above, milliseconds gather)
    : above_(above),
      to_generate_([this](const auto& all) { return ask(all); }),
      to_score_([this](const auto& all) { return ask(all); }),
      weights_([this](const auto& all) { return watch(all); }),
      beats_([this](const auto& all) { return beat(all); }, gather),
      results_([this](const auto& all) { return hand_in(all); }) {}

Admission Relay::join(const MemberInfo& member) {
  return above_.join(member);
}

void Relay::leave(const std::string& name) {
  above_.leave(name);
}

std::optional<Lease> Relay::lease(const LeaseRequest& request) {
  Asked mine{.request = request, .end = Clock::now() + request.wait};
  (request.kind == LeaseKind::kGenerate ? to_generate_ : to_score_).run(mine);
  return std::move(mine.lease);
}

std::vector<bool> Relay::ask(const std::vector<Asked*>& all) {
  std::vector<LeaseRequest> requests;
  for (const Asked* one : all) requests.push_back(one->request);
  auto leases = above_.lease_some(requests, time_left(all));
  std::vector<bool> done;
  for (size_t i = 0; i < all.size(); ++i) {
    all[i]->lease = std::move(leases[i]);
    done.push_back(all[i]->lease || Clock::now() >= all[i]->end);
  }
  return done;
}

std::optional<Publication> Relay::newer_weights(const NewerWeights& request) {
  Watched mine{.request = request, .end = Clock::now() + request.wait};
  weights_.run(mine);
  return std::move(mine.weights);
}

/// Of those that wait, the one with the oldest weights of the latest stage is asked for.
std::vector<bool> Relay::watch(const std::vector<Watched*>& all) {
  NewerWeights request = all.front()->request;
  for (const Watched* one : all) {
    const NewerWeights& other = one->request;
    if (other.stage > request.stage || (other.stage == request.stage && other.step < request.step))
      request = other;
  }
  request.wait = time_left(all);
  const auto found = above_.newer_weights(request);
  std::vector<bool> done;
  for (Watched* one : all) {
    if (found && found->version.stage == one->request.stage &&
        found->version.step > one->request.step)
      one->weights = found;
    done.push_back(one->weights || Clock::now() >= one->end);
  }
  return done;
}

Orders Relay::heartbeat(const Heartbeat& beat) {
  Beat mine{.beat = beat};
  beats_.run(mine);
  return mine.orders;
}

std::vector<bool> Relay::beat(const std::vector<Beat*>& all) {
  std::vector<Heartbeat> beats;
  for (const Beat* one : all) beats.push_back(one->beat);
  const std::vector<Orders> orders = above_.heartbeat_all(beats);
  for (size_t i = 0; i < all.size(); ++i) all[i]->orders = orders[i];
  return std::vector<bool>(all.size(), true);
}

void Relay::complete(Completion completion) {
  Handed mine{.completion = std::move(completion)};
  results_.run(mine);
  if (mine.failure) std::rethrow_exception(mine.failure);
}

std::vector<bool> Relay::hand_in(const std::vector<Handed*>& all) {
  std::vector<bool> done(all.size(), true);
  if (all.size() > 1) {
    std::vector<Completion> together;
    for (const Handed* one : all) together.push_back(one->completion);
    try {
      above_.complete_all(std::move(together));
      return done;
    } catch (const Error&) {
      // Of one of them: each by itself hears its own answer, and results may come twice.
    }
  }
  for (Handed* one : all) {
    try {
      above_.complete(one->completion);
    } catch (const Error&) {
      one->failure = std::current_exception();
    }
  }
  return done;
}

}  // namespace praetor
