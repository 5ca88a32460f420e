#include "actors/rpc/convert.h"
#include "actors/rpc/fields.h"

namespace praetor::rpc {

namespace {

void to_proto(const GenerateItem& from, v1::GenerateItem* to) {
  rpc::to_proto(from.id, to->mutable_id());
  tokens_to("prompt", from.prompt, to->mutable_prompt());
  if (from.voice != Voice()) rpc::to_proto(from.voice, to->mutable_voice());
  to->set_greedy(from.greedy);
}

void to_proto(const ScoreItem& from, v1::ScoreItem* to) {
  rpc::to_proto(from.id, to->mutable_id());
  rpc::to_proto(from.sample, to->mutable_sample());
  for (const Rival& rival : from.rivals) {
    v1::Rival* added = to->add_rivals();
    added->set_sample(rival.sample);
    added->set_response(rival.response);
  }
}

GenerateItem generate_item(const v1::GenerateItem& from) {
  return {in_field("id", [&] { return from_proto(from.id()); }),
          tokens_from("prompt", from.prompt()),
          from.has_voice() ? in_field("voice", [&] { return from_proto(from.voice()); }) : Voice(),
          from.greedy()};
}

ScoreItem score_item(const v1::ScoreItem& from) {
  ScoreItem to{in_field("id", [&] { return from_proto(from.id()); }),
               in_field("sample", [&] { return from_proto(from.sample()); }),
               {}};
  check_count("rivals", from.rivals_size());
  for (const v1::Rival& rival : from.rivals()) {
    to.rivals.push_back(
        {static_cast<int32_t>(within("rivals.sample", rival.sample(), 0)), rival.response()});
  }
  return to;
}

}  // namespace

void to_proto(const Admission& from, v1::JoinResponse* to) {
  to->set_run_id(name_field("run_id", from.run_id, true));
  to->set_run_dir(from.run_dir);
  to->set_job(from.job);
  to->set_heartbeat_ms(from.heartbeat.count());
}

Admission from_proto(const v1::JoinResponse& from) {
  within("heartbeat_ms", from.heartbeat_ms(), 1);
  return {name_field("run_id", from.run_id(), true),
          from.run_dir(),
          from.job(),
          milliseconds("heartbeat_ms", from.heartbeat_ms())};
}

void to_proto(const Heartbeat& from, v1::HeartbeatRequest* to) {
  to->set_name(name_field("name", from.name));
  to->set_incarnation(from.incarnation);
  to->set_busy(from.busy);
  to->set_progress(from.progress);
  to->set_weight_step(from.weight_step);
}

Heartbeat from_proto(const v1::HeartbeatRequest& from) {
  return {name_field("name", from.name()),
          from.incarnation(),
          from.busy(),
          within("progress", from.progress(), 0),
          within("weight_step", from.weight_step(), -1)};
}

void to_proto(const LeaseRequest& from, v1::LeaseRequest* to) {
  to->set_worker(name_field("worker", from.worker));
  to->set_kind(to_proto(from.kind));
  to->set_max_items(from.max_items);
  to->set_number(from.number);
  to->set_wait_ms(from.wait.count());
}

LeaseRequest from_proto(const v1::LeaseRequest& from) {
  return {name_field("worker", from.worker()),
          from_proto(from.kind()),
          within("max_items", from.max_items(), 1, kMaxItems),
          within("number", from.number(), 0),
          milliseconds("wait_ms", from.wait_ms())};
}

void to_proto(const Lease& from, v1::Lease* to) {
  to->set_id(from.id);
  to->set_kind(to_proto(from.kind));
  to->set_purpose(to_proto(from.purpose));
  to->set_stage(from.stage);
  in_field("weights", [&] { to_proto(from.weights, to->mutable_weights()); });
  to->set_job_seed(from.job_seed);
  to->set_time_ms(from.time.count());
  in_field("params", [&] { to_proto(from.params, to->mutable_params()); });
  for (const GenerateItem& item : from.generate) to_proto(item, to->add_generate());
  for (const ScoreItem& item : from.score) to_proto(item, to->add_score());
}

Lease from_proto(const v1::Lease& from) {
  Lease to;
  to.id = within("id", from.id(), 1);
  to.kind = from_proto(from.kind());
  to.purpose = from_proto(from.purpose());
  to.stage = from.stage();
  to.weights = in_field("weights", [&] { return from_proto(from.weights()); });
  to.job_seed = from.job_seed();
  to.time = milliseconds("time_ms", from.time_ms());
  if (from.has_params()) to.params = in_field("params", [&] { return from_proto(from.params()); });
  check_count("generate", from.generate_size());
  check_count("score", from.score_size());
  if (to.kind == LeaseKind::kGenerate && from.score_size() > 0)
    refuse("score", "items of the wrong kind in a lease to generate");
  if (to.kind == LeaseKind::kScore && from.generate_size() > 0)
    refuse("generate", "items of the wrong kind in a lease to score");
  for (int i = 0; i < from.generate_size(); ++i)
    to.generate.push_back(
        in_field(str("generate[", i, "]"), [&] { return generate_item(from.generate(i)); }));
  for (int i = 0; i < from.score_size(); ++i)
    to.score.push_back(in_field(str("score[", i, "]"), [&] { return score_item(from.score(i)); }));
  return to;
}

std::vector<std::optional<Lease>> leases_from(const v1::LeaseSomeResponse& from, size_t requests) {
  std::vector<std::optional<Lease>> to(requests);
  for (const auto& one : from.leases()) {
    const auto index = static_cast<size_t>(within("request", one.request(), 0));
    if (index >= requests) refuse("request", index, " is answered, of ", requests);
    to[index] = in_field("lease", [&] { return from_proto(one.lease()); });
  }
  return to;
}

void to_proto(const RolloutResult& from, v1::RolloutResult* to) {
  to_proto(from.id, to->mutable_id());
  in_field("generation", [&] { to_proto(from.generation, to->mutable_generation()); });
}

void to_proto(const ScoreResult& from, v1::ScoreResult* to) {
  to_proto(from.id, to->mutable_id());
  in_field("score", [&] { to_proto(from.score, to->mutable_score()); });
}

void to_proto(const Completion& from, v1::CompleteRequest* to) {
  to->set_worker(name_field("worker", from.worker));
  to->set_lease(from.lease);
  to->set_purpose(to_proto(from.purpose));
  in_field("weights", [&] { to_proto(from.weights, to->mutable_weights()); });
  list_to(from.rollouts, to->mutable_rollouts());
  list_to(from.scores, to->mutable_scores());
}

Completion from_proto(const v1::CompleteRequest& from) {
  Completion to;
  to.worker = name_field("worker", from.worker());
  to.lease = within("lease", from.lease(), 1);
  to.purpose = from_proto(from.purpose());
  to.weights = in_field("weights", [&] { return from_proto(from.weights()); });
  check_count("rollouts", from.rollouts_size());
  check_count("scores", from.scores_size());
  to.rollouts.reserve(static_cast<size_t>(from.rollouts_size()));
  for (int i = 0; i < from.rollouts_size(); ++i) {
    const v1::RolloutResult& item = from.rollouts(i);
    to.rollouts.push_back(in_field(str("rollouts[", i, "]"), [&] {
      return RolloutResult{in_field("id", [&] { return from_proto(item.id()); }),
                           in_field("generation", [&] { return from_proto(item.generation()); })};
    }));
  }
  to.scores.reserve(static_cast<size_t>(from.scores_size()));
  for (int i = 0; i < from.scores_size(); ++i) {
    const v1::ScoreResult& item = from.scores(i);
    to.scores.push_back(in_field(str("scores[", i, "]"), [&] {
      return ScoreResult{in_field("id", [&] { return from_proto(item.id()); }),
                         in_field("score", [&] { return from_proto(item.score()); })};
    }));
  }
  return to;
}

}  // namespace praetor::rpc
