#include "actors/rpc/convert.h"
#include "actors/rpc/fields.h"

namespace praetor::rpc {

namespace {

/// More than a group's name has.
constexpr size_t kMaxId = 1024;
/// More than a publication has networks.
constexpr int64_t kMaxFiles = 16;

v1::BroadcastOutcome outcome_to(BroadcastOutcome outcome) {
  switch (outcome) {
    case BroadcastOutcome::kNone:
      return v1::BROADCAST_OUTCOME_NONE;
    case BroadcastOutcome::kReceived:
      return v1::BROADCAST_OUTCOME_RECEIVED;
    case BroadcastOutcome::kFailed:
      break;
  }
  return v1::BROADCAST_OUTCOME_FAILED;
}

BroadcastOutcome outcome_from(v1::BroadcastOutcome outcome) {
  switch (outcome) {
    case v1::BROADCAST_OUTCOME_NONE:
      return BroadcastOutcome::kNone;
    case v1::BROADCAST_OUTCOME_RECEIVED:
      return BroadcastOutcome::kReceived;
    case v1::BROADCAST_OUTCOME_FAILED:
      return BroadcastOutcome::kFailed;
    default:
      refuse("outcome", static_cast<int>(outcome), " is not known");
  }
}

BroadcastNumber number_from(const v1::BroadcastNumber& from) {
  return in_field("number", [&] { return from_proto(from); });
}

const std::string& id_from(const std::string& id) {
  if (id.empty() || id.size() > kMaxId) refuse("id", id.size(), " bytes, 1 to ", kMaxId);
  return id;
}

template <typename Repeated>
std::vector<Publication> files_from(const Repeated& from) {
  if (from.empty()) refuse("files", "are none");
  check_count("files", from.size(), kMaxFiles);
  return list_from<Publication>("files", from);
}

}  // namespace

void to_proto(const BroadcastNumber& from, v1::BroadcastNumber* to) {
  to->set_epoch(from.epoch);
  to->set_number(from.number);
}

BroadcastNumber from_proto(const v1::BroadcastNumber& from) {
  return {within("epoch", from.epoch(), 0), within("number", from.number(), 0)};
}

void to_proto(const OpenBroadcast& from, v1::OpenBroadcastRequest* to) {
  to->set_publisher(name_field("publisher", from.publisher));
  to->set_held(from.held);
}

OpenBroadcast from_proto(const v1::OpenBroadcastRequest& from) {
  return {name_field("publisher", from.publisher()), within("held", from.held(), 0)};
}

void to_proto(const OpenedBroadcast& from, v1::OpenBroadcastResponse* to) {
  to_proto(from.number, to->mutable_number());
  for (const std::string& name : from.members) to->add_members(name_field("members", name));
  to->set_join(from.join);
  for (const std::string& line : from.dropped) to->add_dropped(line);
}

OpenedBroadcast from_proto(const v1::OpenBroadcastResponse& from) {
  check_count("dropped", from.dropped_size());
  return {number_from(from.number()),
          names_from("members", from.members()),
          from.join(),
          {from.dropped().begin(), from.dropped().end()}};
}

void to_proto(const BroadcastCall& from, v1::StartBroadcastRequest* to) {
  to_proto(from.number, to->mutable_number());
  to->set_id(id_from(from.id));
  to->set_bucket_bytes(from.bucket_bytes);
  list_to(from.files, to->mutable_files());
}

BroadcastCall from_proto(const v1::StartBroadcastRequest& from) {
  return {.number = number_from(from.number()),
          .id = id_from(from.id()),
          .bucket_bytes = within("bucket_bytes", from.bucket_bytes(), 1),
          .files = files_from(from.files())};
}

void to_proto(const BroadcastCall& from, v1::BroadcastCall* to) {
  to_proto(from.number, to->mutable_number());
  to->set_id(id_from(from.id));
  to->set_rank(from.rank);
  for (const std::string& name : from.members) to->add_members(name_field("members", name));
  to->set_bucket_bytes(from.bucket_bytes);
  list_to(from.files, to->mutable_files());
}

BroadcastCall from_proto(const v1::BroadcastCall& from) {
  auto members = names_from("members", from.members());
  const auto world = static_cast<int64_t>(members.size());
  if (world < 2) refuse("members", world, " are too few for a broadcast");
  return {.number = number_from(from.number()),
          .id = id_from(from.id()),
          .rank = static_cast<int32_t>(within("rank", from.rank(), 1, world - 1)),
          .members = std::move(members),
          .bucket_bytes = within("bucket_bytes", from.bucket_bytes(), 1),
          .files = files_from(from.files())};
}

void to_proto(const AwaitBroadcast& from, v1::AwaitBroadcastRequest* to) {
  to->set_worker(name_field("worker", from.worker));
  to_proto(from.seen, to->mutable_seen());
  to->set_outcome(outcome_to(from.outcome));
  to->set_why(from.why);
  to->set_wait_ms(from.wait.count());
}

AwaitBroadcast from_proto(const v1::AwaitBroadcastRequest& from) {
  return {.worker = name_field("worker", from.worker()),
          .seen = in_field("seen", [&] { return from_proto(from.seen()); }),
          .outcome = outcome_from(from.outcome()),
          .why = from.why(),
          .wait = milliseconds("wait_ms", from.wait_ms())};
}

}  // namespace praetor::rpc
