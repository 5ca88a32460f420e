#include "actors/rpc/convert.h"
#include "actors/rpc/fields.h"
#include "core/metrics/metrics_writer.h"

namespace praetor::rpc {

namespace {

PromptRecord prompt_record(const v1::PromptRecord& from) {
  return {within("ordinal", from.ordinal(), 0),
          within("epoch", from.epoch(), 0),
          within("row", from.row(), 0),
          static_cast<int32_t>(within("samples", from.samples(), 1))};
}

/// Cuts samples into parts; `add` puts sample i into a part and gives its size in bytes.
template <typename Part, typename Add>
std::vector<Part> cut(size_t samples, int64_t part_bytes, const Add& add) {
  std::vector<Part> parts(1);
  int64_t filled = 0;
  for (size_t i = 0; i < samples; ++i) {
    if (filled >= part_bytes) {
      parts.emplace_back();
      filled = 0;
    }
    filled += add(i, &parts.back());
  }
  return parts;
}

/// `list_from` over parts, numbered through.
template <typename Part>
std::vector<ScoredSample> join_samples(const std::vector<Part>& parts) {
  std::vector<ScoredSample> to;
  for (const Part& part : parts) {
    check_count("samples", static_cast<int64_t>(to.size()) + part.samples_size());
    for (const v1::ScoredSample& sample : part.samples())
      to.push_back(in_field(str("samples[", to.size(), "]"), [&] { return from_proto(sample); }));
  }
  return to;
}

using FigureField = google::protobuf::RepeatedPtrField<v1::Figure>;

void to_proto(const MetricList& from, FigureField* to) {
  for (const auto& [name, value] : from) {
    v1::Figure* figure = to->Add();
    figure->set_name(name_field("figure", name, true));
    figure->set_value(value);
  }
}

MetricList from_proto(const FigureField& from) {
  MetricList to;
  for (const v1::Figure& figure : from)
    to.emplace_back(name_field("figure", figure.name(), true), figure.value());
  return to;
}

}  // namespace

void to_proto(const StageProgress& from, v1::StageProgressResponse* to) {
  to->set_known(from.known);
  to->set_finished(from.finished);
  to->set_result(from.result);
  to->set_last_step(from.last_step);
  to->set_next_ordinal(from.next_ordinal);
  to->set_lineage(from.lineage);
}

StageProgress from_proto(const v1::StageProgressResponse& from) {
  return {from.known(),
          from.finished(),
          from.result(),
          within("last_step", from.last_step(), 0),
          within("next_ordinal", from.next_ordinal(), 0),
          within("lineage", from.lineage(), 0)};
}

void to_proto(const CheckpointRecord& from, v1::CheckpointRecord* to) {
  to->set_stage(from.stage);
  to->set_step(from.step);
  to->set_path(from.path);
  to->set_durable(from.durable);
}

CheckpointRecord from_proto(const v1::CheckpointRecord& from) {
  return {static_cast<int32_t>(within("stage", from.stage(), 0)),
          within("step", from.step(), 0),
          path_field("path", from.path()),
          from.durable()};
}

void to_proto(const StepRecord& from, v1::StepRecord* to) {
  to->set_step(from.step);
  to->set_loss_digest(name_field("loss_digest", from.loss_digest, true));
  to->set_gradient_digest(name_field("gradient_digest", from.gradient_digest, true));
  to->set_metrics(from.metrics);
  to->set_replayable(from.replayable);
}

StepRecord from_proto(const v1::StepRecord& from) {
  return {within("step", from.step(), 1),
          name_field("loss_digest", from.loss_digest(), true),
          name_field("gradient_digest", from.gradient_digest(), true),
          from.metrics(),
          from.replayable()};
}

void to_proto(const RowStep& from, v1::CommitRowsRequest* to) {
  for (const PromptRecord& row : from.fresh) {
    v1::PromptRecord* added = to->add_fresh();
    added->set_ordinal(row.ordinal);
    added->set_epoch(row.epoch);
    added->set_row(row.row);
    added->set_samples(row.samples);
  }
  v1::BatchRecord* batch = to->mutable_batch();
  batch->set_step(from.batch.step);
  list_to(from.batch.samples, batch->mutable_samples());
  batch->set_manifest(from.batch.manifest);
  to_proto(from.record, to->mutable_record());
}

RowStep from_proto(const v1::CommitRowsRequest& from) {
  RowStep to;
  check_count("fresh", from.fresh_size());
  for (int i = 0; i < from.fresh_size(); ++i)
    to.fresh.push_back(
        in_field(str("fresh[", i, "]"), [&] { return prompt_record(from.fresh(i)); }));
  to.batch.step = within("batch.step", from.batch().step(), 1);
  to.batch.samples = list_from<SampleId>("batch.samples", from.batch().samples());
  to.batch.manifest = from.batch().manifest();
  to.record = in_field("record", [&] { return from_proto(from.record()); });
  return to;
}

void to_proto(const ScoredSample& from, v1::ScoredSample* to) {
  to_proto(from.rollout, to->mutable_rollout());
  to_proto(from.score, to->mutable_score());
}

ScoredSample from_proto(const v1::ScoredSample& from) {
  return {in_field("rollout", [&] { return from_proto(from.rollout()); }),
          in_field("score", [&] { return from_proto(from.score()); })};
}

Slice from_proto(const v1::WaitBatchRequest& from) {
  const int64_t world = within("world", from.world(), 1, kMaxItems);
  return {static_cast<int32_t>(within("rank", from.rank(), 0, world - 1)),
          static_cast<int32_t>(world)};
}

std::vector<v1::BatchPart> to_parts(const StepBatch& batch, int64_t part_bytes) {
  auto parts =
      cut<v1::BatchPart>(batch.samples.size(), part_bytes, [&](size_t i, v1::BatchPart* part) {
        v1::ScoredSample* added = part->add_samples();
        to_proto(batch.samples[i], added);
        return static_cast<int64_t>(added->ByteSizeLong());
      });
  v1::BatchHeader* header = parts.front().mutable_header();
  header->set_step(batch.step);
  header->set_total_samples(batch.total_samples);
  header->set_slice_samples(static_cast<int64_t>(batch.samples.size()));
  header->set_replayed(batch.replayed);
  to_proto(batch.metrics, header->mutable_metrics());
  to_proto(batch.circumstances, header->mutable_circumstances());
  return parts;
}

StepBatch from_parts(const std::vector<v1::BatchPart>& parts) {
  if (parts.empty() || !parts.front().has_header()) refuse("header", "is missing");
  const v1::BatchHeader& header = parts.front().header();
  StepBatch to;
  to.step = within("step", header.step(), 1);
  to.total_samples = within("total_samples", header.total_samples(), 0, kMaxItems);
  to.replayed = header.replayed();
  to.metrics = from_proto(header.metrics());
  to.circumstances = from_proto(header.circumstances());
  to.samples = join_samples(parts);
  if (static_cast<int64_t>(to.samples.size()) != header.slice_samples())
    refuse("samples", to.samples.size(), " came, ", header.slice_samples(), " were announced");
  if (static_cast<int64_t>(to.samples.size()) > to.total_samples)
    refuse("samples", to.samples.size(), " in a slice of ", to.total_samples);
  return to;
}

std::vector<v1::EvaluationPart> to_parts(const EvaluationBatch& batch, int64_t part_bytes) {
  if (batch.prompts.size() != batch.samples.size())
    refuse("prompts", batch.prompts.size(), " for ", batch.samples.size(), " samples");
  auto parts = cut<v1::EvaluationPart>(
      batch.samples.size(), part_bytes, [&](size_t i, v1::EvaluationPart* part) {
        v1::ScoredSample* added = part->add_samples();
        to_proto(batch.samples[i], added);
        part->add_prompts(batch.prompts[i]);
        return static_cast<int64_t>(added->ByteSizeLong() + batch.prompts[i].size());
      });
  parts.front().set_total_samples(static_cast<int64_t>(batch.samples.size()));
  return parts;
}

EvaluationBatch from_parts(const std::vector<v1::EvaluationPart>& parts) {
  if (parts.empty() || !parts.front().has_total_samples()) refuse("total_samples", "is missing");
  EvaluationBatch to;
  to.samples = join_samples(parts);
  for (const v1::EvaluationPart& part : parts)
    to.prompts.insert(to.prompts.end(), part.prompts().begin(), part.prompts().end());
  if (to.prompts.size() != to.samples.size())
    refuse("prompts", to.prompts.size(), " for ", to.samples.size(), " samples");
  if (static_cast<int64_t>(to.samples.size()) != parts.front().total_samples())
    refuse(
        "samples", to.samples.size(), " came, ", parts.front().total_samples(), " were announced");
  return to;
}

}  // namespace praetor::rpc
