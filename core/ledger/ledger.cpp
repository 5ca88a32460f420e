#include "core/ledger/ledger.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/ledger/ledger_impl.h"
#include "core/ledger/rollout_codec.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

/// Leases that wait for a commit of others; beyond this many they get one of their own.
constexpr size_t kMaxWaitingLeases = 4096;

void require_json_object(std::string_view text, const char* what) {
  if (!nlohmann::json::parse(text, nullptr, false).is_object()) {
    throw InvalidArgument(what, " must be a JSON object, not ", text.substr(0, 80));
  }
}

}  // namespace

Ledger::Ledger(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Ledger::~Ledger() = default;

std::unique_ptr<Ledger> Ledger::open(const fs::path& run_dir, const LedgerOptions& options) {
  return std::unique_ptr<Ledger>(new Ledger(std::make_unique<Impl>(run_dir, options, true)));
}

std::unique_ptr<Ledger> Ledger::open_read_only(const fs::path& run_dir) {
  return std::unique_ptr<Ledger>(
      new Ledger(std::make_unique<Impl>(run_dir, LedgerOptions{}, false)));
}

const Recovery& Ledger::recovery() const {
  return impl_->recovery;
}

void Ledger::transaction(const std::function<void()>& body) {
  impl_->commit(body);
}

void Ledger::set_fact(std::string_view key, std::string_view value) {
  PRAETOR_CHECK(key != "owners", "this fact is the ledger's own");
  impl_->commit(
      [&] { impl_->database.run("INSERT OR REPLACE INTO facts VALUES(?, ?)", key, value); });
}

void Ledger::begin_stage(int32_t stage, std::string_view name, StageForm form) {
  impl_->commit([&] {
    bool known = false;
    {
      Query row = impl_->database.query("SELECT name, form FROM stages WHERE stage = ?", stage);
      if (row.step()) {
        known = true;
        if (row.text(0) != name || row.integer(1) != static_cast<int64_t>(form)) {
          throw ConfigError(impl_->database.file().string(),
                            ": stage ",
                            stage,
                            " was recorded as \"",
                            row.text(0),
                            "\" (",
                            row.integer(1) == 0 ? "online" : "offline",
                            "), the job now calls it \"",
                            name,
                            "\" (",
                            form == StageForm::kOnline ? "online" : "offline",
                            "): use another run directory");
        }
      }
    }
    if (!known) {
      impl_->database.run("INSERT INTO stages(stage, name, form) VALUES(?, ?, ?)",
                          stage,
                          name,
                          static_cast<int64_t>(form));
    }
  });
}

void Ledger::finish_stage(int32_t stage, std::string_view result) {
  impl_->commit([&] {
    impl_->require_stage(stage);
    impl_->database.run(
        "UPDATE stages SET finished = 1, result = ? WHERE stage = ?", result, stage);
  });
}

void Ledger::issue_prompts(int32_t stage, std::span<const PromptRecord> prompts) {
  impl_->commit([&] {
    impl_->require_stage(stage);
    int64_t next = next_ordinal(stage);
    for (const PromptRecord& prompt : prompts) {
      PRAETOR_CHECK(prompt.ordinal == next,
                    "stage ",
                    stage,
                    ": ordinal ",
                    prompt.ordinal,
                    " was issued, ",
                    next,
                    " is next");
      PRAETOR_CHECK(prompt.samples >= 1,
                    "stage ",
                    stage,
                    ", prompt ",
                    prompt.ordinal,
                    ": ",
                    prompt.samples,
                    " samples");
      impl_->database.run("INSERT INTO prompts VALUES(?, ?, ?, ?, ?)",
                          stage,
                          prompt.ordinal,
                          prompt.epoch,
                          prompt.row,
                          prompt.samples);
      ++next;
    }
  });
}

int64_t Ledger::open_lease(const LeaseRecord& lease) {
  PRAETOR_CHECK(impl_->writable, "the ledger was opened to read only");
  LeaseRecord open = lease;
  open.state = LeaseState::kOpen;
  bool many = false;
  {
    const std::lock_guard lock(impl_->lease_mutex);
    open.id = impl_->next_lease++;
    impl_->news.opened.push_back(open);
    impl_->open_leases.insert(open.id);
    many = impl_->news.opened.size() > kMaxWaitingLeases;
  }
  if (many) impl_->settle_leases();
  return open.id;
}

bool Ledger::close_lease(int64_t id, LeaseState state) {
  PRAETOR_CHECK(state != LeaseState::kOpen, "a lease cannot be closed as open");
  const std::lock_guard lock(impl_->lease_mutex);
  if (impl_->open_leases.erase(id) == 0) return false;
  impl_->news.closed.emplace_back(id, state);
  return true;
}

Recorded Ledger::record_rollouts(int32_t stage, std::span<const RolloutRecord> rollouts) {
  Recorded done;
  impl_->commit([&] {
    impl_->require_stage(stage);
    PRAETOR_CHECK(impl_->form(stage) == StageForm::kOnline, "stage ", stage, " is offline");
    for (const RolloutRecord& rollout : rollouts) {
      check_rollout(stage, rollout);
      impl_->require_issued(stage, rollout.id);
      if (impl_->has_rollout(stage, rollout.id) || impl_->dropped(stage, rollout.id)) {
        ++done.ignored;
        continue;
      }
      const SegmentPosition at = impl_->append(encode_rollout(stage, rollout));
      impl_->database.run("INSERT INTO rollouts VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                          stage,
                          rollout.id.ordinal,
                          rollout.id.sample,
                          at.segment,
                          at.offset,
                          at.bytes,
                          rollout.prompt_length,
                          static_cast<int64_t>(rollout.behavior_logprobs.size()),
                          static_cast<int64_t>(rollout.finish),
                          rollout.weight_version,
                          rollout.worker);
      ++done.added;
    }
  });
  return done;
}

Recorded Ledger::record_scores(int32_t stage, std::span<const ScoreRecord> scores) {
  Recorded done;
  impl_->commit([&] {
    impl_->require_stage(stage);
    for (const ScoreRecord& score : scores) {
      const SampleId id = score.id;
      if (score.score.score && !std::isfinite(*score.score.score)) {
        throw InvalidArgument(name_of(stage, id),
                              ": the score is ",
                              *score.score.score,
                              "; a judge gives a finite number or an error");
      }
      impl_->require_issued(stage, id);
      if (impl_->dropped(stage, id)) {
        ++done.ignored;
        continue;
      }
      if (!impl_->has_rollout(stage, id)) {
        throw InvalidArgument(name_of(stage, id), ": a score came for a sample without rollout");
      }
      const int64_t added =
          impl_->database.run("INSERT OR IGNORE INTO scores VALUES(?, ?, ?, ?, ?, ?)",
                              stage,
                              id.ordinal,
                              id.sample,
                              score.score.score,
                              score_to_json(score.score),
                              score.worker);
      ++(added == 1 ? done.added : done.ignored);
    }
  });
  return done;
}

Recorded Ledger::drop(int32_t stage, std::span<const SampleId> samples, std::string_view reason) {
  Recorded done;
  impl_->commit([&] {
    impl_->require_stage(stage);
    PRAETOR_CHECK(!reason.empty(), "a drop needs a reason");
    for (const SampleId id : samples) {
      impl_->require_issued(stage, id);
      PRAETOR_CHECK(impl_->batch_of(stage, id) == 0,
                    name_of(stage, id),
                    ": stands in a batch and cannot be dropped");
      const int64_t added = impl_->database.run(
          "INSERT OR IGNORE INTO drops VALUES(?, ?, ?, ?)", stage, id.ordinal, id.sample, reason);
      ++(added == 1 ? done.added : done.ignored);
    }
  });
  return done;
}

bool Ledger::record_batch(int32_t stage, const BatchRecord& record) {
  require_json_object(record.manifest, "a batch manifest");
  bool added = false;
  impl_->commit([&] {
    impl_->require_stage(stage);
    if (const auto known = batch(stage, record.step)) {
      PRAETOR_CHECK(known->samples == record.samples && known->manifest == record.manifest,
                    "stage ",
                    stage,
                    ", step ",
                    record.step,
                    ": the batch was recorded with other content");
      return;
    }
    const int64_t last = last_batch(stage);
    PRAETOR_CHECK(record.step == last + 1,
                  "stage ",
                  stage,
                  ": batch ",
                  record.step,
                  " came, ",
                  last + 1,
                  " is next");
    PRAETOR_CHECK(
        !record.samples.empty(), "stage ", stage, ", step ", record.step, ": empty batch");
    const bool online = impl_->form(stage) == StageForm::kOnline;
    impl_->database.run("INSERT INTO batches VALUES(?, ?, ?)", stage, record.step, record.manifest);
    int64_t position = 0;
    for (const SampleId id : record.samples) {
      impl_->require_issued(stage, id);
      PRAETOR_CHECK(
          !impl_->dropped(stage, id), name_of(stage, id), ": was dropped, cannot be trained");
      PRAETOR_CHECK(
          !online || impl_->has_rollout(stage, id), name_of(stage, id), ": has no rollout");
      const int64_t other = impl_->batch_of(stage, id);
      PRAETOR_CHECK(
          other == 0, name_of(stage, id), ": stands in the batch of step ", other, " already");
      impl_->database.run("INSERT INTO batch_samples VALUES(?, ?, ?, ?, ?)",
                          stage,
                          id.ordinal,
                          id.sample,
                          record.step,
                          position++);
    }
    added = true;
  });
  return added;
}

StepOutcome Ledger::record_step(int32_t stage, const StepRecord& record) {
  require_json_object(record.metrics, "the metrics of a step");
  StepOutcome outcome = StepOutcome::kNew;
  impl_->commit([&] {
    const int64_t next = last_step(stage) + 1;
    PRAETOR_CHECK(
        record.step == next, "stage ", stage, ": step ", record.step, " came, ", next, " is next");
    PRAETOR_CHECK(
        record.step <= last_batch(stage), "stage ", stage, ": step ", record.step, " has no batch");
    if (const auto known = step(stage, record.step)) {
      const bool same = known->loss_digest == record.loss_digest &&
                        known->gradient_digest == record.gradient_digest;
      outcome = same ? StepOutcome::kReplayedIdentical : StepOutcome::kReplayedDifferent;
    }
    impl_->database.run("INSERT OR REPLACE INTO steps VALUES(?, ?, ?, ?, ?, 0)",
                        stage,
                        record.step,
                        record.loss_digest,
                        record.gradient_digest,
                        record.metrics);
  });
  return outcome;
}

}  // namespace praetor
