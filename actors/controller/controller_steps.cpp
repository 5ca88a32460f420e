// The steps of a stage: which prompts are issued when, which of them a batch takes.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "actors/controller/controller.h"
#include "core/base/error.h"
#include "core/base/log.h"

namespace praetor {

namespace {

/// Prompts that may be asked for in place of rejected ones, in multiples of what is wanted.
constexpr int64_t kMostRounds = 20;

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

}  // namespace

int64_t Controller::end_of_step(int64_t step) const {
  if (step == 0) return 0;
  const auto batch = ledger_.batch(stage(), step);
  PRAETOR_CHECK(batch, "step ", step, " of stage ", stage(), " has no batch in the ledger");
  return nlohmann::json::parse(batch->manifest).at("end_ordinal").get<int64_t>();
}

void Controller::begin(int64_t step, const Publication& weights) {
  training_ = Work{.step = step, .weights = weights};
  to_judge_.clear();
  closed_.reset();
  known_ = {{weights.version.step, weights.version}};
  first_ordinal_ = end_ordinal_ = end_of_step(step - 1);
}

/// The step after the one that was open: what is in work for it and later ones goes on.
void Controller::advance(int64_t step, const Publication& weights) {
  first_ordinal_ = closed_->end_ordinal;
  closed_.reset();
  training_.step = step;
  training_.weights = weights;
  std::erase_if(training_.samples,
                [&](const auto& one) { return one.first.ordinal < first_ordinal_; });
  training_.groups.erase(training_.groups.begin(), training_.groups.lower_bound(first_ordinal_));
  training_.asked.erase(training_.asked.begin(), training_.asked.lower_bound(first_ordinal_));
  for (const int64_t lease : training_.work.forget_before(first_ordinal_))
    ledger_.close_lease(lease, LeaseState::kExpired);
  known_[weights.version.step] = weights.version;
  known_.erase(known_.begin(), known_.lower_bound(step - 1 - plan_.max_staleness));
}

void Controller::open_step(int64_t step, const Publication& weights) {
  evaluation_.reset();
  if (training_.step == step && training_.weights.version.same_weights(weights.version)) return;
  const bool goes_on = plan_.max_staleness > 0 && training_.step == step - 1 && closed_ &&
                       !closed_->replayed && ledger_.batch(stage(), step - 1);
  if (goes_on) {
    advance(step, weights);
  } else {
    begin(step, weights);
  }
  // A recorded batch is trained as it stands: nothing of it is generated again.
  if (!ledger_.batch(stage(), step)) refill();
}

/// Steps whose prompts may be out, the open one included.
int64_t Controller::steps_ahead() const {
  const int64_t ahead = plan_.max_staleness + 1;
  if (plan_.total_steps == 0) return ahead;
  return std::clamp<int64_t>(plan_.total_steps - training_.step + 1, 1, ahead);
}

/// Issues what the steps ahead lack.
void Controller::refill() {
  const int64_t wanted = steps_ahead() * plan_.prompts_per_step;
  const auto count = [&](Verdict verdict) {
    return std::ranges::count(
        training_.groups, verdict, [](const auto& one) { return one.second.verdict; });
  };
  const int64_t rejected = count(Verdict::kRejected);
  const int64_t missing = wanted + rejected - (end_ordinal_ - first_ordinal_);
  if (missing <= 0) return;
  if (rejected > 0 && end_ordinal_ - first_ordinal_ > kMostRounds * wanted) {
    throw DataError("step ",
                    training_.step,
                    ": after ",
                    end_ordinal_ - first_ordinal_,
                    " prompts only ",
                    count(Verdict::kAccepted),
                    " of the ",
                    wanted,
                    " wanted were accepted; the prompts are too easy or too hard");
  }
  issue(missing);
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
                       .weight_version = training_.weights.version.step,
                       .worker = "data",
                       .voice = voice});
  }
  if (!records.empty()) ledger_.record_rollouts(stage(), records);
}

void Controller::adopt(int64_t from, int64_t to) {
  answer_from_data(from, to);
  for (int64_t ordinal = from; ordinal < to; ++ordinal) training_.groups[ordinal];
  for (const SampleState& state : ledger_.samples(stage(), from, to)) {
    Pending& pending = training_.samples[state.id];
    pending.drop_reason = state.drop_reason;
    if (pending.drop_reason) continue;
    if (state.rolled_out) pending.rollout = ledger_.rollout(stage(), state.id);
    if (state.scored) pending.score = ledger_.score(stage(), state.id);
    if (!pending.score) {
      ++training_.unfinished;
      ++training_.groups.at(state.id.ordinal).unfinished;
    }
    if (!pending.rollout) {
      training_.work.want(LeaseKind::kGenerate, state.id);
    } else if (!pending.score && !plan_.pairwise()) {
      training_.work.want(LeaseKind::kScore, state.id);
    }
  }
  for (int64_t ordinal = from; ordinal < to; ++ordinal) {
    if (plan_.pairwise()) want_score(training_, {ordinal, 0});
    if (training_.groups.at(ordinal).unfinished == 0) to_judge_.insert(ordinal);
  }
}

