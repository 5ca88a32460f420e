#include "actors/rpc/handlers.h"

#include <cstdlib>
#include <filesystem>
#include <random>

#include "core/base/fs.h"
#include "tests/actors/rpc/fake_services.h"
#include "tests/support/catch.h"

using namespace praetor;
using namespace praetor::testing;
using std::chrono::milliseconds;

// The fuzzer's own function, called in a plain loop: what it finds aborts.
#include "tests/fuzz/rpc_fuzz.cpp"  // NOLINT

namespace {

template <typename Message, typename Struct>
std::string bytes_of(const Struct& value) {
  Message message;
  rpc::to_proto(value, &message);
  return message.SerializeAsString();
}

/// A sound message of each kind, by the name of its seed.
std::map<std::string, std::string> sound_messages() {
  std::map<std::string, std::string> out;
  const auto add = [&](size_t kind, const std::string& name, const std::string& bytes) {
    out[name] = std::string(1, static_cast<char>(kind)) + bytes;
  };
  v1::JoinRequest join;
  rpc::to_proto(example_member(), join.mutable_member());
  add(0, "join", join.SerializeAsString());
  add(1, "heartbeat", bytes_of<v1::HeartbeatRequest>(Heartbeat{"rollout-0", 9, true, 100, 40}));
  v1::LeaveRequest leave;
  leave.set_name("rollout-0");
  add(2, "leave", leave.SerializeAsString());
  add(3,
      "lease_request",
      bytes_of<v1::LeaseRequest>(LeaseRequest{"w", LeaseKind::kScore, 16, 3, milliseconds(20)}));
  add(4, "complete", bytes_of<v1::CompleteRequest>(example_completion()));
  v1::RecordCheckpointRequest checkpoint;
  rpc::to_proto(CheckpointRecord{2, 40, "c", true}, checkpoint.mutable_checkpoint());
  add(10, "checkpoint", checkpoint.SerializeAsString());
  add(12, "rows", bytes_of<v1::CommitRowsRequest>(example_rows()));
  v1::OpenStepRequest open;
  open.set_step(3);
  rpc::to_proto(example_publication(), open.mutable_weights());
  add(14, "open_step", open.SerializeAsString());
  v1::WaitBatchRequest wait;
  wait.set_step(3);
  wait.set_rank(1);
  wait.set_world(2);
  wait.set_wait_ms(5);
  add(15, "wait_batch", wait.SerializeAsString());
  v1::CommitStepRequest commit;
  commit.set_learner_manifest("{}");
  rpc::to_proto(example_step(), commit.mutable_record());
  add(16, "commit_step", commit.SerializeAsString());
  v1::ReportDeathRequest death;
  death.set_name("rollout-0");
  death.set_why("signal 9");
  add(20, "death", death.SerializeAsString());
  v1::LeaseResponse lease;
  rpc::to_proto(example_lease(LeaseKind::kGenerate), lease.mutable_lease());
  add(23, "lease_generate", lease.SerializeAsString());
  rpc::to_proto(example_lease(LeaseKind::kScore), (lease.Clear(), lease.mutable_lease()));
  add(23, "lease_score", lease.SerializeAsString());
  add(25, "batch", rpc::to_parts(example_batch(), 1 << 20).at(0).SerializeAsString());
  add(26, "evaluation", rpc::to_parts(example_evaluation(), 1 << 20).at(0).SerializeAsString());
  add(27, "status", bytes_of<v1::StatusResponse>(example_status()));
  v1::NewerWeightsRequest newer;
  newer.set_stage(2);
  newer.set_step(3);
  newer.set_wait_ms(5);
  add(28, "newer_weights", newer.SerializeAsString());
  v1::NewerWeightsResponse found;
  rpc::to_proto(example_publication(), found.mutable_weights());
  add(29, "newer_weights_answer", found.SerializeAsString());
  v1::HeartbeatAllRequest beats;
  for (const char* name : {"rollout-0", "rollout-1"})
    rpc::to_proto(Heartbeat{name, 99, true, 7, 40}, beats.add_beats());
  add(30, "heartbeat_all", beats.SerializeAsString());
  v1::LeaseSomeRequest some;
  for (const char* name : {"w", "v"})
    rpc::to_proto(LeaseRequest{name, LeaseKind::kScore, 16, 3, milliseconds(20)},
                  some.add_requests());
  add(31, "lease_some", some.SerializeAsString());
  v1::CompleteAllRequest all;
  rpc::to_proto(example_completion(), all.add_completions());
  add(32, "complete_all", all.SerializeAsString());
  v1::LeaseSomeResponse given;
  given.add_leases()->set_request(1);
  rpc::to_proto(example_lease(LeaseKind::kScore), given.mutable_leases(0)->mutable_lease());
  add(33, "leases", given.SerializeAsString());
  add(34, "open_broadcast", bytes_of<v1::OpenBroadcastRequest>(OpenBroadcast{"learner-0", 3}));
  add(35, "start_broadcast", bytes_of<v1::StartBroadcastRequest>(example_call()));
  v1::CloseBroadcastRequest close;
  rpc::to_proto(BroadcastNumber{4, 9}, close.mutable_number());
  close.set_failure("rank 1 has gone");
  add(36, "close_broadcast", close.SerializeAsString());
  v1::WatchBroadcastRequest watch;
  rpc::to_proto(BroadcastNumber{4, 9}, watch.mutable_number());
  watch.set_wait_ms(5);
  add(37, "watch_broadcast", watch.SerializeAsString());
  add(38, "await_broadcast", bytes_of<v1::AwaitBroadcastRequest>(example_await()));
  add(39, "opened_broadcast", bytes_of<v1::OpenBroadcastResponse>(example_opened()));
  v1::AwaitBroadcastResponse called;
  rpc::to_proto(example_call(), called.mutable_call());
  add(40, "broadcast_call", called.SerializeAsString());
  return out;
}

int fuzz(const std::string& bytes) {
  return LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

}  // namespace

TEST_CASE("a sound message of each kind is taken", "[actors][rpc][cpu]") {
  FakeServices fake;
  for (const auto& [name, bytes] : sound_messages()) {
    INFO(name);
    CHECK_NOTHROW(rpc::try_bytes({&fake, &fake, &fake, &fake}, bytes[0], bytes.substr(1)));
    CHECK(rpc::try_bytes({&fake, &fake, &fake, &fake}, bytes[0], bytes.substr(1)));
  }
  CHECK_FALSE(rpc::try_bytes({&fake, &fake, &fake, &fake}, 0, "\xff\xff\xff"));
  // A poll of the handlers' own waits no longer than it may.
  v1::LeaseRequest patient;
  rpc::to_proto(LeaseRequest{"w", LeaseKind::kScore, 16, 3, milliseconds(20'000)}, &patient);
  v1::LeaseResponse answer;
  rpc::handle(fake, patient, milliseconds(7), &answer);
  CHECK(fake.request.wait == milliseconds(7));
}

// With PRAETOR_WRITE_SEEDS=1 in the environment the seeds are written anew first: after a message
// has changed.
TEST_CASE("the fuzzer's seeds and thousands of mutations are taken or refused",
          "[actors][rpc][cpu]") {
  const std::filesystem::path folder = "tests/fuzz/corpus/rpc";
  if (std::getenv("PRAETOR_WRITE_SEEDS")) {
    std::filesystem::create_directories(folder);
    for (const auto& [name, bytes] : sound_messages()) write_file_atomic(folder / name, bytes);
  }
  std::vector<std::string> seeds;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    seeds.push_back(read_file(entry.path()));
  REQUIRE(seeds.size() >= sound_messages().size());
  for (const auto& [name, bytes] : sound_messages()) seeds.push_back(bytes);
  std::mt19937 random(1);
  for (const std::string& seed : seeds) {
    CHECK(fuzz(seed) == 0);
    for (int round = 0; round < 300; ++round) {
      std::string bytes = seed;
      for (uint32_t edits = 1 + random() % 4; edits > 0 && !bytes.empty(); --edits) {
        const size_t at = random() % bytes.size();
        switch (random() % 4) {
          case 0:
            bytes[at] = static_cast<char>(random());
            break;
          case 1:
            bytes.erase(at, 1 + random() % 4);
            break;
          case 2:
            bytes.insert(at, 1, static_cast<char>(random()));
            break;
          default:
            bytes += bytes.substr(at);  // fields occur twice
        }
      }
      fuzz(bytes);
    }
  }
}
