#include "actors/rpc/client.h"

#include <thread>

#include "tests/actors/rpc/loopback.h"
#include "tests/support/catch.h"

using namespace praetor;
using namespace praetor::testing;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

TEST_CASE("a server started again on another port is found", "[actors][rpc][cpu]") {
  Loopback loop;
  WorkerClient worker(loop.client(std::chrono::seconds(30)));
  worker.leave("w");
  const int first = loop.server->port();
  ServeOptions elsewhere = loop.serve;
  elsewhere.port = first;  // held by the first, so another is taken
  auto second =
      std::make_unique<RpcServer>(RpcServices{&loop.fake, &loop.fake, &loop.fake}, elsewhere);
  REQUIRE(second->port() != first);
  loop.server = std::move(second);
  worker.leave("w");
  CHECK(loop.fake.calls().size() == 2);
}

TEST_CASE("calls in progress go on with the server that comes after", "[actors][rpc][cpu]") {
  FakeServices before;
  FakeServices after;
  Loopback loop;  // for its options
  std::mutex mutex;
  std::string address;
  RpcClientOptions options = loop.client(std::chrono::seconds(30));
  options.resolve = [&] {
    const std::lock_guard lock(mutex);
    if (address.empty()) throw MissingInput("no address yet");
    return address;
  };
  const auto publish = [&](const std::string& text) {
    const std::lock_guard lock(mutex);
    address = text;
  };
  std::optional<Lease> got;
  std::thread poller([&] {
    got = WorkerClient(options).lease({"w", LeaseKind::kGenerate, 1, 5, milliseconds(20'000)});
  });
  auto first = std::make_unique<RpcServer>(RpcServices{&before}, loop.serve);
  publish(first->address());
  CHECK(before.wait_for_waiting(1));
  publish("");
  std::thread stopper([&] { first->stop(milliseconds(0)); });
  after.offer(example_lease(LeaseKind::kGenerate));
  const RpcServer second(RpcServices{&after}, loop.serve);
  publish(second.address());
  poller.join();
  before.end_waits();
  stopper.join();
  REQUIRE(got);
  CHECK(after.request.number == 5);
}

TEST_CASE("a stranger on the old port does not end a run that moved", "[actors][rpc][cpu]") {
  Loopback loop;
  FakeServices other_run;
  ServeOptions other = loop.serve;
  other.run_id = "other";
  const RpcServer stranger(RpcServices{&other_run}, other);
  RpcClientOptions options = loop.client(std::chrono::seconds(30));
  std::atomic<int> asked{0};
  options.resolve = [&] { return asked++ == 0 ? stranger.address() : loop.server->address(); };
  WorkerClient(options).leave("w");
  CHECK(loop.fake.calls().size() == 1);
  CHECK(other_run.calls().empty());
}

TEST_CASE("a server out of reach is an error after the patience", "[actors][rpc][cpu]") {
  Loopback loop;
  loop.server.reset();
  WorkerClient worker(loop.client(milliseconds(400)));
  const auto start = Clock::now();
  try {
    worker.heartbeat({"w", 1, false, 0, -1});
    FAIL("nothing was thrown");
  } catch (const RpcError& error) {
    CHECK_THAT(error.what(), Catch::Contains("Worker.Heartbeat at 127.0.0.1:1: out of reach"));
    CHECK_THAT(error.what(), Catch::Contains("tries"));
    CHECK_THAT(error.what(), Catch::Contains(" s after"));
    CHECK(error.exit_status() == kExitTemporary);
  }
  CHECK(Clock::now() - start >= milliseconds(200));
  CHECK(Clock::now() - start < milliseconds(10'000));

  RpcClientOptions nowhere = loop.client(milliseconds(200));
  nowhere.resolve = []() -> std::string { throw MissingInput("no such file"); };
  CHECK_THROWS_WITH(SupervisorClient(nowhere).status(), Catch::Contains("no such file"));
  nowhere.resolve = []() -> std::string { throw RefusedError("another run's"); };
  CHECK_THROWS_AS(SupervisorClient(nowhere).status(), RefusedError);
}

TEST_CASE("a server that does not answer in time is tried again", "[actors][rpc][cpu]") {
  Loopback loop;
  std::atomic<int> calls{0};
  std::atomic<bool> release{false};
  loop.fake.before = [&](const std::string&) {
    // The first try hangs until the client has given it up.
    if (calls++ == 0)
      while (!release) std::this_thread::sleep_for(milliseconds(5));
    release = true;
  };
  RpcClientOptions options = loop.client(std::chrono::seconds(20));
  options.call_time = milliseconds(300);
  WorkerClient worker(options);
  worker.complete(example_completion());
  CHECK(calls == 2);  // the same request twice: calls may be repeated
}

TEST_CASE("waiting ends soon after the process is told to end", "[actors][rpc][cpu]") {
  Loopback loop;
  std::atomic<bool> told{false};
  RpcClientOptions options = loop.client(std::chrono::seconds(60));
  options.cancelled = [&] { return told.load(); };

  Clock::time_point at;
  const auto tell_when_waiting = [&] {
    std::thread([&] {
      loop.fake.wait_for_waiting(1);
      at = Clock::now();
      told = true;
    }).join();
  };
  Clock::time_point ended;
  std::thread poller([&] {
    CHECK_THROWS_AS(
        WorkerClient(options).lease({"w", LeaseKind::kGenerate, 1, 1, milliseconds(25'000)}),
        CancelledError);
    ended = Clock::now();
  });
  tell_when_waiting();
  poller.join();
  CHECK(ended - at < milliseconds(1000));

  // Between two tries as well.
  told = false;
  loop.fake.end_waits();
  loop.server.reset();
  options.first_backoff = options.max_backoff = std::chrono::seconds(30);
  std::thread caller([&] {
    CHECK_THROWS_AS(SupervisorClient(options).status(), CancelledError);
    ended = Clock::now();
  });
  std::this_thread::sleep_for(milliseconds(50));
  at = Clock::now();
  told = true;
  caller.join();
  CHECK(ended - at < milliseconds(1000));
}

TEST_CASE("a client without an address or with odd times is refused", "[actors][rpc][cpu]") {
  RpcClientOptions options;
  CHECK_THROWS_AS(WorkerClient(options), InvalidArgument);
  options.resolve = [] { return std::string("127.0.0.1:1"); };
  options.call_time = milliseconds(0);
  CHECK_THROWS_AS(WorkerClient(options), InvalidArgument);
}

TEST_CASE("many threads share one client", "[actors][rpc][cpu]") {
  Loopback loop;
  WorkerClient worker(loop.client());
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 20; ++j) worker.complete(example_completion());
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(loop.fake.completions.size() == 160);
}
