#include "actors/rpc/convert.h"

#include <google/protobuf/util/message_differencer.h>

#include <limits>
#include <set>

#include "actors/rpc/fields.h"
#include "tests/actors/rpc/examples.h"
#include "tests/support/catch.h"

using namespace praetor;
using namespace praetor::testing;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

namespace {

/// Names of fields that are at their default everywhere in the message.
void find_unset(const Message& message, std::set<std::string>& set, std::set<std::string>& all) {
  const auto* reflection = message.GetReflection();
  const auto* descriptor = message.GetDescriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    all.insert(field->full_name());
    const bool present = field->is_repeated() ? reflection->FieldSize(message, field) > 0
                                              : reflection->HasField(message, field);
    if (!present) continue;
    set.insert(field->full_name());
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      find_unset(reflection->GetMessage(message, field), set, all);
      continue;
    }
    for (int j = 0; j < reflection->FieldSize(message, field); ++j)
      find_unset(reflection->GetRepeatedMessage(message, field, j), set, all);
  }
}

/// Struct to message to bytes to message to struct to message: nothing is lost, and no field of the
/// message is one that the conversion forgot.
template <typename To, typename Struct>
void check_round_trip(const Struct& value, const std::set<std::string>& left_out = {}) {
  To first;
  rpc::to_proto(value, &first);
  To second;
  REQUIRE(second.ParseFromString(first.SerializeAsString()));
  To third;
  rpc::to_proto(rpc::from_proto(second), &third);
  CHECK(google::protobuf::util::MessageDifferencer::Equals(first, third));
  std::set<std::string> set;
  std::set<std::string> all;
  find_unset(first, set, all);
  for (const std::string& field : all) {
    INFO(field);
    CHECK((set.count(field) > 0 || left_out.count(field) > 0));
  }
}

/// What a refused message says.
template <typename Proto>
std::string refusal(const Proto& message) {
  try {
    rpc::from_proto(message);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "accepted";
}

template <typename Proto, typename Struct>
Proto proto(const Struct& value) {
  Proto out;
  rpc::to_proto(value, &out);
  return out;
}

v1::CompleteRequest completion() {
  return proto<v1::CompleteRequest>(example_completion());
}

}  // namespace

