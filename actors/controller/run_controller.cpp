#include "actors/controller/run_controller.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "core/base/log.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr std::chrono::seconds kBalanceAge{2};
/// Of the ledger: the last epoch of broadcasts, so that none comes back after a restart.
constexpr const char* kEpochFact = "broadcast_epoch";

}  // namespace

RunController::RunController(const JobConfig& job,
                             fs::path run_dir,
                             Ledger& ledger,
                             RunControllerOptions options)
    : job_(job),
      run_dir_(std::move(run_dir)),
      ledger_(ledger),
      options_(std::move(options)),
      broadcasts_(std::stoll(ledger.fact(kEpochFact).value_or("0")),
                  [this](int64_t epoch) { ledger_.set_fact(kEpochFact, str(epoch)); }),
      members_(options_.patience) {}

RunController::~RunController() = default;

const StageConfig& RunController::config_of(uint32_t stage) const {
  if (stage >= job_.stages.size())
    throw InvalidArgument("stage ", stage, ": the job has ", job_.stages.size(), " stages");
  return job_.stages[stage];
}

/// Wakes the waits that something may have changed for; `mutex_` is held.
void RunController::notify() {
  ++events_;
  changed_.notify_all();
  for (const LeaseKind kind : {LeaseKind::kGenerate, LeaseKind::kScore}) {
    if (desk_ && desk_->waiting(kind) > 0) work_for(kind).notify_all();
  }
}

/// The same for changes of who is a member, and of whether the run goes on.
void RunController::notify_all() {
  ++events_;
  changed_.notify_all();
  for (const LeaseKind kind : {LeaseKind::kGenerate, LeaseKind::kScore})
    work_for(kind).notify_all();
}

// ---- Members

Admission RunController::join(const MemberInfo& member) {
  const std::lock_guard recording(recording_);
  const std::lock_guard lock(mutex_);
  if (members_.join(member, Members::Clock::now())) lose_leases(member.name, false);
  notify_all();
  std::erase_if(answers_, [&](const auto& one) { return one.first.first == member.name; });
  return {.run_id = options_.run_id,
          .run_dir = fs::absolute(run_dir_).string(),
          .job = job_.resolved(),
          .heartbeat = options_.patience.heartbeat};
}

Orders RunController::take_in(const Heartbeat& beat) {
  if (over_) {
    members_.leave(beat.name);
    return Orders::kLeave;
  }
  return members_.heartbeat(beat, Members::Clock::now());
}

Orders RunController::heartbeat(const Heartbeat& beat) {
  const std::lock_guard lock(mutex_);
  return take_in(beat);
}

std::vector<Orders> RunController::heartbeat_all(const std::vector<Heartbeat>& beats) {
  const std::lock_guard lock(mutex_);
  std::vector<Orders> out;
  for (const Heartbeat& beat : beats) out.push_back(take_in(beat));
  return out;
}

void RunController::lose_leases(const std::string& name, bool died) {
  const auto known = members_.all().find(name);
  const bool lost = known != members_.all().end() && known->second.lost;
  broadcasts_.gone(name, lost ? known->second.why : "it left");
  if (desk_) desk_->worker_lost(name, died);
  notify_all();
}

void RunController::leave(const std::string& name) {
  const std::lock_guard recording(recording_);
  const std::lock_guard lock(mutex_);
  members_.leave(name);
  lose_leases(name, false);
}

void RunController::report_death(const std::string& name,
                                 int64_t incarnation,
                                 const std::string& why) {
  const std::lock_guard recording(recording_);
  const std::lock_guard lock(mutex_);
  // The ranks of a learner are one process to its supervisor, and a call may be repeated.
  deaths_.emplace(name.starts_with("learner-") ? "learner" : name, incarnation);
  if (members_.lose(name, incarnation, why)) lose_leases(name, true);
}

void RunController::tick() {
  const std::lock_guard recording(recording_);
  const std::lock_guard lock(mutex_);
  if (over_) return;
  for (const std::string& name : members_.lose_silent(Members::Clock::now()))
    lose_leases(name, true);
  if (!desk_) return;
  const int64_t before = desk_->leases_reissued();
  desk_->expire_leases();
  if (desk_->leases_reissued() != before) notify();
}

RunController::Glance RunController::glance() const {
  const std::lock_guard lock(mutex_);
  return {over_, step_, static_cast<int64_t>(members_.all().size())};
}

