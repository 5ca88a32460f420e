#include "actors/controller/controller.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/data/dataset.h"

namespace praetor {

namespace {

/// Prompts that a step may ask for in place of rejected ones, in multiples of what it wants.
constexpr int64_t kMostRounds = 20;

RolloutRecord to_record(RolloutResult&& result, const Prompt& prompt, const std::string& worker) {
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
  record.weight_version = result.weight_version;
  record.worker = worker;
  return record;
}

std::string failed_parts(const Score& score) {
  for (const PartScore& part : score.parts) {
    if (!part.error.empty()) return str("reward part ", part.name, " failed: ", part.error);
  }
  return "not scored";
}

}  // namespace

StepBatch load_batch(const Ledger& ledger, int32_t stage, const BatchRecord& record) {
  const auto manifest = nlohmann::json::parse(record.manifest);
  StepBatch batch{.step = record.step,
                  .first_ordinal = manifest.at("first_ordinal").get<int64_t>(),
                  .end_ordinal = manifest.at("end_ordinal").get<int64_t>(),
                  .replayed = true};
  for (const SampleId& id : record.samples) {
    auto rollout = ledger.rollout(stage, id);
    auto score = ledger.score(stage, id);
    PRAETOR_CHECK(rollout && score,
                  "sample ",
                  id.ordinal,
                  "/",
                  id.sample,
                  " of a recorded batch has no payload");
    batch.samples.push_back({std::move(*rollout), std::move(*score)});
  }
  return batch;
}

Controller::Controller(Ledger& ledger, OnlinePlan plan, std::vector<Prompt> prompts, Accept accept)
    : ledger_(ledger),
      plan_(std::move(plan)),
      prompts_(std::move(prompts)),
      accept_(std::move(accept)) {
  if (prompts_.empty()) throw DataError("the prompt data set has no row");
}

int64_t Controller::row_of(int64_t ordinal) const {
  const auto rows = static_cast<int64_t>(prompts_.size());
  const int64_t epoch = ordinal / rows;
  auto found = orders_.find(epoch);
  if (found == orders_.end()) {
    if (orders_.size() > 4) orders_.erase(orders_.begin());
    found =
        orders_.emplace(epoch, epoch_order(rows, epoch, plan_.job_seed, plan_.stage, plan_.shuffle))
            .first;
  }
  return found->second[static_cast<size_t>(ordinal % rows)];
}

const Prompt& Controller::prompt_of(int64_t ordinal) const {
  return prompts_[static_cast<size_t>(row_of(ordinal))];
}

int64_t Controller::end_of_step(int64_t step) const {
  if (step == 0) return 0;
  const auto batch = ledger_.batch(static_cast<int32_t>(plan_.stage), step);
  PRAETOR_CHECK(batch, "step ", step, " of stage ", plan_.stage, " has no batch in the ledger");
  return nlohmann::json::parse(batch->manifest).at("end_ordinal").get<int64_t>();
}

/// Takes `count` more prompts into the step; rows that the ledger has already are taken over with
/// what is done of them.
void Controller::issue(int64_t count) {
  const auto stage = static_cast<int32_t>(plan_.stage);
  const int64_t from = end_ordinal_;
  end_ordinal_ += count;
  std::vector<PromptRecord> fresh;
  for (int64_t ordinal = std::max(from, ledger_.next_ordinal(stage)); ordinal < end_ordinal_;
       ++ordinal) {
    fresh.push_back({.ordinal = ordinal,
                     .epoch = ordinal / static_cast<int64_t>(prompts_.size()),
                     .row = row_of(ordinal),
                     .samples = plan_.samples_per_prompt});
  }
  if (!fresh.empty()) ledger_.issue_prompts(stage, fresh);
  adopt(from, end_ordinal_);
}

void Controller::adopt(int64_t from, int64_t to) {
  const auto stage = static_cast<int32_t>(plan_.stage);
  for (const SampleState& state : ledger_.samples(stage, from, to)) {
    Pending& pending = samples_[state.id];
    pending.dropped = state.drop_reason.has_value();
    if (pending.dropped) continue;
    if (state.rolled_out) pending.rollout = ledger_.rollout(stage, state.id);
    if (state.scored) pending.score = ledger_.score(stage, state.id);
    if (!pending.rollout) {
      to_generate_.push_back(state.id);
    } else if (!pending.score) {
      to_score_.push_back(state.id);
    }
  }
}

void Controller::open_step(int64_t step, int64_t weight_version) {
  const std::lock_guard lock(mutex_);
  PRAETOR_CHECK(leases_.empty(), "step ", step, " opened while leases are out");
  step_ = step;
  weight_version_ = weight_version;
  samples_.clear();
  accepted_.clear();
  judged_.clear();
  dropped_.clear();
  to_generate_.clear();
  to_score_.clear();
  first_ordinal_ = end_ordinal_ = end_of_step(step - 1);
  // A recorded batch is trained as it stands: nothing of it is generated again.
  if (!ledger_.batch(static_cast<int32_t>(plan_.stage), step)) issue(plan_.prompts_per_step);
}

void Controller::expire_leases() {
  const auto now = std::chrono::steady_clock::now();
  std::vector<int64_t> late;
  for (const auto& [id, lease] : leases_) {
    if (lease.deadline < now) late.push_back(id);
  }
  for (const int64_t id : late) {
    log::warn(str("lease ",
                  id,
                  " of ",
                  leases_.at(id).worker,
                  " ran out of time; its samples go to another worker"));
    give_back(id, LeaseState::kExpired);
  }
}

void Controller::give_back(int64_t id, LeaseState state) {
  const auto found = leases_.find(id);
  auto& queue = found->second.kind == LeaseKind::kGenerate ? to_generate_ : to_score_;
  queue.insert(queue.begin(), found->second.items.begin(), found->second.items.end());
  std::sort(queue.begin(), queue.end());
  ledger_.close_lease(id, state);
  leases_.erase(found);
  ++leases_reissued_;
}

void Controller::worker_lost(const std::string& worker) {
  const std::lock_guard lock(mutex_);
  std::vector<int64_t> ids;
  for (const auto& [id, lease] : leases_) {
    if (lease.worker == worker) ids.push_back(id);
  }
  for (const int64_t id : ids) give_back(id, LeaseState::kExpired);
}

std::optional<Lease> Controller::lease(const std::string& worker,
                                       LeaseKind kind,
                                       int64_t max_items) {
  const std::lock_guard lock(mutex_);
  expire_leases();
  auto& queue = kind == LeaseKind::kGenerate ? to_generate_ : to_score_;
  if (queue.empty()) return std::nullopt;
  OpenLease open{worker, kind, {}, std::chrono::steady_clock::now() + plan_.lease_time};
  while (!queue.empty() && static_cast<int64_t>(open.items.size()) < max_items) {
    open.items.push_back(queue.front());
    queue.pop_front();
  }
  Lease lease;
  lease.kind = kind;
  lease.stage = plan_.stage;
  lease.weight_version = weight_version_;
  lease.job_seed = plan_.job_seed;
  lease.params = plan_.params;
  for (const SampleId& id : open.items) {
    const Prompt& prompt = prompt_of(id.ordinal);
    if (kind == LeaseKind::kGenerate) {
      lease.generate.push_back({id, prompt.tokens});
    } else {
      const RolloutRecord& rollout = *samples_.at(id).rollout;
      lease.score.push_back(
          {id,
           {.prompt = prompt.text,
            .response = rollout.text,
            .metadata = prompt.metadata,
            .response_tokens = static_cast<int64_t>(rollout.tokens.size()) - rollout.prompt_length,
            .finished = rollout.finish == FinishReason::kStop}});
    }
  }
  const auto now = std::chrono::system_clock::now();
  lease.id = ledger_.open_lease({.kind = kind,
                                 .stage = static_cast<int32_t>(plan_.stage),
                                 .worker = worker,
                                 .issued_at = now,
                                 .deadline = now + plan_.lease_time,
                                 .items = open.items});
  leases_.emplace(lease.id, std::move(open));
  return lease;
}

void Controller::finish_items(int64_t id, const std::vector<SampleId>& done) {
  const auto found = leases_.find(id);
  if (found == leases_.end()) return;  // a late result of an expired lease is still a result
  auto& items = found->second.items;
  std::erase_if(items, [&](const SampleId& item) {
    return std::find(done.begin(), done.end(), item) != done.end();
  });
  if (items.empty()) {
    ledger_.close_lease(id, LeaseState::kCompleted);
    leases_.erase(found);
  }
}

void Controller::complete(int64_t lease, std::vector<RolloutResult> results) {
  const std::lock_guard lock(mutex_);
  const auto owner = leases_.find(lease);
  const std::string worker = owner == leases_.end() ? "" : owner->second.worker;
  std::vector<RolloutRecord> records;
  std::vector<SampleId> done;
  for (RolloutResult& result : results) {
    const auto found = samples_.find(result.id);
    if (found == samples_.end() || found->second.rollout ||
        result.weight_version != weight_version_)
      continue;
    done.push_back(result.id);
    records.push_back(to_record(std::move(result), prompt_of(done.back().ordinal), worker));
  }
  ledger_.record_rollouts(static_cast<int32_t>(plan_.stage), records);
  for (RolloutRecord& record : records) {
    const SampleId id = record.id;
    samples_.at(id).rollout = std::move(record);
    std::erase(to_generate_, id);
    to_score_.push_back(id);
  }
  finish_items(lease, done);
}

void Controller::complete(int64_t lease, std::vector<ScoreResult> results) {
  const std::lock_guard lock(mutex_);
  const auto owner = leases_.find(lease);
  const std::string worker = owner == leases_.end() ? "" : owner->second.worker;
  std::vector<ScoreRecord> records;
  std::vector<SampleId> done;
  for (ScoreResult& result : results) {
    const auto found = samples_.find(result.id);
    if (found == samples_.end() || found->second.score) continue;
    done.push_back(result.id);
    records.push_back({result.id, std::move(result.score), worker});
  }
  ledger_.record_scores(static_cast<int32_t>(plan_.stage), records);
  for (ScoreRecord& record : records) {
    const SampleId id = record.id;
    samples_.at(id).score = std::move(record);
    std::erase(to_score_, id);
  }
  finish_items(lease, done);
}

std::optional<StepBatch> Controller::close_step() {
  const std::lock_guard lock(mutex_);
  const auto stage = static_cast<int32_t>(plan_.stage);
  if (const auto record = ledger_.batch(stage, step_)) return load_batch(ledger_, stage, *record);
  for (const auto& [id, pending] : samples_) {
    if (!pending.dropped && !pending.score) return std::nullopt;
  }

  std::map<int64_t, std::vector<ScoredSample>> groups;
  for (auto& [id, pending] : samples_) {
    groups[id.ordinal];
    if (pending.dropped) continue;
    if (!pending.score->score.score) {
      const std::string why = failed_parts(pending.score->score);
      dropped_[why].push_back(id);
      pending.dropped = true;
      continue;
    }
    groups[id.ordinal].push_back({*pending.rollout, *pending.score});
  }
  int64_t rejected = 0;
  for (const auto& [ordinal, group] : groups) {
    if (std::find(judged_.begin(), judged_.end(), ordinal) != judged_.end()) continue;
    judged_.push_back(ordinal);
    const auto why = group.empty() ? std::nullopt : accept_(group);
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
    return std::nullopt;
  }

  StepBatch batch{.step = step_, .first_ordinal = first_ordinal_, .end_ordinal = end_ordinal_};
  std::sort(accepted_.begin(), accepted_.end());
  for (const int64_t ordinal : accepted_) {
    for (ScoredSample& sample : groups[ordinal]) batch.samples.push_back(std::move(sample));
  }
  batch.dropped = dropped_;
  if (batch.samples.empty())
    throw DataError("step ", step_, ": no sample is left: ", dropped_.begin()->first);
  for (const auto& [why, ids] : dropped_)
    log::warn(str("step ", step_, ": ", ids.size(), " samples dropped: ", why));
  return batch;
}

StepOutcome Controller::commit_step(const StepBatch& batch,
                                    const std::string& learner_manifest,
                                    const StepRecord& record) {
  const auto stage = static_cast<int32_t>(plan_.stage);
  BatchRecord row{.step = batch.step};
  for (const ScoredSample& sample : batch.samples) row.samples.push_back(sample.rollout.id);
  row.manifest = nlohmann::json{{"first_ordinal", batch.first_ordinal},
                                {"end_ordinal", batch.end_ordinal},
                                {"learner", nlohmann::json::parse(learner_manifest)}}
                     .dump();
  StepOutcome outcome = StepOutcome::kNew;
  ledger_.transaction([&] {
    for (const auto& [why, ids] : batch.dropped) ledger_.drop(stage, ids, why);
    if (!batch.replayed) ledger_.record_batch(stage, row);
    outcome = ledger_.record_step(stage, record);
  });
  return outcome;
}

}  // namespace praetor
