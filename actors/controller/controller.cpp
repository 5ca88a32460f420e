#include "actors/controller/controller.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "core/base/log.h"

namespace praetor {

namespace {

/// @param newest  step of the newest weights that a token may be of
/// @throws InvalidArgument for versions that cannot be
RolloutRecord to_record(RolloutResult&& result,
                        const Prompt& prompt,
                        const Completion& from,
                        int64_t newest) {
  RolloutRecord record;
  record.id = result.id;
  record.tokens = prompt.tokens;
  record.prompt_length = static_cast<int64_t>(prompt.tokens.size());
  Generation& made = result.generation;
  record.tokens.insert(record.tokens.end(), made.tokens.begin(), made.tokens.end());
  record.behavior_logprobs = std::move(made.behavior_logprobs);
  record.sampled_logprobs = std::move(made.sampled_logprobs);
  record.text = std::move(made.text);
  record.finish = made.finish;
  record.weight_version = from.weights.step;
  record.worker = from.worker;
  const std::vector<int64_t>& versions = made.versions;
  if (versions.empty()) return record;
  if (versions.size() != made.tokens.size() || !std::ranges::is_sorted(versions) ||
      versions.front() < from.weights.step || versions.back() > newest) {
    throw InvalidArgument("prompt ",
                          result.id.ordinal,
                          ", sample ",
                          result.id.sample,
                          ": the versions of its tokens are to rise from ",
                          from.weights.step,
                          ", the lease's, to at most ",
                          newest,
                          ", the newest, one a token");
  }
  record.weight_version = versions.front();
  if (versions.back() != versions.front()) record.versions = std::move(made.versions);
  return record;
}

const std::string kKilled = str("set aside: it ended ", WorkQueue::kMostDeaths, " workers");

}  // namespace

Controller::Controller(Ledger& ledger,
                       OnlinePlan plan,
                       std::vector<Prompt> prompts,
                       std::vector<Prompt> held_out,
                       Accept accept)
    : ledger_(ledger),
      plan_(std::move(plan)),
      prompts_(std::move(prompts)),
      held_out_(std::move(held_out)),
      accept_(std::move(accept)),
      order_(static_cast<int64_t>(prompts_.size()), plan_.job_seed, plan_.stage, plan_.shuffle) {
  if (prompts_.empty()) throw DataError("the prompt data set has no row");
}

const Controller::Work* Controller::work_of(Purpose purpose) const {
  if (purpose == Purpose::kEvaluation) return evaluation_ ? &*evaluation_ : nullptr;
  return purpose == Purpose::kPolicy ? &training_ : nullptr;
}

std::vector<const Controller::Work*> Controller::all_work() const {
  if (!evaluation_) return {&training_};
  return {&*evaluation_, &training_};
}

const WorkQueue::Held* Controller::find(int64_t lease) const {
  for (const Work* one : all_work()) {
    if (const auto* held = one->work.find(lease)) return held;
  }
  return nullptr;
}

int64_t Controller::waiting(LeaseKind kind) const {
  int64_t out = 0;
  for (const Work* one : all_work()) out += one->work.waiting(kind);
  return out;
}

int64_t Controller::held(LeaseKind kind) const {
  int64_t out = 0;
  for (const Work* one : all_work()) out += one->work.held(kind);
  return out;
}

std::vector<int64_t> Controller::leases_of(const std::string& worker,
                                           std::optional<LeaseKind> kind) const {
  std::vector<int64_t> out;
  for (const Work* one : all_work()) {
    const auto some = kind ? one->work.of_worker(worker, *kind) : one->work.of_worker(worker);
    out.insert(out.end(), some.begin(), some.end());
  }
  return out;
}

int64_t Controller::holders(LeaseKind kind) const {
  std::set<std::string> names;
  for (const Work* one : all_work()) one->work.add_holders(kind, names);
  return static_cast<int64_t>(names.size());
}

const Prompt& Controller::prompt_of(const Work& in, int64_t ordinal) const {
  const Prompt& plain = in.purpose == Purpose::kEvaluation
                            ? held_out_[static_cast<size_t>(ordinal)]
                            : prompts_[static_cast<size_t>(order_.row(ordinal))];
  if (!plan_.ask) return plain;
  const std::lock_guard lock(asking_);
  const auto known = in.asked.find(ordinal);
  if (known != in.asked.end()) return known->second;
  return in.asked.emplace(ordinal, plan_.ask(plain, ordinal, in.purpose)).first->second;
}

/// Work for the reward workers once a response of the prompt came in: itself, or with pairwise
/// scores all of the prompt's, as soon as the last of them is there.
void Controller::want_score(Work& in, SampleId id) {
  if (!plan_.pairwise() || in.purpose == Purpose::kEvaluation) {
    in.work.want(LeaseKind::kScore, id);
    return;
  }
  const auto first = in.samples.lower_bound({id.ordinal, 0});
  const auto last = in.samples.lower_bound({id.ordinal + 1, 0});
  for (auto at = first; at != last; ++at) {
    if (!at->second.rollout && !at->second.drop_reason) return;
  }
  for (auto at = first; at != last; ++at) {
    if (!at->second.score && !at->second.drop_reason) in.work.want(LeaseKind::kScore, at->first);
  }
}

void Controller::open_evaluation(int64_t step, int64_t count, const Publication& weights) {
  if (evaluating(step) && evaluation_->weights.version.same_weights(weights.version)) return;
  evaluation_ = Work{.purpose = Purpose::kEvaluation, .step = step, .weights = weights};
  const auto all = static_cast<int64_t>(held_out_.size());
  for (int64_t i = 0; i < std::min(count, all); ++i) {
    evaluation_->samples[{i, 0}];
    ++evaluation_->unfinished;
    evaluation_->work.want(LeaseKind::kGenerate, {i, 0});
  }
}

void Controller::end_lease(int64_t id, bool died) {
  training_.work.give_back(id, died);
  if (evaluation_) evaluation_->work.give_back(id, died);
  ledger_.close_lease(id, LeaseState::kExpired);
  ++leases_reissued_;
}

void Controller::expire_leases() {
  for (const Work* one : all_work()) {
    for (const int64_t id : one->work.late(WorkQueue::Clock::now())) {
      log::warn(str("lease ",
                    id,
                    " of ",
                    one->work.find(id)->worker,
                    " ran out of time; its samples go to another worker"));
      end_lease(id, false);
    }
  }
}

void Controller::worker_lost(const std::string& worker, bool died) {
  for (const int64_t id : leases_of(worker)) end_lease(id, died);
  if (!died) return;
  set_condemned_aside(training_);
  if (evaluation_) set_condemned_aside(*evaluation_);
}

/// A prompt that ends one worker after another would end the run: it is given up instead.
void Controller::set_condemned_aside(Work& in) {
  for (const int64_t ordinal : in.work.take_condemned()) {
    const std::string what =
        in.purpose == Purpose::kEvaluation
            ? str("held-out prompt ", ordinal)
            : str("prompt ", ordinal, " (row ", order_.row(ordinal), " of the prompt data)");
    set_aside_.push_back(what);
    log::error(str(what,
                   " ended ",
                   WorkQueue::kMostDeaths,
                   " workers and is set aside; look at its text, or at the workers' memory"));
    for (auto at = in.samples.lower_bound({ordinal, 0});
         at != in.samples.end() && at->first.ordinal == ordinal;
         ++at) {
      Pending& pending = at->second;
      if (pending.drop_reason || pending.score) continue;
      pending.drop_reason = kKilled;
      finish_one(in, ordinal);
    }
  }
}

/// A sample is scored or given up.
void Controller::finish_one(Work& in, int64_t ordinal) {
  --in.unfinished;
  if (in.purpose != Purpose::kPolicy) return;
  if (--in.groups.at(ordinal).unfinished == 0) to_judge_.insert(ordinal);
}

GenerateItem Controller::generate_item(const Work& in, SampleId id) const {
  const Prompt& prompt = prompt_of(in, id.ordinal);
  GenerateItem item{.id = id, .prompt = prompt.tokens};
  const int32_t voice = in.purpose == Purpose::kPolicy ? plan_.voice_of(prompt, id.sample) : 0;
  if (voice == 0) return item;
  const VoicePlan& other = plan_.others[static_cast<size_t>(voice - 1)];
  item.voice = other.voice;
  item.greedy = other.greedy;
  return item;
}

ScoreItem Controller::score_item(const Work& in, SampleId id) const {
  const Prompt& prompt = prompt_of(in, id.ordinal);
  const RolloutRecord& rollout = *in.samples.at(id).rollout;
  ScoreItem item{.id = id,
                 .sample = {.prompt = prompt.text,
                            .response = rollout.text,
                            .metadata = prompt.metadata,
                            .response_tokens =
                                static_cast<int64_t>(rollout.tokens.size()) - rollout.prompt_length,
                            .finished = rollout.finish == FinishReason::kStop}};
  if (!plan_.pairwise() || in.purpose == Purpose::kEvaluation) return item;
  for (auto at = in.samples.lower_bound({id.ordinal, 0});
       at != in.samples.end() && at->first.ordinal == id.ordinal;
       ++at) {
    if (at->second.rollout && !at->second.drop_reason &&
        plan_.rivals(prompt, id.sample, at->first.sample))
      item.rivals.push_back({at->first.sample, at->second.rollout->text});
  }
  return item;
}

std::optional<Lease> Controller::lease(const std::string& worker,
                                       LeaseKind kind,
                                       int64_t max_items) {
  expire_leases();
  Work& in = next_purpose(kind) == Purpose::kEvaluation ? *evaluation_ : training_;
  WorkQueue::Held held{.worker = worker,
                       .kind = kind,
                       .items = in.work.take(kind, max_items),
                       .deadline = WorkQueue::Clock::now() + plan_.lease_time};
  if (held.items.empty()) return std::nullopt;
  Lease lease;
  lease.kind = kind;
  lease.purpose = in.purpose;
  lease.stage = plan_.stage;
  lease.weights = in.weights;
  lease.job_seed = plan_.job_seed;
  lease.time = plan_.lease_time;
  lease.params = plan_.params;
  for (const SampleId& id : held.items) {
    if (kind == LeaseKind::kGenerate) {
      lease.generate.push_back(generate_item(in, id));
    } else {
      lease.score.push_back(score_item(in, id));
    }
  }
  const auto now = std::chrono::system_clock::now();
  // An evaluation's samples are no part of the account.
  lease.id = ledger_.open_lease(
      {.kind = kind,
       .stage = stage(),
       .worker = worker,
       .issued_at = now,
       .deadline = now + plan_.lease_time,
       .items = in.purpose == Purpose::kPolicy ? held.items : std::vector<SampleId>{}});
  in.work.hold(lease.id, std::move(held));
  return lease;
}

bool Controller::is_known(const WeightVersion& version, Purpose purpose) const {
  if (purpose == Purpose::kEvaluation)
    return evaluation_ && version.same_weights(evaluation_->weights.version);
  const auto found = known_.find(version.step);
  return found != known_.end() && version.same_weights(found->second);
}

void Controller::check_holder(const Completion& completion) const {
  const auto* held = find(completion.lease);
  if (!held || held->worker == completion.worker) return;
  throw RefusedError(
      "lease ", completion.lease, " is held by ", held->worker, ", not by ", completion.worker);
}

Controller::Intake Controller::examine(Completion completion) const {
  Intake in{.lease = completion.lease, .purpose = completion.purpose};
  const Work* open = work_of(completion.purpose);
  if (!open || !is_known(completion.weights, completion.purpose)) return in;
  for (RolloutResult& result : completion.rollouts) {
    in.done.push_back(result.id);
    const auto found = open->samples.find(result.id);
    if (found == open->samples.end() || found->second.rollout || found->second.drop_reason)
      continue;
    const Prompt& prompt = prompt_of(*open, result.id.ordinal);
    in.rollouts.push_back(
        to_record(std::move(result), prompt, completion, open->weights.version.step));
    if (open->purpose == Purpose::kPolicy)
      in.rollouts.back().voice = plan_.voice_of(prompt, in.rollouts.back().id.sample);
  }
  for (ScoreResult& result : completion.scores) {
    in.done.push_back(result.id);
    const auto found = open->samples.find(result.id);
    if (found == open->samples.end() || !found->second.rollout || found->second.score ||
        found->second.drop_reason)
      continue;
    in.scores.push_back({result.id, std::move(result.score), completion.worker});
  }
  return in;
}

void Controller::record(std::vector<Intake>& intakes) const {
  const auto brings = [](const Intake& in) {
    return in.purpose == Purpose::kPolicy && !(in.rollouts.empty() && in.scores.empty());
  };
  if (std::ranges::none_of(intakes, brings)) return;
  ledger_.transaction([&] {
    for (const Intake& in : intakes) {
      if (!brings(in)) continue;
      if (!in.rollouts.empty()) ledger_.record_rollouts(stage(), in.rollouts);
      if (!in.scores.empty()) ledger_.record_scores(stage(), in.scores);
    }
  });
}

void Controller::apply(Intake in) {
  Work* open =
      in.purpose == Purpose::kPolicy ? &training_ : (evaluation_ ? &*evaluation_ : nullptr);
  if (!open) return;
  for (RolloutRecord& record : in.rollouts) {
    const SampleId id = record.id;
    Pending& pending = open->samples.at(id);
    if (pending.rollout || pending.drop_reason) continue;
    pending.rollout = std::move(record);
    open->work.forget(LeaseKind::kGenerate, id);
    want_score(*open, id);
  }
  for (ScoreRecord& record : in.scores) {
    const SampleId id = record.id;
    Pending& pending = open->samples.at(id);
    if (pending.score || pending.drop_reason) continue;
    pending.score = std::move(record);
    finish_one(*open, id.ordinal);
    open->work.forget(LeaseKind::kScore, id);
  }
  if (open->work.finish(in.lease, in.done)) ledger_.close_lease(in.lease, LeaseState::kCompleted);
}

void Controller::complete(Completion completion) {
  check_holder(completion);
  std::vector<Intake> intakes;
  intakes.push_back(examine(std::move(completion)));
  record(intakes);
  apply(std::move(intakes.front()));
}

int64_t Controller::ready() const {
  return std::ranges::count_if(training_.samples,
                               [](const auto& one) { return one.second.score.has_value(); });
}

std::optional<EvaluationBatch> Controller::close_evaluation() {
  PRAETOR_CHECK(evaluation_, "no evaluation is open");
  if (evaluation_->unfinished > 0) return std::nullopt;
  EvaluationBatch out;
  for (const auto& [id, pending] : evaluation_->samples) {
    ScoredSample sample;
    if (pending.rollout) sample.rollout = *pending.rollout;
    if (pending.score) sample.score = *pending.score;
    sample.rollout.id = sample.score.id = id;
    if (pending.drop_reason) {
      sample.score.score = {};
      sample.score.score.parts.push_back({.name = "workers", .error = *pending.drop_reason});
    }
    out.samples.push_back(std::move(sample));
    out.prompts.push_back(prompt_of(*evaluation_, id.ordinal).text);
  }
  return out;
}

}  // namespace praetor