void RunController::end_run() {
  const std::lock_guard lock(mutex_);
  over_ = true;
  broadcasts_.end();
  notify_all();
}

// ---- The learner's account

StageProgress RunController::progress_of(uint32_t stage) const {
  const auto index = static_cast<int32_t>(stage);
  StageProgress out;
  out.lineage = std::stoll(ledger_.fact("lineage").value_or("0"));
  for (const StageRecord& record : ledger_.stages()) {
    if (record.stage != index) continue;
    out.known = true;
    out.finished = record.finished;
    out.result = record.result;
    out.last_step = ledger_.last_step(index);
    out.next_ordinal = ledger_.next_ordinal(index);
  }
  return out;
}

StageProgress RunController::stage_progress(uint32_t stage) {
  config_of(stage);
  return progress_of(stage);
}

std::vector<CheckpointRecord> RunController::checkpoints() {
  return ledger_.checkpoints();
}

void RunController::close_desk() {
  if (!desk_) return;
  reissued_before_ += desk_->leases_reissued();
  set_aside_before_.insert(
      set_aside_before_.end(), desk_->set_aside().begin(), desk_->set_aside().end());
  desk_.reset();
  answers_.clear();
}

StageProgress RunController::begin_stage(uint32_t stage, int64_t step) {
  const StageConfig& config = config_of(stage);
  const auto index = static_cast<int32_t>(stage);
  const std::lock_guard recording(recording_);
  const std::lock_guard lock(mutex_);
  close_desk();
  stage_ = index;
  step_ = step;
  total_steps_ = 0;
  ledger_.begin_stage(
      index, config.name, config.online() ? StageForm::kOnline : StageForm::kOffline);
  StageProgress before = progress_of(stage);
  if (before.last_step > step) {
    ledger_.rewind(index, step);
    ledger_.set_fact("lineage", str(++before.lineage));
  }
  return before;
}

void RunController::finish_stage(uint32_t stage, const std::string& result) {
  const std::lock_guard recording(recording_);
  const std::lock_guard lock(mutex_);
  ledger_.finish_stage(static_cast<int32_t>(config_of(stage).index), result);
  close_desk();
}

void RunController::set_fact(const std::string& key, const std::string& value) {
  ledger_.set_fact(key, value);
}

void RunController::record_checkpoint(const CheckpointRecord& checkpoint) {
  ledger_.record_checkpoint(checkpoint);
  if (!checkpoint.durable || job_.ledger.payload == "all") return;
  // Training may go back to the oldest checkpoint that is kept: what comes after it is needed.
  for (const CheckpointRecord& kept : ledger_.checkpoints()) {
    if (kept.stage != checkpoint.stage || !kept.durable) continue;
    ledger_.prune_payload(kept.stage, kept.step);
    return;
  }
}

void RunController::forget_checkpoint(const std::string& path) {
  ledger_.forget_checkpoint(path);
}

StepOutcome RunController::commit_rows(uint32_t stage, const RowStep& step) {
  const auto index = static_cast<int32_t>(config_of(stage).index);
  const std::lock_guard recording(recording_);
  StepOutcome outcome = StepOutcome::kNew;
  if (ledger_.last_step(index) >= step.record.step) return outcome;  // asked for again
  ledger_.transaction([&] {
    const int64_t next = ledger_.next_ordinal(index);
    std::vector<PromptRecord> fresh;
    for (const PromptRecord& row : step.fresh) {
      if (row.ordinal >= next) fresh.push_back(row);
    }
    if (!fresh.empty()) ledger_.issue_prompts(index, fresh);
    if (!ledger_.batch(index, step.batch.step)) ledger_.record_batch(index, step.batch);
    outcome = ledger_.record_step(index, step.record);
  });
  const std::lock_guard lock(mutex_);
  step_ = step.record.step;
  return outcome;
}