std::vector<ScoredSample> Controller::kept_samples(int64_t ordinal) const {
  std::vector<ScoredSample> out;
  for (auto at = training_.samples.lower_bound({ordinal, 0});
       at != training_.samples.end() && at->first.ordinal == ordinal;
       ++at) {
    if (!at->second.drop_reason) out.push_back({*at->second.rollout, *at->second.score});
  }
  return out;
}

void Controller::reject(int64_t ordinal, const std::string& why) {
  training_.groups.at(ordinal).verdict = Verdict::kRejected;
  for (auto at = training_.samples.lower_bound({ordinal, 0});
       at != training_.samples.end() && at->first.ordinal == ordinal;
       ++at) {
    if (!at->second.drop_reason) at->second.drop_reason = why;
  }
}

/// Decides about prompts whose samples are all finished.
void Controller::judge() {
  for (const int64_t ordinal : std::exchange(to_judge_, {})) {
    for (auto at = training_.samples.lower_bound({ordinal, 0});
         at != training_.samples.end() && at->first.ordinal == ordinal;
         ++at) {
      Pending& pending = at->second;
      if (!pending.drop_reason && !pending.score->score.score)
        pending.drop_reason = failed_parts(pending.score->score, plan_.parts);
    }
    const std::vector<ScoredSample> group = kept_samples(ordinal);
    const bool answered =
        std::ranges::any_of(group, [&](const ScoredSample& sample) { return measured(sample); });
    const auto why = answered ? accept_(group) : std::nullopt;
    if (why) {
      reject(ordinal, *why);
    } else {
      training_.groups.at(ordinal).verdict = Verdict::kAccepted;
    }
  }
}

/// Issue keeps to the bound; a run that goes on with a lower one may have samples beyond it.
bool Controller::too_stale(int64_t ordinal) const {
  for (auto at = training_.samples.lower_bound({ordinal, 0});
       at != training_.samples.end() && at->first.ordinal == ordinal;
       ++at) {
    if (at->second.drop_reason) continue;
    if (training_.step - 1 - at->second.rollout->weight_version > plan_.max_staleness) return true;
  }
  return false;
}

/// Where the batch of the open step ends; nothing while prompts before that are unfinished.
std::optional<int64_t> Controller::end_of_batch() {
  do {
    judge();
    int64_t kept = 0;
    int64_t ordinal = first_ordinal_;
    for (; ordinal < end_ordinal_ && kept < plan_.prompts_per_step; ++ordinal) {
      const GroupState& group = training_.groups.at(ordinal);
      if (group.verdict == Verdict::kOpen) break;
      if (group.verdict == Verdict::kAccepted && too_stale(ordinal))
        reject(ordinal, str("staler than max_staleness ", plan_.max_staleness));
      if (group.verdict == Verdict::kAccepted) ++kept;
    }
    if (kept == plan_.prompts_per_step) return ordinal;
    refill();
  } while (!to_judge_.empty());
  return std::nullopt;
}

const ClosedBatch* Controller::close_step() {
  PRAETOR_CHECK(training_.step > 0, "no step is open");
  if (closed_) return &*closed_;
  if (const auto record = ledger_.batch(stage(), training_.step)) {
    closed_ = load_batch(ledger_, plan_, *record);
    return &*closed_;
  }
  const auto end = end_of_batch();
  if (!end) return nullptr;
  ClosedBatch batch = make_batch(*end);
  tell_drops(batch);
  closed_ = std::move(batch);
  return &*closed_;
}

ClosedBatch Controller::make_batch(int64_t end) const {
  ClosedBatch batch{.step = training_.step,
                    .first_ordinal = first_ordinal_,
                    .end_ordinal = end,
                    .parts = plan_.parts,
                    .measured_voice = plan_.measured_voice()};
  for (const auto& [ordinal, group] : training_.groups) {
    if (ordinal >= end || group.verdict != Verdict::kAccepted) continue;
    for (ScoredSample& sample : kept_samples(ordinal)) batch.samples.push_back(std::move(sample));
  }
  for (const auto& [id, pending] : training_.samples) {
    if (id.ordinal >= end) break;
    if (pending.drop_reason) batch.dropped[*pending.drop_reason].push_back(id);
    if (pending.score) count_parts(pending.score->score.parts, batch.parts);
  }
  const auto counts = [&](const ScoredSample& sample) { return measured(sample); };
  if (std::ranges::none_of(batch.samples, counts)) {
    throw DataError("step ", batch.step, ": no sample is left: ", batch.dropped.begin()->first);
  }
  return batch;
}

void Controller::tell_drops(const ClosedBatch& batch) {
  for (const auto& [why, ids] : batch.dropped) {
    if (!told_.insert(why).second) continue;
    log::warn(str("step ",
                  batch.step,
                  ": ",
                  ids.size(),
                  " samples dropped: ",
                  why,
                  "; said once a stage, the metric data/dropped counts them all"));
  }
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

}  // namespace praetor
