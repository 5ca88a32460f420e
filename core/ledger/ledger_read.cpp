#include <nlohmann/json.hpp>

#include "core/ledger/ledger_impl.h"
#include "core/ledger/rollout_codec.h"

namespace praetor {

namespace {

TimePoint from_ms(int64_t milliseconds) {
  return TimePoint(std::chrono::milliseconds(milliseconds));
}

StepRecord step_of(const Query& row) {
  StepRecord out;
  out.step = row.integer(0);
  out.loss_digest = row.text(1);
  out.gradient_digest = row.text(2);
  out.metrics = row.text(3);
  out.replayable = row.integer(4) != 0;
  return out;
}

PromptRecord prompt_of(const Query& row) {
  return {row.integer(0), row.integer(1), row.integer(2), static_cast<int32_t>(row.integer(3))};
}

}  // namespace

std::optional<std::string> Ledger::fact(std::string_view key) const {
  const std::lock_guard lock(impl_->mutex);
  Query row = impl_->database.query("SELECT value FROM facts WHERE key = ?", key);
  if (!row.step()) return std::nullopt;
  return row.text(0);
}

std::vector<StageRecord> Ledger::stages() const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<StageRecord> out;
  Query row = impl_->database.query(
      "SELECT stage, name, form, finished, result FROM stages ORDER BY stage");
  while (row.step()) {
    out.push_back({static_cast<int32_t>(row.integer(0)),
                   row.text(1),
                   static_cast<StageForm>(row.integer(2)),
                   row.integer(3) != 0,
                   row.text(4)});
  }
  return out;
}

int64_t Ledger::next_ordinal(int32_t stage) const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->database.integer(-1, "SELECT MAX(ordinal) FROM prompts WHERE stage = ?", stage) + 1;
}

std::optional<PromptRecord> Ledger::last_prompt(int32_t stage) const {
  const std::lock_guard lock(impl_->mutex);
  Query row = impl_->database.query(
      "SELECT ordinal, epoch, row, samples FROM prompts WHERE stage = ? ORDER BY ordinal DESC "
      "LIMIT 1",
      stage);
  if (!row.step()) return std::nullopt;
  return prompt_of(row);
}

std::vector<PromptRecord> Ledger::prompts(int32_t stage, int64_t from, int64_t to) const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<PromptRecord> out;
  Query row = impl_->database.query(
      "SELECT ordinal, epoch, row, samples FROM prompts "
      "WHERE stage = ? AND ordinal >= ? AND ordinal < ? ORDER BY ordinal",
      stage,
      from,
      to);
  while (row.step()) out.push_back(prompt_of(row));
  return out;
}

std::vector<LeaseRecord> Ledger::leases(LeaseState state) const {
  const std::lock_guard lock(impl_->mutex);
  if (impl_->writable) impl_->settle_leases();
  std::vector<LeaseRecord> out;
  Query row = impl_->database.query(
      "SELECT id, kind, stage, worker, issued_ms, deadline_ms, items FROM leases WHERE state = ? "
      "ORDER BY id",
      static_cast<int64_t>(state));
  while (row.step()) {
    LeaseRecord lease;
    lease.id = row.integer(0);
    lease.kind = static_cast<LeaseKind>(row.integer(1));
    lease.stage = static_cast<int32_t>(row.integer(2));
    lease.worker = row.text(3);
    lease.issued_at = from_ms(row.integer(4));
    lease.deadline = from_ms(row.integer(5));
    lease.state = state;
    for (const auto& item : nlohmann::json::parse(row.text(6), nullptr, false)) {
      if (!item.is_array() || item.size() != 2 || !item[0].is_number_integer() ||
          !item[1].is_number_integer()) {
        throw DataError(
            impl_->database.file().string(), ": lease ", lease.id, ": its items are damaged");
      }
      lease.items.push_back({item[0].get<int64_t>(), item[1].get<int32_t>()});
    }
    out.push_back(std::move(lease));
  }
  return out;
}

std::optional<RolloutRecord> Ledger::rollout(int32_t stage, SampleId id) const {
  const std::lock_guard lock(impl_->mutex);
  SegmentPosition at;
  {
    Query row = impl_->database.query(
        "SELECT r.segment, r.position, r.bytes, s.pruned FROM rollouts r JOIN segments s "
        "ON s.segment = r.segment WHERE r.stage = ? AND r.ordinal = ? AND r.sample = ?",
        stage,
        id.ordinal,
        id.sample);
    if (!row.step()) return std::nullopt;
    if (row.integer(3) != 0) {
      throw DataError(name_of(stage, id),
                      ": its payload was pruned after a checkpoint had covered its step");
    }
    at = {row.integer(0), row.integer(1), row.integer(2)};
  }
  StagedRollout staged = decode_rollout(read_segment_record(impl_->folder, at));
  if (staged.stage != stage || staged.rollout.id != id) {
    throw DataError(segment_path(impl_->folder, at.segment).string(),
                    ": offset ",
                    at.offset,
                    ": holds ",
                    name_of(staged.stage, staged.rollout.id),
                    ", the ledger expects ",
                    name_of(stage, id));
  }
  return std::move(staged.rollout);
}