/// The desk of an online stage, made when it is first asked for, also by a controller that took the
/// run over in the middle of the stage.
Controller& RunController::desk(uint32_t stage) {
  const StageConfig& config = config_of(stage);
  if (desk_ && desk_->plan().stage == stage) return *desk_;
  if (!config.online()) throw InvalidArgument("stage ", config.name, " takes no rollouts");
  const fs::path results = run_dir_ / "stages";
  close_desk();
  stage_ = static_cast<int32_t>(stage);
  auto plan = online_plan(config, job_.seed, results);
  const std::shared_ptr<const Tokenizer> tokenizer = Tokenizer::load(config.tokenizer.in(results));
  if (const auto directions = config.make_algorithm()->sample_plan().direction) {
    plan.ask = asked_in_directions(
        *directions, config.data.format, tokenizer, {.job_seed = job_.seed, .stage = stage});
  }
  std::optional<WantedAnswers> answers;
  if (plan.wants_answers())
    answers = {.end = plan.params.stop_tokens.back(), .longest = plan.params.max_new_tokens};
  const std::string& task = config.rewards.task_field;
  auto prompts =
      read_prompts(config.data.train.in(results), *tokenizer, config.data.format, task, answers);
  std::vector<Prompt> held_out;
  if (config.data.eval.given())
    held_out = read_prompts(config.data.eval.in(results), *tokenizer, config.data.format, task);
  total_steps_ = config.total_steps(static_cast<int64_t>(prompts.size()), plan.prompts_per_step);
  plan.total_steps = total_steps_;
  // Waits of earlier stages are not this one's.
  for (const LeaseKind kind : {LeaseKind::kGenerate, LeaseKind::kScore})
    idle_.take(kind, IdleClock::Clock::now());
  const std::shared_ptr<const Algorithm> method = config.make_algorithm();
  const int32_t measured = plan.measured_voice();
  desk_ = std::make_unique<Controller>(
      ledger_,
      std::move(plan),
      std::move(prompts),
      std::move(held_out),
      [method, voice = measured](const std::vector<ScoredSample>& group) {
        Group judged{.prompt_ordinal = group.front().rollout.id.ordinal};
        for (const ScoredSample& sample : group) {
          if (sample.rollout.voice != voice) continue;
          judged.scores.push_back(*sample.score.score.score);
          judged.finished.push_back(sample.rollout.finish == FinishReason::kStop);
        }
        return method->accept(judged);
      });
  return *desk_;
}

bool RunController::has_batch(uint32_t stage, int64_t step) {
  return ledger_.batch(static_cast<int32_t>(config_of(stage).index), step).has_value();
}

void RunController::open_step(uint32_t stage, int64_t step, const Publication& weights) {
  const std::lock_guard recording(recording_);
  Controller* at = nullptr;
  {
    const std::lock_guard lock(mutex_);
    at = &desk(stage);
  }
  Controller::Opening opening = at->prepare(step, weights);
  std::shared_ptr<const void> over;  // let go of after the lock
  const std::lock_guard lock(mutex_);
  over = at->open(std::move(opening));
  step_ = step;
  notify();
}

/// The desk with `step` open. A controller that was restarted has it not: what is recorded is
/// enough for a step whose samples are all scored.
Controller& RunController::desk_at(uint32_t stage, int64_t step) {
  Controller& at = desk(stage);
  if (!at.training(step))
    at.open_step(step, {.version = {.stage = stage, .step = step - 1, .digest = "unknown"}});
  return at;
}

/// Seconds that a worker of each kind waited for work since the last batch, on average. Of members:
/// in one process nobody waits for another.
void RunController::add_idle(std::vector<std::pair<std::string, double>>& figures) {
  for (const LeaseKind kind : {LeaseKind::kGenerate, LeaseKind::kScore}) {
    const double seconds = idle_.take(kind, IdleClock::Clock::now());
    const int64_t serving = members_.serving(kind);
    if (serving == 0) continue;
    figures.emplace_back(kind == LeaseKind::kGenerate ? "idle/rollout" : "idle/reward",
                         seconds / static_cast<double>(serving));
  }
}

std::optional<StepBatch> RunController::wait_batch(uint32_t stage,
                                                   int64_t step,
                                                   Slice slice,
                                                   std::chrono::milliseconds wait) {
  if (slice.world < 1 || slice.rank < 0 || slice.rank >= slice.world)
    throw InvalidArgument(
        "rank ", slice.rank, " of ", slice.world, " asks for its part of a batch");
  const auto end = std::chrono::steady_clock::now() + wait;
  int64_t seen = 0;
  for (;;) {
    {
      // Closing may record: rejected groups are replaced by new prompts.
      const std::lock_guard recording(recording_);
      std::unique_lock lock(mutex_);
      Controller& at = desk_at(stage, step);
      const int64_t waiting = at.waiting(LeaseKind::kGenerate);
      if (at.is_complete()) {
        lock.unlock();  // a batch takes long to copy, and leases do not touch it
        StepBatch out = at.closed().slice(slice, at.rows());
        lock.lock();
        out.circumstances.emplace_back(
            "fault/leases_reissued", static_cast<double>(reissued_before_ + at.leases_reissued()));
        out.circumstances.emplace_back("fault/restarts", static_cast<double>(deaths_.size()));
        if (slice.rank == 0) add_idle(out.circumstances);
        return out;
      }
      if (at.waiting(LeaseKind::kGenerate) != waiting) notify();
      seen = events_;
    }
    std::unique_lock lock(mutex_);
    if (!changed_.wait_until(lock, end, [&] { return over_ || events_ != seen; }) || over_)
      return std::nullopt;
  }
}

