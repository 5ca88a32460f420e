// What workers ask of the controller of a run: work, and that their results be taken in.
#include <algorithm>
#include <deque>
#include <exception>
#include <thread>
#include <utility>

#include "actors/controller/run_controller.h"
#include "core/base/error.h"

namespace praetor {

namespace {

constexpr std::chrono::milliseconds kAfterEnd{500};
/// Completions of one commit. A thousand at once would keep those who ask for work waiting while
/// they are taken over.
constexpr std::ptrdiff_t kMostSettled = 64;
/// Items of the leases that go out in one answer, about.
constexpr int64_t kMostTogether = 4096;

}  // namespace

/// A completion on its way through one commit.
struct RunController::Arrival {
  Completion completion;
  std::exception_ptr failure;
  bool done = false;
  std::condition_variable changed;
};

/// An equal part of what waits for each idle worker; whole prompts, whose samples share their
/// cache.
int64_t RunController::fair_share(const LeaseRequest& request) const {
  const OnlinePlan& plan = desk_->plan();
  const bool holds = !desk_->leases_of(request.worker, request.kind).empty();
  const int64_t idle =
      members_.serving(request.kind) - desk_->holders(request.kind) + (holds ? 1 : 0);
  const bool prompts =
      request.kind == LeaseKind::kGenerate && desk_->next_purpose(request.kind) == Purpose::kPolicy;
  int64_t most = request.max_items;
  // No more than a step's share of what is issued ahead: an evaluation waits for the end of a
  // lease, and so do newer weights where responses do not go on under them.
  if (prompts && plan.max_staleness > 0)
    most = std::min(most, plan.prompts_per_step * plan.most_samples());
  if (idle <= 1) return most;
  const int64_t unit = prompts ? plan.most_samples() : 1;
  const int64_t share = (desk_->waiting(request.kind) + idle - 1) / idle;
  return std::min(most, (share + unit - 1) / unit * unit);
}

/// A request that is repeated gets the answer that it had.
std::optional<Lease> RunController::answer_again(const LeaseRequest& request) const {
  const auto answer = answers_.find({request.worker, request.kind});
  if (!desk_ || answer == answers_.end() || answer->second.first != request.number ||
      !desk_->is_out(answer->second.second.id))
    return std::nullopt;
  return answer->second.second;
}

std::optional<Lease> RunController::grant(const Asker& asker) {
  const LeaseRequest& request = asker.request;
  // One that counts as lost must give a sign of life first, and an answer to a process that has
  // ended meanwhile would be lost.
  if (!desk_ || asker.incarnation < 0 || desk_->waiting(request.kind) == 0 ||
      members_.incarnation(request.worker) != asker.incarnation)
    return std::nullopt;
  auto lease = desk_->lease(request.worker, request.kind, fair_share(request));
  if (lease) answers_[{request.worker, request.kind}] = {request.number, *lease};
  return lease;
}

std::optional<Lease> RunController::lease(const LeaseRequest& request) {
  return std::move(lease_some({request}, request.wait).front());
}

std::vector<std::optional<Lease>> RunController::lease_some(
    const std::vector<LeaseRequest>& requests, std::chrono::milliseconds wait) {
  PRAETOR_CHECK(!requests.empty(), "nobody asks for work");
  const LeaseKind kind = requests.front().kind;
  for (const LeaseRequest& request : requests) {
    if (request.max_items < 1)
      throw InvalidArgument("a lease of ", request.max_items, " items was asked for");
    if (request.kind != kind) throw InvalidArgument("leases of several kinds were asked for");
  }
  const auto end = std::chrono::steady_clock::now() + wait;
  std::vector<std::optional<Lease>> out(requests.size());
  std::vector<Asker> askers;
  bool any = false;
  std::unique_lock lock(mutex_);
  for (size_t i = 0; i < requests.size(); ++i) {
    out[i] = answer_again(requests[i]);
    any = any || out[i];
    // Whoever asks for more has nothing in hand: what is held under its name was lost on its way.
    if (desk_ && !out[i]) {
      for (const int64_t id : desk_->leases_of(requests[i].worker, kind)) desk_->give_back(id);
    }
    askers.push_back({requests[i], members_.incarnation(requests[i].worker)});
  }
  for (;;) {
    if (over_) {
      // Whoever asks hears of the end with its next heartbeat, and need not ask again and again.
      lock.unlock();
      std::this_thread::sleep_for(std::min(wait, kAfterEnd));
      return out;
    }
    int64_t items = 0;
    bool waits = false;
    for (size_t i = 0; i < askers.size(); ++i) {
      if (out[i]) continue;
      waits = waits || members_.incarnation(requests[i].worker) == askers[i].incarnation;
      if (items >= kMostTogether) continue;
      out[i] = grant(askers[i]);
      if (!out[i]) continue;
      any = true;
      items += static_cast<int64_t>(out[i]->generate.size() + out[i]->score.size());
    }
    if (any || !waits) return out;
    std::vector<std::unique_ptr<IdleClock::Waiting>> waiting;
    for (const Asker& asker : askers)
      waiting.push_back(std::make_unique<IdleClock::Waiting>(idle_, kind, asker.request.worker));
    if (work_for(kind).wait_until(lock, end) == std::cv_status::timeout) return out;
  }
}

std::optional<Publication> RunController::newer_weights(const NewerWeights& request) {
  const auto end = std::chrono::steady_clock::now() + request.wait;
  std::unique_lock lock(mutex_);
  for (;;) {
    if (desk_ && desk_->plan().stage == request.stage) {
      const Publication& now = desk_->policy_weights();
      if (now.version.step > request.step) return now;
    }
    if (over_ || changed_.wait_until(lock, end) == std::cv_status::timeout) return std::nullopt;
  }
}

void RunController::complete(Completion completion) {
  std::vector<Completion> one;
  one.push_back(std::move(completion));
  complete_all(std::move(one));
}

void RunController::complete_all(std::vector<Completion> completions) {
  std::deque<Arrival> mine;
  std::unique_lock inbox(inbox_mutex_);
  for (Completion& completion : completions) {
    mine.emplace_back().completion = std::move(completion);
    inbox_.push_back(&mine.back());
  }
  for (Arrival& next : mine) {
    next.changed.wait(inbox, [&] { return next.done || (!settling_ && inbox_.front() == &next); });
    if (next.done) continue;
    // Whoever is the first of those that came in meanwhile settles for many: one commit for all.
    settling_ = true;
    const auto taken = inbox_.begin() + std::min<std::ptrdiff_t>(kMostSettled, std::ssize(inbox_));
    const std::vector<Arrival*> all(inbox_.begin(), taken);
    inbox_.erase(inbox_.begin(), taken);
    inbox.unlock();
    settle(all);
    inbox.lock();
    // Each is woken by itself: of a thousand that wait, only those that have something to do.
    for (Arrival* one : all) {
      one->done = true;
      if (one != &next) one->changed.notify_one();
    }
    settling_ = false;
    if (!inbox_.empty()) inbox_.front()->changed.notify_one();
  }
  inbox.unlock();
  for (const Arrival& one : mine) {
    if (one.failure) std::rethrow_exception(one.failure);
  }
}

void RunController::settle(const std::vector<Arrival*>& arrivals) {
  const std::lock_guard recording(recording_);
  std::vector<Controller::Intake> intakes;
  std::vector<Arrival*> owners;
  Controller* const desk = [&] {
    const std::lock_guard lock(mutex_);
    return desk_.get();
  }();
  if (!desk) return;  // results of a stage that is over: nobody wants them
  for (Arrival* one : arrivals) {
    try {
      {
        const std::lock_guard lock(mutex_);
        members_.count_samples(
            one->completion.worker,
            static_cast<int64_t>(one->completion.rollouts.size() + one->completion.scores.size()));
        desk->check_holder(one->completion);
      }
      intakes.push_back(desk->examine(std::move(one->completion)));
      owners.push_back(one);
    } catch (const Error&) {
      one->failure = std::current_exception();
    }
  }
  const auto record = [&](std::vector<Controller::Intake>& some) { desk->record(some); };
  std::vector<bool> recorded(intakes.size(), true);
  try {
    record(intakes);
  } catch (const InvalidArgument&) {
    // One of them is not sound: the others must not suffer.
    for (size_t i = 0; i < intakes.size(); ++i) {
      std::vector<Controller::Intake> one{intakes[i]};
      try {
        record(one);
      } catch (const Error&) {
        owners[i]->failure = std::current_exception();
        recorded[i] = false;
      }
    }
  } catch (const Error&) {
    for (Arrival* one : owners) one->failure = std::current_exception();
    return;
  }
  for (size_t i = 0; i < intakes.size(); ++i) {
    if (!recorded[i]) continue;
    const std::lock_guard lock(mutex_);  // of each by itself: whoever asks for work comes between
    desk->apply(std::move(intakes[i]));
  }
  const std::lock_guard lock(mutex_);
  notify();
}

}  // namespace praetor
