#include "actors/rpc/server.h"

#include <grpcpp/create_channel.h>

#include <fstream>
#include <sstream>
#include <thread>

#include "actors/rpc/broadcast_client.h"
#include "actors/rpc/status.h"
#include "core/base/deadline.h"
#include "core/base/log.h"
#include "praetor/v1/worker.grpc.pb.h"
#include "tests/actors/rpc/loopback.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

using namespace praetor;
using namespace praetor::testing;
using std::chrono::milliseconds;

namespace {

/// A call made by hand: with what metadata one likes.
grpc::Status leave_by_hand(const Loopback& loop,
                           const std::vector<std::pair<std::string, std::string>>& metadata,
                           const std::string& name = "rollout-0") {
  const auto stub = v1::Worker::NewStub(
      grpc::CreateChannel(loop.server->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  for (const auto& [key, value] : metadata) context.AddMetadata(key, value);
  v1::LeaveRequest request;
  request.set_name(name);
  v1::LeaveResponse answer;
  return stub->Leave(&context, request, &answer);
}

int count(const std::string& text, const std::string& what) {
  int found = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("a worker's calls arrive whole and are answered whole", "[actors][rpc][cpu]") {
  Loopback loop;
  WorkerClient worker(loop.client());

  const Admission admission = worker.join(example_member());
  CHECK(loop.fake.member.name == "rollout-0");
  CHECK((loop.fake.member.serves == example_member().serves));
  CHECK(loop.fake.member.incarnation == 99);
  CHECK(admission.run_dir == "/runs/\xff");
  CHECK(admission.job == "job: 1\n");
  CHECK(admission.heartbeat == milliseconds(1500));

  CHECK(worker.heartbeat({"rollout-0", 99, true, 7, 40}) == Orders::kRegister);
  CHECK(loop.fake.beat.progress == 7);
  CHECK(loop.fake.beat.weight_step == 40);

  loop.fake.offer(example_lease(LeaseKind::kGenerate));
  const auto lease = worker.lease({"rollout-0", LeaseKind::kGenerate, 8, 3, milliseconds(5000)});
  REQUIRE(lease);
  CHECK(lease->id == 7);
  CHECK(lease->job_seed == 0xfedcba9876543210u);
  CHECK(lease->weights.version.same_weights(example_version()));
  CHECK(lease->params.stop_strings == example_params().stop_strings);
  REQUIRE(lease->generate.size() == 2);
  CHECK(lease->generate[0].prompt == std::vector<int64_t>{1, 2, 3});
  CHECK(loop.fake.request.max_items == 8);
  CHECK(loop.fake.request.number == 3);

  CHECK_FALSE(worker.lease({"rollout-0", LeaseKind::kScore, 8, 4, milliseconds(10)}));

  worker.complete(example_completion());
  REQUIRE(loop.fake.completions.size() == 1);
  CHECK(loop.fake.completions[0].rollouts.size() == 2);
  CHECK(loop.fake.completions[0].rollouts[0].generation.tokens == std::vector<int64_t>{5, 6, 7});
  CHECK(loop.fake.completions[0].scores[0].score.score == -1.5);

  const auto newer = worker.newer_weights({.stage = 2, .step = 39, .wait = milliseconds(10)});
  REQUIRE(newer);
  CHECK(newer->version.same_weights(example_version()));
  CHECK(newer->file == "/run/w.safetensors");
  CHECK(loop.fake.newer.stage == 2);
  CHECK(loop.fake.newer.step == 39);
  loop.fake.batch_ready = false;
  CHECK_FALSE(worker.newer_weights({.stage = 2, .step = 40}));

  CHECK((worker.heartbeat_all({{"rollout-0", 99, true, 7, 40}, {"rollout-1", 3, false, 8, 41}}) ==
         std::vector<Orders>{Orders::kRegister, Orders::kRegister}));
  CHECK(loop.fake.beat.weight_step == 41);

  loop.fake.offer(example_lease(LeaseKind::kScore));
  const auto some = worker.lease_some({{"reward-0", LeaseKind::kScore, 8, 3, milliseconds(0)},
                                       {"reward-1", LeaseKind::kScore, 9, 4, milliseconds(0)}},
                                      milliseconds(5000));
  REQUIRE(some.size() == 2);
  REQUIRE(some[0]);
  CHECK(some[0]->score.size() == example_lease(LeaseKind::kScore).score.size());
  CHECK_FALSE(some[1]);
  CHECK(loop.fake.request.worker == "reward-1");
  CHECK(loop.fake.request.max_items == 9);
  CHECK_THROWS_WITH(worker.lease_some({{"a", LeaseKind::kScore, 8, 3, milliseconds(0)},
                                       {"a", LeaseKind::kGenerate, 8, 3, milliseconds(0)}},
                                      milliseconds(0)),
                    Catch::Contains("requests: are of several kinds"));

  worker.complete_all({example_completion(), example_completion()});
  REQUIRE(loop.fake.completions.size() == 3);
  CHECK(loop.fake.completions[2].rollouts[0].generation.tokens == std::vector<int64_t>{5, 6, 7});

  worker.leave("rollout-0");
  CHECK(loop.fake.calls().back() == "leave");
}

TEST_CASE("calls about broadcasts arrive whole and are answered whole", "[actors][rpc][cpu]") {
  Loopback loop;
  BroadcastClient client(loop.client());
  const OpenedBroadcast opened = client.open_broadcast({"learner-0", 3});
  CHECK(opened.number == BroadcastNumber{4, 9});
  CHECK(opened.members == example_opened().members);
  CHECK(opened.dropped == example_opened().dropped);
  CHECK(loop.fake.text == "learner-0");
  client.start_broadcast(example_call());
  CHECK(loop.fake.call.id == example_call().id);
  CHECK(loop.fake.call.files.at(0).version.same_weights(example_version()));
  CHECK(client.watch_broadcast({4, 9}, milliseconds(10)) == "rollout-1: signal 9 \xff");
  client.close_broadcast({4, 11}, "no GPU");
  CHECK((loop.fake.text == "no GPU" && loop.fake.number == 11));
  const auto call = client.await_broadcast(example_await());
  REQUIRE(call);
  CHECK(call->rank == 1);
  CHECK(call->files.at(0).companions.size() == 1);
  CHECK(loop.fake.awaited.why == example_await().why);
  CHECK(loop.fake.awaited.seen == example_await().seen);
  loop.fake.batch_ready = false;
  CHECK_FALSE(client.await_broadcast(example_await()));
  CHECK_FALSE(client.watch_broadcast({4, 9}, milliseconds(10)));
}

TEST_CASE("a member that calls without end is put off, the others are not", "[actors][rpc][cpu]") {
  ServeOptions options;
  options.burst_calls = 20;
  options.calls_per_second = 50;
  Loopback loop(options);
  WorkerClient wild(loop.client(milliseconds(10'000)));
  WorkerClient calm(loop.client());
  const auto began = std::chrono::steady_clock::now();
  // Its calls are made in the end: the client tries again.
  for (int i = 0; i < 60; ++i) wild.heartbeat({"rollout-0", 99, true, i, 40});
  CHECK(std::chrono::steady_clock::now() - began >= milliseconds(700));  // 40 of 50 a second
  CHECK(loop.fake.beat.progress == 59);
  calm.heartbeat({"rollout-1", 99, true, 77, 40});
  CHECK(loop.fake.beat.progress == 77);
}

TEST_CASE("a learner's calls arrive whole and are answered whole", "[actors][rpc][cpu]") {
  Loopback loop;
  LearnerClient learner(loop.client());
  CHECK(learner.stage_progress(2).last_step == 2);
  REQUIRE(learner.checkpoints().size() == 2);
  CHECK(learner.checkpoints()[0].path == "checkpoints/step-40");
  CHECK(learner.begin_stage(2, 30).last_step == 30);
  learner.finish_stage(2, "stage-2");
  CHECK(loop.fake.text == "stage-2");
  learner.set_fact("threads", "2");
  CHECK((loop.fake.text + loop.fake.other_text) == "threads2");
  learner.record_checkpoint({2, 40, "c", true});
  CHECK(loop.fake.checkpoint.path == "c");
  CHECK(loop.fake.checkpoint.durable);
  learner.forget_checkpoint("c");
  CHECK(learner.commit_rows(2, example_rows()) == StepOutcome::kReplayedDifferent);
  CHECK(loop.fake.rows.fresh.at(0).row == 12);
  CHECK((loop.fake.rows.batch.samples == example_rows().batch.samples));
  CHECK(learner.has_batch(2, 40));
  learner.open_step(2, 41, example_publication());
  CHECK(loop.fake.number == 41);
  CHECK(loop.fake.weights.file == "/run/w.safetensors");
  const auto batch = learner.wait_batch(2, 41, {1, 3}, milliseconds(100));
  REQUIRE(batch);
  CHECK(loop.fake.slice.rank == 1);
  CHECK(loop.fake.slice.world == 3);
  CHECK((batch->samples.at(1).rollout == example_batch().samples[1].rollout));
  CHECK(learner.commit_step(2, "{}", example_step()) == StepOutcome::kReplayedIdentical);
  CHECK(loop.fake.step.metrics == example_step().metrics);
  learner.open_evaluation(2, 40, 5, example_publication());
  CHECK(loop.fake.number == 40);
  CHECK(loop.fake.held_out == 5);
  const auto held_out = learner.wait_evaluation(2, 40, milliseconds(100));
  REQUIRE(held_out);
  CHECK(held_out->prompts == example_evaluation().prompts);
  loop.fake.batch_ready = false;
  CHECK_FALSE(learner.wait_batch(2, 41, {0, 1}, milliseconds(10)));
  CHECK_FALSE(learner.wait_evaluation(2, 40, milliseconds(10)));
}

TEST_CASE("a supervisor's calls arrive whole and are answered whole", "[actors][rpc][cpu]") {
  Loopback loop;
  SupervisorClient supervisor(loop.client());
  const RunStatus status = supervisor.status();
  CHECK(status.stage_name == "ppo");
  CHECK(status.members.at(0).why == "signal 9");
  CHECK(status.balances.at(2).holds());
  supervisor.report_death("rollout-0", 99, "signal 9");
  CHECK(loop.fake.number == 99);
  CHECK(loop.fake.other_text == "signal 9");
  supervisor.end_run();
  CHECK(loop.fake.calls().back() == "end_run");
}

TEST_CASE("a batch larger than a message comes in parts", "[actors][rpc][cpu]") {
  Loopback loop;
  // 40 samples of 100,000 tokens with three log-probabilities each: some 60 MB.
  loop.fake.batch = example_batch(40, 100'000);
  RpcClientOptions options = loop.client();
  options.max_message_bytes = int64_t{8} << 20;
  LearnerClient learner(options);
  const auto batch = learner.wait_batch(0, 1, {0, 1}, milliseconds(1000));
  REQUIRE(batch);
  REQUIRE(batch->samples.size() == 40);
  CHECK((batch->samples[39].rollout == loop.fake.batch.samples[39].rollout));
}

TEST_CASE("a completion larger than a part goes in several calls", "[actors][rpc][cpu]") {
  Loopback loop;
  RpcClientOptions options = loop.client();
  options.part_bytes = 100'000;
  WorkerClient worker(options);
  Completion large = example_completion();
  large.rollouts.clear();
  for (int i = 0; i < 10; ++i) large.rollouts.push_back({{i, 0}, example_generation(2000)});
  worker.complete(large);
  CHECK(loop.fake.completions.size() >= 3);
  int64_t next = 0;
  size_t scores = 0;
  for (const Completion& part : loop.fake.completions) {
    CHECK(part.lease == large.lease);
    for (const RolloutResult& item : part.rollouts) CHECK(item.id.ordinal == next++);
    scores += part.scores.size();
  }
  CHECK(next == 10);
  CHECK(scores == 1);
  // Nothing to say is said, too.
  loop.fake.completions.clear();
  worker.complete({"rollout-0", 7, Purpose::kPolicy, {}, {}, {}});
  CHECK(loop.fake.completions.size() == 1);
}

TEST_CASE("only members of the run are served, and each refusal is said once",
          "[actors][rpc][cpu]") {
  const TempDir folder;
  log::add_file(folder / "log");
  Loopback loop;
  const std::string wrong(64, 'b');
  for (int i = 0; i < 3; ++i) {
    CHECK(leave_by_hand(loop, {}).error_code() == grpc::StatusCode::UNAUTHENTICATED);
    CHECK(leave_by_hand(loop, {{"praetor-secret", wrong}, {"praetor-run", "run"}}).error_code() ==
          grpc::StatusCode::UNAUTHENTICATED);
    // Two secrets are none.
    CHECK(leave_by_hand(loop, {{"praetor-secret", kSecret}, {"praetor-secret", wrong}})
              .error_code() == grpc::StatusCode::UNAUTHENTICATED);
    CHECK(leave_by_hand(loop, {{"praetor-secret", kSecret}}).error_code() ==
          grpc::StatusCode::PERMISSION_DENIED);
    CHECK(
        leave_by_hand(loop, {{"praetor-secret", kSecret}, {"praetor-run", "other"}}).error_code() ==
        grpc::StatusCode::PERMISSION_DENIED);
  }
  CHECK(loop.fake.calls().empty());
  CHECK(loop.server->refused() == 15);

  RpcClientOptions options = loop.client(std::chrono::seconds(60));
  options.secret = wrong;
  CHECK_THROWS_AS(WorkerClient(options).leave("rollout-0"), RefusedError);
  options = loop.client(std::chrono::seconds(60));
  options.run_id = "other";
  CHECK_THROWS_AS(LearnerClient(options).has_batch(0, 1), RefusedError);
  CHECK_THROWS_AS(SupervisorClient(options).status(), RefusedError);
  CHECK_THROWS_AS(LearnerClient(options).wait_batch(0, 1, {}, milliseconds(10)), RefusedError);

  WorkerClient(loop.client()).leave("rollout-0");
  CHECK(loop.fake.calls().size() == 1);

  std::ifstream file(folder / "log");
  std::stringstream log;
  log << file.rdbuf();
  CHECK(count(log.str(), "the call carries no secret") == 1);
  CHECK(count(log.str(), "the call's secret is not the run's") == 1);
  CHECK(count(log.str(), "the call is of run \"other\"") == 1);
  CHECK(count(log.str(), kSecret) == 0);
  CHECK(count(log.str(), wrong) == 0);
}

TEST_CASE("a malformed or oversized message is refused and the server goes on",
          "[actors][rpc][cpu]") {
  const TempDir folder;
  log::add_file(folder / "log");
  ServeOptions small;
  small.max_message_bytes = 10'000;
  Loopback loop(small);
  const std::vector<std::pair<std::string, std::string>> member = {{"praetor-secret", kSecret},
                                                                   {"praetor-run", "run"}};
  for (int i = 0; i < 2; ++i) {
    const grpc::Status status = leave_by_hand(loop, member, "");
    CHECK(status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
    CHECK(status.error_message() == "name: is empty");
  }
  CHECK(leave_by_hand(loop, member, std::string(20'000, 'x')).error_code() ==
        grpc::StatusCode::RESOURCE_EXHAUSTED);
  // A client with a higher limit is told so, and does not try for a minute.
  WorkerClient worker(loop.client(std::chrono::seconds(60)));
  Completion large = example_completion();
  large.rollouts[0].generation = example_generation(3000);
  CHECK_THROWS_AS(worker.complete(large), InvalidArgument);
  RpcClientOptions options = loop.client();
  options.max_message_bytes = 100;
  CHECK_THROWS_WITH(WorkerClient(options).complete(large), Catch::Contains("100 are the most"));
  CHECK(loop.fake.calls().empty());
  worker.complete(example_completion());
  CHECK(loop.fake.calls().size() == 1);
  std::ifstream file(folder / "log");
  std::stringstream log;
  log << file.rdbuf();
  CHECK(count(log.str(), "name: is empty") == 1);
}

TEST_CASE("what an interface throws is thrown at the client as the same class",
          "[actors][rpc][cpu]") {
  Loopback loop;
  WorkerClient worker(loop.client(std::chrono::seconds(60)));
  const auto throwing = [&](auto error) {
    loop.fake.before = [error](const std::string&) { throw error; };
  };
#define CHECK_CLASS(Kind)                           \
  throwing(Kind("what ", 1, " is \xc3\xa4 wrong")); \
  CHECK_THROWS_AS(worker.leave("w"), Kind);         \
  CHECK_THROWS_WITH(worker.leave("w"), "what 1 is \xc3\xa4 wrong")
  CHECK_CLASS(RefusedError);
  CHECK_CLASS(DataError);
  CHECK_CLASS(CheckpointError);
  CHECK_CLASS(InvalidArgument);
  CHECK_CLASS(ShapeError);
  CHECK_CLASS(ConfigError);
  CHECK_CLASS(MissingInput);
  CHECK_CLASS(IoError);
  CHECK_CLASS(CollectiveError);
  CHECK_CLASS(RpcError);
  CHECK_CLASS(TemporaryError);
  CHECK_CLASS(InternalError);
#undef CHECK_CLASS
  throwing(TimeoutError("late"));
  CHECK_THROWS_AS(worker.leave("w"), TimeoutError);
  throwing(std::runtime_error("not ours"));
  CHECK_THROWS_AS(worker.leave("w"), InternalError);
  throwing(42);
  CHECK_THROWS_AS(worker.leave("w"), InternalError);
  throwing(DataError(std::string(100'000, 'x')));
  CHECK_THROWS_AS(worker.leave("w"), DataError);
  throwing(DataError("no sample could be scored"));
  CHECK_THROWS_AS(LearnerClient(loop.client()).wait_batch(0, 1, {}, milliseconds(10)), DataError);
  loop.fake.before = nullptr;
  worker.leave("w");
  try {
    throwing(Error(ErrorCode::kNotFound, 99, "odd"));
    worker.leave("w");
    FAIL("nothing was thrown");
  } catch (const Error& error) {
    CHECK(error.exit_status() == 99);
    CHECK(error.code() == ErrorCode::kNotFound);
  }
}

TEST_CASE("an interface that is not offered says so", "[actors][rpc][cpu]") {
  Loopback loop;
  loop.server = std::make_unique<RpcServer>(RpcServices{&loop.fake, nullptr, nullptr}, loop.serve);
  WorkerClient(loop.client()).leave("w");
  CHECK_THROWS_WITH(SupervisorClient(loop.client(std::chrono::seconds(60))).status(),
                    Catch::Contains("does not offer"));
  CHECK_THROWS_AS(RpcServer({}, loop.serve), InvalidArgument);
}

TEST_CASE("hundreds of long polls wait at once, and heartbeats get through", "[actors][rpc][cpu]") {
  const int polls = GENERATE(100, 500);
  Loopback loop;
  std::vector<std::thread> pollers;
  std::atomic<int> leased{0};
  for (int i = 0; i < polls; ++i) {
    pollers.emplace_back([&] {
      WorkerClient worker(loop.client(std::chrono::seconds(20)));
      if (worker.lease({"w", LeaseKind::kGenerate, 1, 1, milliseconds(25'000)})) ++leased;
    });
  }
  CHECK(loop.fake.wait_for_waiting(polls));
  WorkerClient other(loop.client());
  CHECK(other.heartbeat({"w", 1, false, 0, -1}) == Orders::kRegister);
  for (int i = 0; i < polls; ++i) loop.fake.offer(example_lease(LeaseKind::kGenerate));
  for (std::thread& poller : pollers) poller.join();
  CHECK(leased == polls);
  const auto latencies = loop.server->latencies();
  CHECK(latencies.at("Worker.Lease").count == polls);
  CHECK(latencies.at("Worker.Heartbeat").count == 1);
  CHECK(latencies.at("Worker.Heartbeat").failed == 0);
}

TEST_CASE("waits take no more than half of the threads", "[actors][rpc][cpu]") {
  ServeOptions few;
  few.max_threads = 16;
  Loopback loop(few);
  std::vector<std::thread> pollers;
  for (int i = 0; i < 8; ++i) {
    pollers.emplace_back([&] {
      WorkerClient(loop.client(std::chrono::seconds(20)))
          .lease({"w", LeaseKind::kGenerate, 1, 1, milliseconds(25'000)});
    });
  }
  CHECK(loop.fake.wait_for_waiting(8));
  // The ninth gets its nothing at once, and rests before it would ask again.
  const auto start = std::chrono::steady_clock::now();
  CHECK_FALSE(
      WorkerClient(loop.client()).lease({"w", LeaseKind::kGenerate, 1, 1, milliseconds(300)}));
  CHECK(std::chrono::steady_clock::now() - start >= milliseconds(300));
  CHECK(loop.fake.request.wait == milliseconds(0));
  loop.fake.end_waits();
  for (std::thread& poller : pollers) poller.join();
}

TEST_CASE("a wait is cut to the server's longest", "[actors][rpc][cpu]") {
  ServeOptions brief;
  brief.max_wait = milliseconds(50);
  Loopback loop(brief);
  CHECK_FALSE(
      WorkerClient(loop.client()).lease({"w", LeaseKind::kGenerate, 1, 1, milliseconds(25'000)}));
  CHECK(loop.fake.request.wait == milliseconds(50));
}

TEST_CASE("a taken port is left, or is an error", "[actors][rpc][cpu]") {
  Loopback loop;
  ServeOptions second = loop.serve;
  second.port = loop.server->port();
  second.advertise = "name.of.this.host";
  const RpcServices services{&loop.fake, nullptr, nullptr};
  const RpcServer other(services, second);
  CHECK(other.port() != loop.server->port());
  CHECK(other.address() == "name.of.this.host:" + std::to_string(other.port()));
  second.any_port = false;
  CHECK_THROWS_AS(RpcServer(services, second), TemporaryError);
  second.bind = "192.0.2.1";  // TEST-NET: nobody's
  CHECK_THROWS_AS(RpcServer(services, second), TemporaryError);
  second.secret.clear();
  CHECK_THROWS_AS(RpcServer(services, second), InvalidArgument);
}

TEST_CASE("a stopping server lets calls end", "[actors][rpc][cpu]") {
  Loopback loop;
  std::optional<Lease> got;
  std::thread poller([&] {
    got =
        WorkerClient(loop.client()).lease({"w", LeaseKind::kGenerate, 1, 1, milliseconds(20'000)});
  });
  CHECK(loop.fake.wait_for_waiting(1));
  std::thread stopper([&] { loop.server->stop(milliseconds(20'000)); });
  loop.fake.offer(example_lease(LeaseKind::kGenerate));
  poller.join();
  stopper.join();
  CHECK(got.has_value());
  loop.server->stop(milliseconds(0));
}

TEST_CASE("latencies are quantiles of what was recorded", "[actors][rpc][cpu]") {
  Loopback loop;
  WorkerClient worker(loop.client());
  loop.fake.before = [](const std::string& verb) {
    if (verb == "leave") throw DataError("no");
    std::this_thread::sleep_for(milliseconds(20));
  };
  for (int i = 0; i < 5; ++i) worker.heartbeat({"w", 1, false, 0, -1});
  CHECK_THROWS_AS(worker.leave("w"), DataError);
  const auto latencies = loop.server->latencies();
  const RpcLatency& heartbeat = latencies.at("Worker.Heartbeat");
  CHECK(heartbeat.count == 5);
  CHECK(heartbeat.p50_ms >= 20 * 0.87);
  CHECK(heartbeat.p50_ms <= heartbeat.p99_ms);
  CHECK(heartbeat.max_ms >= 20);
  CHECK(heartbeat.mean_ms >= 20);
  CHECK(latencies.at("Worker.Leave").failed == 1);
}