StepOutcome RunController::commit_step(uint32_t stage,
                                       const std::string& learner_manifest,
                                       const StepRecord& record) {
  const auto index = static_cast<int32_t>(config_of(stage).index);
  const std::lock_guard recording(recording_);
  if (ledger_.last_step(index) >= record.step) return StepOutcome::kNew;  // asked for again
  Controller* at = nullptr;
  {
    const std::lock_guard lock(mutex_);
    at = &desk_at(stage, record.step);
    PRAETOR_CHECK(at->is_complete(), "step ", record.step, " is committed before it is closed");
  }
  at->closed();
  return at->commit_step(learner_manifest, record);
}

void RunController::open_evaluation(uint32_t stage,
                                    int64_t step,
                                    int64_t count,
                                    const Publication& weights) {
  const std::lock_guard recording(recording_);
  const std::lock_guard lock(mutex_);
  desk(stage).open_evaluation(step, count, weights);
  notify();
}

std::optional<EvaluationBatch> RunController::wait_evaluation(uint32_t stage,
                                                              int64_t step,
                                                              std::chrono::milliseconds wait) {
  const auto end = std::chrono::steady_clock::now() + wait;
  std::unique_lock lock(mutex_);
  for (;;) {
    Controller& at = desk(stage);
    // Not open: the controller was restarted, and is told anew what to evaluate.
    if (at.evaluating(step)) {
      if (auto batch = at.close_evaluation()) return batch;
    }
    if (over_ || changed_.wait_until(lock, end) == std::cv_status::timeout) return std::nullopt;
  }
}

// ---- Status

RunStatus RunController::status() {
  RunStatus out;
  {
    // Counting takes the longer the more samples there are; nobody else waits for it.
    const std::lock_guard counting(counting_);
    const auto asked_at = std::chrono::steady_clock::now();
    if (balances_.empty() || asked_at - balanced_at_ > kBalanceAge) {
      for (const StageRecord& stage : ledger_.stages())
        balances_[static_cast<uint32_t>(stage.stage)] = ledger_.balance(stage.stage);
      balanced_at_ = std::chrono::steady_clock::now();
    }
    out.balances = balances_;
  }
  const std::lock_guard lock(mutex_);
  out.run_id = options_.run_id;
  out.job = job_.name;
  out.stage = stage_;
  if (stage_ >= 0) out.stage_name = job_.stages[static_cast<size_t>(stage_)].name;
  out.step = step_;
  out.total_steps = total_steps_;
  out.restarts = static_cast<int64_t>(deaths_.size());
  out.set_aside = set_aside_before_;
  out.leases_reissued = reissued_before_;
  if (desk_) {
    out.weights = desk_->weights().version;
    out.to_generate = desk_->waiting(LeaseKind::kGenerate);
    out.generating = desk_->held(LeaseKind::kGenerate);
    out.to_score = desk_->waiting(LeaseKind::kScore);
    out.scoring = desk_->held(LeaseKind::kScore);
    out.ready = desk_->ready();
    out.leases_reissued += desk_->leases_reissued();
    out.set_aside.insert(out.set_aside.end(), desk_->set_aside().begin(), desk_->set_aside().end());
  }
  const auto now = Members::Clock::now();
  for (const auto& [name, member] : members_.all()) {
    out.members.push_back(
        {.info = member.info,
         .seconds_since_heartbeat =
             std::chrono::duration<double>(now - member.last_heartbeat).count(),
         .busy = member.beat.busy,
         .lost = member.lost,
         .why = member.why,
         .progress = member.beat.progress,
         .weight_step = member.beat.weight_step,
         .open_leases = desk_ ? static_cast<int64_t>(desk_->leases_of(name).size()) : int64_t{0},
         .samples = member.samples});
  }
  out.over = over_;
  if (job_.publish.broadcasts()) out.broadcast = broadcasts_.status();
  return out;
}

}  // namespace praetor