std::optional<ScoreRecord> Ledger::score(int32_t stage, SampleId id) const {
  const std::lock_guard lock(impl_->mutex);
  Query row = impl_->database.query(
      "SELECT score, parts, worker FROM scores WHERE stage = ? AND ordinal = ? AND sample = ?",
      stage,
      id.ordinal,
      id.sample);
  if (!row.step()) return std::nullopt;
  ScoreRecord out;
  out.id = id;
  if (!row.is_null(0)) out.score.score = row.real(0);
  score_from_json(row.text(1), out.score);
  out.worker = row.text(2);
  return out;
}

std::vector<SampleState> Ledger::samples(int32_t stage, int64_t from, int64_t to) const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<SampleState> out;
  for (const PromptRecord& prompt : prompts(stage, from, to)) {
    for (int32_t sample = 0; sample < prompt.samples; ++sample) {
      out.push_back({});
      out.back().id = {prompt.ordinal, sample};
    }
  }
  size_t at = 0;
  // All four tables are in the order of `out`, so one pass of each suffices.
  const auto find = [&](const Query& row) -> SampleState* {
    const SampleId id{row.integer(0), static_cast<int32_t>(row.integer(1))};
    while (at < out.size() && out[at].id < id) ++at;
    return at < out.size() && out[at].id == id ? &out[at] : nullptr;
  };
  {
    Query row = impl_->database.query(
        "SELECT r.ordinal, r.sample, s.pruned FROM rollouts r LEFT JOIN segments s "
        "ON s.segment = r.segment WHERE r.stage = ? AND r.ordinal >= ? AND r.ordinal < ? "
        "ORDER BY r.ordinal, r.sample",
        stage,
        from,
        to);
    while (row.step()) {
      if (SampleState* state = find(row)) {
        state->rolled_out = true;
        state->pruned = row.integer(2) != 0;
      }
    }
  }
  at = 0;
  {
    Query row = impl_->database.query(
        "SELECT ordinal, sample, score FROM scores WHERE stage = ? AND ordinal >= ? AND ordinal < "
        "? "
        "ORDER BY ordinal, sample",
        stage,
        from,
        to);
    while (row.step()) {
      if (SampleState* state = find(row)) {
        state->scored = true;
        if (!row.is_null(2)) state->score = row.real(2);
      }
    }
  }
  at = 0;
  {
    Query row = impl_->database.query(
        "SELECT ordinal, sample, reason FROM drops WHERE stage = ? AND ordinal >= ? AND ordinal < "
        "? "
        "ORDER BY ordinal, sample",
        stage,
        from,
        to);
    while (row.step()) {
      if (SampleState* state = find(row)) state->drop_reason = row.text(2);
    }
  }
  at = 0;
  {
    Query row = impl_->database.query(
        "SELECT ordinal, sample, step FROM batch_samples "
        "WHERE stage = ? AND ordinal >= ? AND ordinal < ? ORDER BY ordinal, sample",
        stage,
        from,
        to);
    while (row.step()) {
      if (SampleState* state = find(row)) state->step = row.integer(2);
    }
  }
  return out;
}

std::optional<BatchRecord> Ledger::batch(int32_t stage, int64_t step) const {
  const std::lock_guard lock(impl_->mutex);
  BatchRecord out;
  out.step = step;
  {
    Query row = impl_->database.query(
        "SELECT manifest FROM batches WHERE stage = ? AND step = ?", stage, step);
    if (!row.step()) return std::nullopt;
    out.manifest = row.text(0);
  }
  Query row = impl_->database.query(
      "SELECT ordinal, sample FROM batch_samples WHERE stage = ? AND step = ? ORDER BY position",
      stage,
      step);
  while (row.step()) out.samples.push_back({row.integer(0), static_cast<int32_t>(row.integer(1))});
  return out;
}

int64_t Ledger::last_batch(int32_t stage) const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->database.integer(0, "SELECT MAX(step) FROM batches WHERE stage = ?", stage);
}

std::optional<StepRecord> Ledger::step(int32_t stage, int64_t step) const {
  const std::lock_guard lock(impl_->mutex);
  Query row = impl_->database.query(
      "SELECT step, loss_digest, gradient_digest, metrics, replayable FROM steps "
      "WHERE stage = ? AND step = ?",
      stage,
      step);
  if (!row.step()) return std::nullopt;
  return step_of(row);
}

std::vector<StepRecord> Ledger::steps(int32_t stage) const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<StepRecord> out;
  Query row = impl_->database.query(
      "SELECT step, loss_digest, gradient_digest, metrics, replayable FROM steps "
      "WHERE stage = ? ORDER BY step",
      stage);
  while (row.step()) out.push_back(step_of(row));
  return out;
}

int64_t Ledger::last_step(int32_t stage) const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->database.integer(
      0, "SELECT MAX(step) FROM steps WHERE stage = ? AND replayable = 0", stage);
}

}  // namespace praetor
