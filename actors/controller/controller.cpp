#include "actors/controller/controller.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "core/base/log.h"

namespace praetor {

namespace {

/// Prompts that a step may ask for in place of rejected ones, in multiples of what it wants.
constexpr int64_t kMostRounds = 20;

RolloutRecord to_record(RolloutResult&& result,
                        const Prompt& prompt,
                        const WeightVersion& weights,
                        const std::string& worker) {
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
  record.weight_version = weights.step;
  record.worker = worker;
  return record;
}

/// @param parts  of the reward; a monitor's failure is not what a sample lacks its score for
std::string failed_parts(const Score& score, const std::vector<PartCounters>& parts) {
  for (const PartScore& part : score.parts) {
    const auto known = std::ranges::find(parts, part.name, &PartCounters::name);
    const bool counts = known == parts.end() || !known->monitor;
    if (!part.error.empty() && counts)
      return str("reward part ", part.name, " failed: ", part.error);
  }
  return "not scored";
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

const Prompt& Controller::prompt_of(int64_t ordinal) const {
  const Prompt& plain = plain_prompt(ordinal);
  if (!plan_.ask) return plain;
  const auto known = asked_.find(ordinal);
  if (known != asked_.end()) return known->second;
  return asked_.emplace(ordinal, plan_.ask(plain, ordinal, purpose_)).first->second;
}

const Prompt& Controller::plain_prompt(int64_t ordinal) const {
  return purpose_ == Purpose::kEvaluation ? held_out_[static_cast<size_t>(ordinal)]
                                          : prompts_[static_cast<size_t>(order_.row(ordinal))];
}

int64_t Controller::end_of_step(int64_t step) const {
  if (step == 0) return 0;
  const auto batch = ledger_.batch(stage(), step);
  PRAETOR_CHECK(batch, "step ", step, " of stage ", stage(), " has no batch in the ledger");
  return nlohmann::json::parse(batch->manifest).at("end_ordinal").get<int64_t>();
}

/// Takes `count` more prompts into the step; rows that the ledger has already are taken over with
/// what is done of them.
void Controller::issue(int64_t count) {
  const int64_t from = end_ordinal_;
  end_ordinal_ += count;
  std::vector<PromptRecord> fresh;
  for (int64_t ordinal = std::max(from, ledger_.next_ordinal(stage())); ordinal < end_ordinal_;
       ++ordinal) {
    fresh.push_back(
        {.ordinal = ordinal,
         .epoch = order_.epoch(ordinal),
         .row = order_.row(ordinal),
         .samples = plan_.total_samples(prompts_[static_cast<size_t>(order_.row(ordinal))])});
  }
  if (!fresh.empty()) ledger_.issue_prompts(stage(), fresh);
  adopt(from, end_ordinal_);
}

/// Samples that are the rows' own answers need no worker.
void Controller::answer_from_data(int64_t from, int64_t to) {
  if (!plan_.wants_answers()) return;
  std::vector<RolloutRecord> records;
  for (const SampleState& state : ledger_.samples(stage(), from, to)) {
    if (state.rolled_out || state.drop_reason) continue;
    const Prompt& prompt = prompts_[static_cast<size_t>(order_.row(state.id.ordinal))];
    const int32_t voice = plan_.voice_of(prompt, state.id.sample);
    if (voice == 0 || !plan_.others[static_cast<size_t>(voice - 1)].from_data) continue;
    const auto length = static_cast<int64_t>(prompt.tokens.size());
    const auto answer = prompt.answered.tokens.size() - prompt.tokens.size();
    records.push_back({.id = state.id,
                       .tokens = prompt.answered.tokens,
                       .prompt_length = length,
                       .behavior_logprobs = std::vector<float>(answer, 0.0F),
                       .text = prompt.answer,
                       .finish = FinishReason::kStop,
                       .weight_version = weights_.version.step,
                       .worker = "data",
                       .voice = voice});
  }
  if (!records.empty()) ledger_.record_rollouts(stage(), records);
}

void Controller::adopt(int64_t from, int64_t to) {
  answer_from_data(from, to);
  for (const SampleState& state : ledger_.samples(stage(), from, to)) {
    Pending& pending = samples_[state.id];
    pending.dropped = state.drop_reason.has_value();
    if (pending.dropped) continue;
    if (state.rolled_out) pending.rollout = ledger_.rollout(stage(), state.id);
    if (state.scored) pending.score = ledger_.score(stage(), state.id);
    if (!pending.score) ++unfinished_;
    if (!pending.rollout) {
      work_.want(LeaseKind::kGenerate, state.id);
    } else if (!pending.score && !plan_.pairwise()) {
      work_.want(LeaseKind::kScore, state.id);
    }
  }
  if (!plan_.pairwise()) return;
  for (int64_t ordinal = from; ordinal < to; ++ordinal) want_score({ordinal, 0});
}

/// Work for the reward workers once a response of the prompt came in: itself, or with pairwise
/// scores all of the prompt's, as soon as the last of them is there.
void Controller::want_score(SampleId id) {
  if (!plan_.pairwise() || purpose_ == Purpose::kEvaluation) {
    work_.want(LeaseKind::kScore, id);
    return;
  }
  const auto first = samples_.lower_bound({id.ordinal, 0});
  const auto last = samples_.lower_bound({id.ordinal + 1, 0});
  for (auto at = first; at != last; ++at) {
    if (!at->second.rollout && !at->second.dropped) return;
  }
  for (auto at = first; at != last; ++at) {
    if (!at->second.score && !at->second.dropped) work_.want(LeaseKind::kScore, at->first);
  }
}

void Controller::begin(Purpose purpose, int64_t step, const Publication& weights) {
  purpose_ = purpose;
  step_ = step;
  weights_ = weights;
  samples_.clear();
  asked_.clear();
  unfinished_ = 0;
  accepted_.clear();
  judged_.clear();
  dropped_.clear();
  closed_.reset();
  work_.clear();
}

void Controller::open_step(int64_t step, const Publication& weights) {
  if (purpose_ == Purpose::kPolicy && step_ == step &&
      weights_.version.same_weights(weights.version))
    return;
  begin(Purpose::kPolicy, step, weights);
  first_ordinal_ = end_ordinal_ = end_of_step(step - 1);
  // A recorded batch is trained as it stands: nothing of it is generated again.
  if (!ledger_.batch(stage(), step)) issue(plan_.prompts_per_step);
}

void Controller::open_evaluation(int64_t step, int64_t count, const Publication& weights) {
  if (purpose_ == Purpose::kEvaluation && step_ == step &&
      weights_.version.same_weights(weights.version))
    return;
  begin(Purpose::kEvaluation, step, weights);
  const auto all = static_cast<int64_t>(held_out_.size());
  for (int64_t i = 0; i < std::min(count, all); ++i) {
    samples_[{i, 0}];
    ++unfinished_;
    work_.want(LeaseKind::kGenerate, {i, 0});
  }
}

void Controller::end_lease(int64_t id, bool died) {
  work_.give_back(id, died);
  ledger_.close_lease(id, LeaseState::kExpired);
  ++leases_reissued_;
}

void Controller::expire_leases() {
  for (const int64_t id : work_.late(WorkQueue::Clock::now())) {
    log::warn(str("lease ",
                  id,
                  " of ",
                  work_.find(id)->worker,
                  " ran out of time; its samples go to another worker"));
    end_lease(id, false);
  }
}

void Controller::worker_lost(const std::string& worker, bool died) {
  for (const int64_t id : work_.of_worker(worker)) end_lease(id, died);
  if (died) set_condemned_aside();
}

/// A prompt that ends one worker after another would end the run: it is given up instead.
void Controller::set_condemned_aside() {
  for (const int64_t ordinal : work_.take_condemned()) {
    const std::string what =
        purpose_ == Purpose::kEvaluation
            ? str("held-out prompt ", ordinal)
            : str("prompt ", ordinal, " (row ", order_.row(ordinal), " of the prompt data)");
    set_aside_.push_back(what);
    log::error(str(what,
                   " ended ",
                   WorkQueue::kMostDeaths,
                   " workers and is set aside; look at its text, or at the workers' memory"));
    for (auto at = samples_.lower_bound({ordinal, 0});
         at != samples_.end() && at->first.ordinal == ordinal;
         ++at) {
      Pending& pending = at->second;
      if (pending.dropped || pending.score) continue;
      pending.dropped = true;
      --unfinished_;
      if (purpose_ == Purpose::kPolicy) dropped_[kKilled].push_back(at->first);
    }
  }
}

GenerateItem Controller::generate_item(SampleId id) const {
  const Prompt& prompt = prompt_of(id.ordinal);
  GenerateItem item{.id = id, .prompt = prompt.tokens};
  const int32_t voice = purpose_ == Purpose::kPolicy ? plan_.voice_of(prompt, id.sample) : 0;
  if (voice == 0) return item;
  const VoicePlan& other = plan_.others[static_cast<size_t>(voice - 1)];
  item.voice = other.voice;
  item.greedy = other.greedy;
  return item;
}

ScoreItem Controller::score_item(SampleId id) const {
  const Prompt& prompt = prompt_of(id.ordinal);
  const RolloutRecord& rollout = *samples_.at(id).rollout;
  ScoreItem item{.id = id,
                 .sample = {.prompt = prompt.text,
                            .response = rollout.text,
                            .metadata = prompt.metadata,
                            .response_tokens =
                                static_cast<int64_t>(rollout.tokens.size()) - rollout.prompt_length,
                            .finished = rollout.finish == FinishReason::kStop}};
  if (!plan_.pairwise() || purpose_ == Purpose::kEvaluation) return item;
  for (auto at = samples_.lower_bound({id.ordinal, 0});
       at != samples_.end() && at->first.ordinal == id.ordinal;
       ++at) {
    if (at->second.rollout && !at->second.dropped &&
        plan_.rivals(prompt, id.sample, at->first.sample))
      item.rivals.push_back({at->first.sample, at->second.rollout->text});
  }
  return item;
}

std::optional<Lease> Controller::lease(const std::string& worker,
                                       LeaseKind kind,
                                       int64_t max_items) {
  expire_leases();
  WorkQueue::Held held{.worker = worker,
                       .kind = kind,
                       .items = work_.take(kind, max_items),
                       .deadline = WorkQueue::Clock::now() + plan_.lease_time};
  if (held.items.empty()) return std::nullopt;
  Lease lease;
  lease.kind = kind;
  lease.purpose = purpose_;
  lease.stage = plan_.stage;
  lease.weights = weights_;
  lease.job_seed = plan_.job_seed;
  lease.time = plan_.lease_time;
  lease.params = plan_.params;
  for (const SampleId& id : held.items) {
    if (kind == LeaseKind::kGenerate) {
      lease.generate.push_back(generate_item(id));
    } else {
      lease.score.push_back(score_item(id));
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
       .items = purpose_ == Purpose::kPolicy ? held.items : std::vector<SampleId>{}});
  work_.hold(lease.id, std::move(held));
  return lease;
}

Controller::Intake Controller::examine(Completion completion) const {
  Intake in{.lease = completion.lease, .purpose = purpose_};
  if (const auto* held = work_.find(completion.lease); held && held->worker != completion.worker) {
    throw RefusedError(
        "lease ", completion.lease, " is held by ", held->worker, ", not by ", completion.worker);
  }
  if (completion.purpose != purpose_ || !completion.weights.same_weights(weights_.version))
    return in;
  for (RolloutResult& result : completion.rollouts) {
    in.done.push_back(result.id);
    const auto found = samples_.find(result.id);
    if (found == samples_.end() || found->second.rollout || found->second.dropped) continue;
    const Prompt& prompt = prompt_of(result.id.ordinal);
    in.rollouts.push_back(
        to_record(std::move(result), prompt, weights_.version, completion.worker));
    if (purpose_ == Purpose::kPolicy)
      in.rollouts.back().voice = plan_.voice_of(prompt, in.rollouts.back().id.sample);
  }
  for (ScoreResult& result : completion.scores) {
    in.done.push_back(result.id);
    const auto found = samples_.find(result.id);
    if (found == samples_.end() || !found->second.rollout || found->second.score ||
        found->second.dropped)
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
  for (RolloutRecord& record : in.rollouts) {
    const SampleId id = record.id;
    Pending& pending = samples_.at(id);
    if (pending.rollout || pending.dropped) continue;
    pending.rollout = std::move(record);
    work_.forget(LeaseKind::kGenerate, id);
    want_score(id);
  }
  for (ScoreRecord& record : in.scores) {
    const SampleId id = record.id;
    Pending& pending = samples_.at(id);
    if (pending.score || pending.dropped) continue;
    pending.score = std::move(record);
    --unfinished_;
    work_.forget(LeaseKind::kScore, id);
  }
  if (work_.finish(in.lease, in.done)) ledger_.close_lease(in.lease, LeaseState::kCompleted);
}

void Controller::complete(Completion completion) {
  std::vector<Intake> intakes;
  intakes.push_back(examine(std::move(completion)));
  record(intakes);
  apply(std::move(intakes.front()));
}

int64_t Controller::ready() const {
  return std::ranges::count_if(samples_,
                               [](const auto& one) { return one.second.score.has_value(); });
}

const ClosedBatch* Controller::close_step() {
  PRAETOR_CHECK(purpose_ == Purpose::kPolicy && step_ > 0, "no step is open");
  if (closed_) return &*closed_;
  if (const auto record = ledger_.batch(stage(), step_)) {
    closed_ = load_batch(ledger_, plan_, *record);
    return &*closed_;
  }
  if (unfinished_ > 0) return nullptr;

  std::map<int64_t, std::vector<ScoredSample>> groups;
  for (auto& [id, pending] : samples_) {
    groups[id.ordinal];
    if (pending.dropped) continue;
    if (!pending.score->score.score) {
      const std::string why = failed_parts(pending.score->score, plan_.parts);
      dropped_[why].push_back(id);
      pending.dropped = true;
      continue;
    }
    groups[id.ordinal].push_back({*pending.rollout, *pending.score});
  }
  const auto measured = [&](const ScoredSample& sample) {
    return sample.rollout.voice == plan_.measured_voice();
  };
  int64_t rejected = 0;
  for (const auto& [ordinal, group] : groups) {
    if (std::find(judged_.begin(), judged_.end(), ordinal) != judged_.end()) continue;
    judged_.push_back(ordinal);
    const bool answered = std::ranges::any_of(group, measured);
    const auto why = answered ? accept_(group) : std::nullopt;
    if (!why) {
      accepted_.push_back(ordinal);
      continue;
    }
    ++rejected;
    for (const ScoredSample& sample : group) {
      dropped_[*why].push_back(sample.rollout.id);
      samples_.at(sample.rollout.id).dropped = true;
    }
  }
  if (rejected > 0) {
    if (end_ordinal_ - first_ordinal_ > kMostRounds * plan_.prompts_per_step) {
      throw DataError("step ",
                      step_,
                      ": after ",
                      end_ordinal_ - first_ordinal_,
                      " prompts only ",
                      accepted_.size(),
                      " of the ",
                      plan_.prompts_per_step,
                      " wanted were accepted; the prompts are too easy or too hard");
    }
    issue(rejected);
    return nullptr;
  }

  ClosedBatch batch{.step = step_,
                    .first_ordinal = first_ordinal_,
                    .end_ordinal = end_ordinal_,
                    .measured_voice = plan_.measured_voice()};
  std::sort(accepted_.begin(), accepted_.end());
  for (const int64_t ordinal : accepted_) {
    for (ScoredSample& sample : groups[ordinal]) batch.samples.push_back(std::move(sample));
  }
  batch.dropped = dropped_;
  if (std::ranges::none_of(batch.samples, measured))
    throw DataError("step ", step_, ": no sample is left: ", dropped_.begin()->first);
  for (const auto& [why, ids] : dropped_) {
    if (!told_.insert(why).second) continue;
    log::warn(str("step ",
                  step_,
                  ": ",
                  ids.size(),
                  " samples dropped: ",
                  why,
                  "; said once a stage, the metric data/dropped counts them all"));
  }
  batch.parts = plan_.parts;
  for (const auto& [id, pending] : samples_) {
    if (pending.score) count_parts(pending.score->score.parts, batch.parts);
  }
  closed_ = std::move(batch);
  return &*closed_;
}

StepOutcome Controller::commit_step(const std::string& learner_manifest, const StepRecord& record) {
  PRAETOR_CHECK(closed_ && closed_->step == record.step, "step ", record.step, " is not closed");
  const ClosedBatch& batch = *closed_;
  BatchRecord row{.step = batch.step};
  for (const ScoredSample& sample : batch.samples) row.samples.push_back(sample.rollout.id);
  row.manifest = nlohmann::json{{"first_ordinal", batch.first_ordinal},
                                {"end_ordinal", batch.end_ordinal},
                                {"learner", nlohmann::json::parse(learner_manifest)}}
                     .dump();
  StepOutcome outcome = StepOutcome::kNew;
  ledger_.transaction([&] {
    for (const auto& [why, ids] : batch.dropped) ledger_.drop(stage(), ids, why);
    if (!batch.replayed) ledger_.record_batch(stage(), row);
    outcome = ledger_.record_step(stage(), record);
  });
  return outcome;
}

std::optional<EvaluationBatch> Controller::close_evaluation() {
  PRAETOR_CHECK(purpose_ == Purpose::kEvaluation, "no evaluation is open");
  if (unfinished_ > 0) return std::nullopt;
  EvaluationBatch out;
  for (const auto& [id, pending] : samples_) {
    ScoredSample sample;
    if (pending.rollout) sample.rollout = *pending.rollout;
    if (pending.score) sample.score = *pending.score;
    sample.rollout.id = sample.score.id = id;
    if (pending.dropped) {
      sample.score.score = {};
      sample.score.score.parts.push_back({.name = "workers", .error = kKilled});
    }
    out.samples.push_back(std::move(sample));
    out.prompts.push_back(prompt_of(id.ordinal).text);
  }
  return out;
}

}  // namespace praetor
