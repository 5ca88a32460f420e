#include "actors/rpc/convert.h"
#include "actors/rpc/fields.h"

namespace praetor::rpc {

namespace {

void to_proto(const MemberStatus& from, v1::MemberStatus* to) {
  rpc::to_proto(from.info, to->mutable_info());
  to->set_seconds_since_heartbeat(from.seconds_since_heartbeat);
  to->set_busy(from.busy);
  to->set_lost(from.lost);
  to->set_why(from.why);
  to->set_progress(from.progress);
  to->set_weight_step(from.weight_step);
  to->set_open_leases(from.open_leases);
  to->set_samples(from.samples);
}

MemberStatus member_status(const v1::MemberStatus& from) {
  MemberStatus to;
  to.info = in_field("info", [&] { return from_proto(from.info()); });
  to.seconds_since_heartbeat = finite("seconds_since_heartbeat", from.seconds_since_heartbeat());
  to.busy = from.busy();
  to.lost = from.lost();
  to.why = from.why();
  to.progress = from.progress();
  to.weight_step = within("weight_step", from.weight_step(), -1);
  to.open_leases = within("open_leases", from.open_leases(), 0);
  to.samples = within("samples", from.samples(), 0);
  return to;
}

void to_proto(const Balance& from, v1::Balance* to) {
  to->set_prompts(from.prompts);
  to->set_issued(from.issued);
  to->set_trained(from.trained);
  for (const auto& [reason, count] : from.dropped)
    (*to->mutable_dropped())[name_field("dropped", reason, true)] = count;
  to->set_awaiting_rollout(from.awaiting_rollout);
  to->set_awaiting_score(from.awaiting_score);
  to->set_ready(from.ready);
  to->set_in_batch(from.in_batch);
}

Balance balance(const v1::Balance& from) {
  Balance to;
  to.prompts = within("prompts", from.prompts(), 0);
  to.issued = within("issued", from.issued(), 0);
  to.trained = within("trained", from.trained(), 0);
  for (const auto& [reason, count] : from.dropped())
    to.dropped[name_field("dropped", reason, true)] = within("dropped", count, 0);
  to.awaiting_rollout = within("awaiting_rollout", from.awaiting_rollout(), 0);
  to.awaiting_score = within("awaiting_score", from.awaiting_score(), 0);
  to.ready = within("ready", from.ready(), 0);
  to.in_batch = within("in_batch", from.in_batch(), 0);
  return to;
}

}  // namespace

void to_proto(const RunStatus& from, v1::StatusResponse* to) {
  to->set_run_id(name_field("run_id", from.run_id, true));
  to->set_job(from.job);
  to->set_stage(from.stage);
  to->set_stage_name(from.stage_name);
  to->set_step(from.step);
  to->set_total_steps(from.total_steps);
  to_proto(from.weights, to->mutable_weights());
  to->set_to_generate(from.to_generate);
  to->set_generating(from.generating);
  to->set_to_score(from.to_score);
  to->set_scoring(from.scoring);
  to->set_ready(from.ready);
  to->set_leases_reissued(from.leases_reissued);
  to->set_restarts(from.restarts);
  for (const std::string& prompt : from.set_aside) to->add_set_aside(prompt);
  for (const MemberStatus& member : from.members) to_proto(member, to->add_members());
  for (const auto& [stage, account] : from.balances)
    to_proto(account, &(*to->mutable_balances())[stage]);
  to->set_over(from.over);
  if (!from.broadcast) return;
  v1::BroadcastStatus* broadcast = to->mutable_broadcast();
  broadcast->set_epoch(from.broadcast->epoch);
  broadcast->set_number(from.broadcast->number);
  for (const std::string& name : from.broadcast->members)
    broadcast->add_members(name_field("members", name));
  for (const std::string& name : from.broadcast->waiting)
    broadcast->add_waiting(name_field("waiting", name));
  broadcast->set_change(from.broadcast->change);
}

RunStatus from_proto(const v1::StatusResponse& from) {
  RunStatus to;
  to.run_id = name_field("run_id", from.run_id(), true);
  to.job = from.job();
  to.stage = static_cast<int32_t>(within("stage", from.stage(), -1));
  to.stage_name = from.stage_name();
  to.step = within("step", from.step(), 0);
  to.total_steps = within("total_steps", from.total_steps(), 0);
  to.weights = in_field("weights", [&] { return from_proto(from.weights()); });
  to.to_generate = within("to_generate", from.to_generate(), 0);
  to.generating = within("generating", from.generating(), 0);
  to.to_score = within("to_score", from.to_score(), 0);
  to.scoring = within("scoring", from.scoring(), 0);
  to.ready = within("ready", from.ready(), 0);
  to.leases_reissued = within("leases_reissued", from.leases_reissued(), 0);
  to.restarts = within("restarts", from.restarts(), 0);
  check_count("set_aside", from.set_aside_size());
  to.set_aside.assign(from.set_aside().begin(), from.set_aside().end());
  check_count("members", from.members_size());
  for (int i = 0; i < from.members_size(); ++i)
    to.members.push_back(
        in_field(str("members[", i, "]"), [&] { return member_status(from.members(i)); }));
  for (const auto& [stage, account] : from.balances())
    to.balances[stage] =
        in_field(str("balances[", stage, "]"), [&, a = &account] { return balance(*a); });
  to.over = from.over();
  if (from.has_broadcast()) {
    to.broadcast = in_field("broadcast", [&] {
      const v1::BroadcastStatus& given = from.broadcast();
      return BroadcastStatus{.epoch = within("epoch", given.epoch(), 0),
                             .number = within("number", given.number(), 0),
                             .members = names_from("members", given.members()),
                             .waiting = names_from("waiting", given.waiting()),
                             .change = given.change()};
    });
  }
  return to;
}

}  // namespace praetor::rpc