TEST_CASE("every struct comes back from the wire as it was", "[actors][rpc][cpu]") {
  check_round_trip<v1::SampleId>(SampleId{3, 1});
  check_round_trip<v1::WeightVersion>(example_version());
  check_round_trip<v1::Publication>(example_publication());
  check_round_trip<v1::SamplingParams>(example_params());
  check_round_trip<v1::Generation>(example_generation());
  check_round_trip<v1::Score>(example_score());
  check_round_trip<v1::Sample>(Sample{"p", "r", R"({"a": 1})", 3, true});
  check_round_trip<v1::MemberInfo>(example_member());
  check_round_trip<v1::JoinResponse>(
      Admission{"run", "/runs/\xff", "job", std::chrono::milliseconds(7)});
  check_round_trip<v1::HeartbeatRequest>(Heartbeat{"rollout-0", 9, true, 100, 40});
  check_round_trip<v1::LeaseRequest>(
      LeaseRequest{"rollout-0", LeaseKind::kScore, 16, 3, std::chrono::milliseconds(20'000)});
  check_round_trip<v1::Lease>(example_lease(LeaseKind::kGenerate), {"praetor.v1.Lease.score"});
  check_round_trip<v1::Lease>(example_lease(LeaseKind::kScore), {"praetor.v1.Lease.generate"});
  check_round_trip<v1::CompleteRequest>(example_completion());
  check_round_trip<v1::StageProgressResponse>(StageProgress{true, true, "r\xff", 3, 17, 2});
  check_round_trip<v1::CheckpointRecord>(CheckpointRecord{2, 40, "p\xff", true});
  check_round_trip<v1::CommitRowsRequest>(example_rows(), {"praetor.v1.CommitRowsRequest.stage"});
  check_round_trip<v1::StepRecord>(example_step());
  check_round_trip<v1::ScoredSample>(example_scored());
  check_round_trip<v1::StatusResponse>(example_status());
  check_round_trip<v1::OpenBroadcastRequest>(OpenBroadcast{"learner-0", 3});
  check_round_trip<v1::OpenBroadcastResponse>(example_opened());
  check_round_trip<v1::StartBroadcastRequest>(example_call());
  check_round_trip<v1::BroadcastCall>(example_call());
  check_round_trip<v1::AwaitBroadcastRequest>(example_await());
}

TEST_CASE("a broadcast that cannot be is refused by the field", "[actors][rpc][cpu]") {
  auto call = proto<v1::BroadcastCall>(example_call());
  call.set_rank(2);
  CHECK(refusal(call) == "rank: 2 is outside [1, 1]");
  call.clear_members();
  CHECK(refusal(call) == "members: 0 are too few for a broadcast");
  auto start = proto<v1::StartBroadcastRequest>(example_call());
  start.set_bucket_bytes(0);
  CHECK(refusal(start) == "bucket_bytes: 0 is below 1");
  start.clear_files();
  start.set_bucket_bytes(1);
  CHECK(refusal(start) == "files: are none");
  start.clear_id();
  CHECK(refusal(start) == "id: 0 bytes, 1 to 1024");
  start.mutable_number()->set_epoch(-1);
  CHECK(refusal(start) == "number.epoch: -1 is below 0");
  auto await = proto<v1::AwaitBroadcastRequest>(example_await());
  await.set_outcome(v1::BROADCAST_OUTCOME_UNSPECIFIED);
  CHECK(refusal(await) == "outcome: 0 is not known");
  await.clear_worker();
  CHECK(refusal(await) == "worker: is empty");
}

TEST_CASE("enumerators keep their meaning", "[actors][rpc][cpu]") {
  for (int i = 0; i < 8; ++i)
    CHECK(rpc::from_proto(rpc::to_proto(static_cast<Purpose>(i))) == static_cast<Purpose>(i));
  for (int i = 0; i < 3; ++i) {
    CHECK(rpc::from_proto(rpc::to_proto(static_cast<Role>(i))) == static_cast<Role>(i));
    CHECK(rpc::from_proto(rpc::to_proto(static_cast<Orders>(i))) == static_cast<Orders>(i));
    CHECK(rpc::from_proto(rpc::to_proto(static_cast<FinishReason>(i))) ==
          static_cast<FinishReason>(i));
    CHECK(rpc::from_proto(rpc::to_proto(static_cast<StepOutcome>(i))) ==
          static_cast<StepOutcome>(i));
  }
  CHECK_THROWS_AS(rpc::from_proto(v1::ORDERS_UNSPECIFIED), InvalidArgument);
  CHECK_THROWS_AS(rpc::to_proto(static_cast<Role>(77)), InternalError);
}

TEST_CASE("tokens, log-probabilities and absent scores are bit for bit", "[actors][rpc][cpu]") {
  Generation generation = example_generation(4);
  generation.behavior_logprobs = {-0.0f,
                                  -std::numeric_limits<float>::infinity(),
                                  std::numeric_limits<float>::denorm_min(),
                                  -1e-38f};
  const Generation back = rpc::from_proto(proto<v1::Generation>(generation));
  CHECK(back.tokens == generation.tokens);
  CHECK(back.behavior_logprobs == generation.behavior_logprobs);
  CHECK(std::signbit(back.behavior_logprobs[0]));
  CHECK(back.text == generation.text);
  Score none;
  CHECK_FALSE(rpc::from_proto(proto<v1::Score>(none)).score.has_value());
  Score zero;
  zero.score = 0.0;
  CHECK(rpc::from_proto(proto<v1::Score>(zero)).score == 0.0);
  const RolloutRecord record = example_scored().rollout;
  CHECK((rpc::from_proto(proto<v1::RolloutRecord>(record)) == record));
}

TEST_CASE("a batch is cut into parts and put together again", "[actors][rpc][cpu]") {
  const StepBatch batch = example_batch(9);
  const auto parts = rpc::to_parts(batch, 200);
  CHECK(parts.size() > 2);
  const StepBatch back = rpc::from_parts(parts);
  CHECK(back.step == 40);
  CHECK(back.total_samples == 18);
  CHECK(back.metrics == batch.metrics);
  CHECK(back.replayed);
  CHECK(back.circumstances == batch.circumstances);
  REQUIRE(back.samples.size() == 9);
  for (size_t i = 0; i < 9; ++i) CHECK((back.samples[i].rollout == batch.samples[i].rollout));

  auto lost = parts;
  lost.erase(lost.begin() + 1);
  CHECK_THROWS_AS(rpc::from_parts(lost), InvalidArgument);
  lost = parts;
  lost.erase(lost.begin());
  CHECK_THROWS_AS(rpc::from_parts(lost), InvalidArgument);

  const StepBatch empty = rpc::from_parts(rpc::to_parts(example_batch(0), 200));
  CHECK(empty.samples.empty());
  const EvaluationBatch held_out = example_evaluation(5);
  const auto held_parts = rpc::to_parts(held_out, 200);
  CHECK(held_parts.size() > 1);
  CHECK(rpc::from_parts(held_parts).prompts == held_out.prompts);
  CHECK(rpc::from_parts(rpc::to_parts(EvaluationBatch(), 200)).samples.empty());
}

TEST_CASE("a malformed message is refused with the field's name", "[actors][rpc][cpu]") {
  v1::CompleteRequest bad = completion();
  bad.mutable_rollouts(0)->mutable_generation()->add_model_logprobs(0);
  CHECK(refusal(bad) == "rollouts[0].generation.model_logprobs: 4 values for 3 tokens");
  bad = completion();
  bad.mutable_rollouts(1)->mutable_generation()->clear_behavior_logprobs();
  CHECK(refusal(bad) == "rollouts[1].generation.behavior_logprobs: 0 values for 1 tokens");
  bad = completion();
  bad.mutable_rollouts(1)->mutable_generation()->mutable_kept_masses()->Clear();
  CHECK(refusal(bad) == "accepted");
  bad = completion();
  bad.mutable_rollouts(0)->mutable_generation()->set_tokens(1, 0x80000000u);
  CHECK(refusal(bad) ==
        "rollouts[0].generation.tokens: token 1 is 2147483648, which is not below 2^31");
  bad = completion();
  bad.mutable_scores(0)->mutable_score()->set_score(std::nan(""));
  CHECK(refusal(bad) == "scores[0].score.score: nan is not a finite number");
  bad = completion();
  bad.mutable_scores(0)->mutable_score()->mutable_parts(0)->set_score(
      std::numeric_limits<double>::infinity());
  CHECK(refusal(bad) == "scores[0].score.parts[0].score: inf is not a finite number");
  bad = completion();
  bad.set_purpose(static_cast<v1::Purpose>(99));
  CHECK(refusal(bad) == "purpose: 99 is not known");
  bad.clear_purpose();
  CHECK(refusal(bad) == "purpose: 0 is not known");
  bad = completion();
  bad.set_lease(0);
  CHECK(refusal(bad) == "lease: 0 is below 1");
  bad = completion();
  bad.mutable_scores(0)->mutable_id()->set_ordinal(-1);
  CHECK(refusal(bad) == "scores[0].id.ordinal: -1 is outside [0, 281474976710655]");
  bad = completion();
  bad.clear_worker();
  CHECK(refusal(bad) == "worker: is empty");
  bad.set_worker(std::string(300, 'a'));
  CHECK(refusal(bad) == "worker: 300 bytes, 256 are the most");

  auto lease = proto<v1::LeaseRequest>(LeaseRequest{"w"});
  lease.set_max_items(int64_t{1} << 40);
  CHECK(refusal(lease) == "max_items: 1099511627776 is outside [1, 1048576]");
  lease.set_max_items(0);
  CHECK(refusal(lease) == "max_items: 0 is outside [1, 1048576]");
  lease.set_max_items(1);
  lease.set_wait_ms(-5);
  CHECK_THAT(refusal(lease), Catch::StartsWith("wait_ms: -5 is outside"));

  auto params = proto<v1::SamplingParams>(example_params());
  params.set_top_p(1.7);
  CHECK(refusal(params) == "top_p: 1.7 is outside (0, 1]");
  params.set_top_p(std::nan(""));
  CHECK(refusal(params) == "top_p: nan is outside (0, 1]");
  params = proto<v1::SamplingParams>(example_params());
  params.set_top_logprobs(21);
  CHECK(refusal(params) == "top_logprobs: 21 is outside [0, 20]");
  params.set_top_logprobs(0);
  params.add_processors()->set_kind("regex");
  CHECK(refusal(params) == "processors: the options of one are empty");
  params.mutable_processors(2)->set_options("{}");
  params.mutable_processors(2)->clear_kind();
  CHECK(refusal(params) == "processors: is empty");

  auto generation = proto<v1::Generation>(example_generation());
  generation.add_top_tokens(7);
  CHECK(refusal(generation) == "top_logprobs: 6 values for 7 tokens");
  generation.add_top_logprobs(-1);
  CHECK(refusal(generation) == "top_tokens: 7 are no whole number for each of 3 tokens");

  v1::WaitBatchRequest slice;
  slice.set_world(2);
  slice.set_rank(2);
  CHECK(refusal(slice) == "rank: 2 is outside [0, 1]");
  slice.set_world(0);
  CHECK_THAT(refusal(slice), Catch::StartsWith("world: 0 is outside"));

  auto record = proto<v1::RolloutRecord>(example_scored().rollout);
  record.set_prompt_length(9);
  CHECK(refusal(record) == "prompt_length: 9 is outside [0, 5]");

  auto mixed = proto<v1::Lease>(example_lease(LeaseKind::kGenerate));
  mixed.add_score();
  CHECK(refusal(mixed) == "score: items of the wrong kind in a lease to generate");
}

TEST_CASE("what cannot be put on the wire is refused before it is sent", "[actors][rpc][cpu]") {
  Completion bad = example_completion();
  bad.rollouts[0].generation.tokens[0] = -1;
  v1::CompleteRequest message;
  CHECK_THROWS_AS(rpc::to_proto(bad, &message), InvalidArgument);
  MemberInfo member = example_member();
  member.name = "\xff";
  v1::MemberInfo member_message;
  CHECK_THROWS_WITH(rpc::to_proto(member, &member_message), "name: is not UTF-8");
}
