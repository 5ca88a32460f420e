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

Controller::Opening Controller::prepare(int64_t step, const Publication& weights) const {
  Opening out{.step = step, .weights = weights};
  if (training_.step == step && training_.weights.version.same_weights(weights.version)) {
    out.open = true;
    return out;
  }
  out.goes_on = plan_.max_staleness > 0 && training_.step == step - 1 && closed_ &&
                !closed_->replayed && ledger_.batch(stage(), step - 1);
  out.first = out.goes_on ? closed_->end_ordinal : end_of_step(step - 1);
  out.fresh.from = out.fresh.to = out.goes_on ? end_ordinal_ : out.first;
  // A recorded batch is trained as it stands: nothing of it is generated again.
  if (ledger_.batch(stage(), step)) return out;
  const int64_t missing = out.goes_on ? lacking(step, out.first, end_ordinal_)
                                      : steps_ahead(step) * plan_.prompts_per_step;
  if (missing > 0) out.fresh = issue(out.fresh.from, missing, weights);
  return out;
}

std::shared_ptr<const void> Controller::open(Opening opening) {
  struct Over {
    Work work;
    std::optional<ClosedBatch> batch;
    std::map<SampleId, Pending> samples;
  };
  auto over = std::make_shared<Over>();
  evaluation_.reset();
  if (opening.open) return over;
  over->batch = std::exchange(closed_, std::nullopt);
  batch_end_.reset();
  const int64_t step = opening.step;
  const WeightVersion& version = opening.weights.version;
  first_ordinal_ = opening.first;
  if (opening.goes_on) {
    auto& samples = training_.samples;
    while (!samples.empty() && samples.begin()->first.ordinal < first_ordinal_)
      over->samples.insert(over->samples.end(), samples.extract(samples.begin()));
    training_.groups.erase(training_.groups.begin(), training_.groups.lower_bound(first_ordinal_));
    training_.asked.erase(training_.asked.begin(), training_.asked.lower_bound(first_ordinal_));
    for (const int64_t lease : training_.work.forget_before(first_ordinal_))
      ledger_.close_lease(lease, LeaseState::kExpired);
    training_.step = step;
    known_[version.step] = version;
    known_.erase(known_.begin(), known_.lower_bound(step - 1 - plan_.max_staleness));
  } else {
    over->work = std::exchange(training_, Work{.step = step});
    to_judge_.clear();
    known_ = {{version.step, version}};
    end_ordinal_ = first_ordinal_;
  }
  training_.weights = std::move(opening.weights);
  adopt(std::move(opening.fresh));
  return over;
}

/// Steps whose prompts may be out while `step` is open, itself included.
int64_t Controller::steps_ahead(int64_t step) const {
  const int64_t ahead = plan_.max_staleness + 1;
  if (plan_.total_steps == 0) return ahead;
  return std::clamp<int64_t>(plan_.total_steps - step + 1, 1, ahead);
}

/// Prompts that the steps ahead of `step` lack, of which [first, end) are issued.
int64_t Controller::lacking(int64_t step, int64_t first, int64_t end) const {
  const int64_t wanted = steps_ahead(step) * plan_.prompts_per_step;
  const auto count = [&](Verdict verdict) {
    return std::count_if(training_.groups.lower_bound(first),
                         training_.groups.end(),
                         [&](const auto& one) { return one.second.verdict == verdict; });
  };
  const int64_t rejected = count(Verdict::kRejected);
  const int64_t missing = wanted + rejected - (end - first);
  if (missing > 0 && rejected > 0 && end - first > kMostRounds * wanted) {
    throw DataError("step ",
                    step,
                    ": after ",
                    end - first,
                    " prompts only ",
                    count(Verdict::kAccepted),
                    " of the ",
                    wanted,
                    " wanted were accepted; the prompts are too easy or too hard");
  }
  return missing;
}

/// Issues what the steps ahead lack.
void Controller::refill() {
  const int64_t missing = lacking(training_.step, first_ordinal_, end_ordinal_);
  if (missing > 0) adopt(issue(end_ordinal_, missing, training_.weights));
}

/// Issues `count` prompts from `from` on; rows that the ledger has already are taken over with what
/// is done of them.
Controller::Issue Controller::issue(int64_t from, int64_t count, const Publication& weights) const {
  Issue out{.from = from, .to = from + count};
  std::vector<PromptRecord> fresh;
  for (int64_t ordinal = std::max(from, ledger_.next_ordinal(stage())); ordinal < out.to;
       ++ordinal) {
    fresh.push_back(
        {.ordinal = ordinal,
         .epoch = order_.epoch(ordinal),
         .row = order_.row(ordinal),
         .samples = plan_.total_samples(prompts_[static_cast<size_t>(order_.row(ordinal))])});
  }
  if (!fresh.empty()) ledger_.issue_prompts(stage(), fresh);
  answer_from_data(out.from, out.to, weights.version.step);
  out.samples = ledger_.samples(stage(), out.from, out.to);
  for (const SampleState& state : out.samples) {
    if (state.drop_reason) continue;
    if (state.rolled_out) {
      if (auto rollout = ledger_.rollout(stage(), state.id))
        out.rollouts.emplace(state.id, std::move(*rollout));
    }
    if (state.scored) {
      if (auto score = ledger_.score(stage(), state.id))
        out.scores.emplace(state.id, std::move(*score));
    }
  }
  return out;
}

/// Samples that are the rows' own answers need no worker.
void Controller::answer_from_data(int64_t from, int64_t to, int64_t version) const {
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
                       .weight_version = version,
                       .worker = "data",
                       .voice = voice});
  }
  if (!records.empty()) ledger_.record_rollouts(stage(), records);
}

void Controller::adopt(Issue fresh) {
  end_ordinal_ = fresh.to;
  for (int64_t ordinal = fresh.from; ordinal < fresh.to; ++ordinal) training_.groups[ordinal];
  for (SampleState& state : fresh.samples) {
    Pending& pending = training_.samples[state.id];
    pending.drop_reason = std::move(state.drop_reason);
    if (pending.drop_reason) continue;
    if (const auto at = fresh.rollouts.find(state.id); at != fresh.rollouts.end())
      pending.rollout = std::move(at->second);
    if (const auto at = fresh.scores.find(state.id); at != fresh.scores.end())
      pending.score = std::move(at->second);
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
  for (int64_t ordinal = fresh.from; ordinal < fresh.to; ++ordinal) {
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

/// Finds where the batch of the open step ends; false while prompts before that are unfinished.
bool Controller::fills_batch() {
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
    if (kept == plan_.prompts_per_step) {
      batch_end_ = ordinal;
      return true;
    }
    refill();
  } while (!to_judge_.empty());
  return false;
}

bool Controller::is_complete() {
  PRAETOR_CHECK(training_.step > 0, "no step is open");
  return closed_ || batch_end_ || ledger_.batch(stage(), training_.step) || fills_batch();
}

const ClosedBatch& Controller::closed() {
  if (closed_) return *closed_;
  if (const auto record = ledger_.batch(stage(), training_.step)) {
    closed_ = load_batch(ledger_, plan_, *record);
    return *closed_;
  }
  PRAETOR_CHECK(batch_end_, "step ", training_.step, " is not complete");
  ClosedBatch batch = make_batch(*batch_end_);
  tell_drops(batch);
  closed_ = std::move(batch);
  return *closed_;
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
