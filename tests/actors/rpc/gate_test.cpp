#include "actors/rpc/gate.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <random>
#include <thread>

#include "core/base/fs.h"
#include "core/base/log.h"
#include "tests/actors/rpc/loopback.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

using namespace praetor;
using namespace praetor::testing;
using std::chrono::milliseconds;

namespace {

/// A connection made by hand.
class Line {
 public:
  explicit Line(int port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    open_ = fd_ >= 0 && ::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0;
  }
  ~Line() {
    if (fd_ >= 0) ::close(fd_);
  }
  Line(Line&& other) noexcept : fd_(std::exchange(other.fd_, -1)), open_(other.open_) {}
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;
  Line& operator=(Line&&) = delete;

  bool open() const { return open_; }
  void send(const std::string& bytes) const {
    if (::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) return;  // ended by the server
  }
  /// @return true when the server ends it within `time`
  bool ends(milliseconds time) const {
    const auto end = std::chrono::steady_clock::now() + time;
    char bytes[4096];
    for (;;) {
      pollfd one{fd_, POLLIN, 0};
      const auto left = std::chrono::ceil<milliseconds>(end - std::chrono::steady_clock::now());
      if (left.count() <= 0 || ::poll(&one, 1, static_cast<int>(left.count())) != 1) return false;
      if (::recv(fd_, bytes, sizeof(bytes), MSG_DONTWAIT) <= 0) return true;
    }
  }

 private:
  int fd_;
  bool open_ = false;
};

int open_files() {
  return static_cast<int>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

void check_serves(const Loopback& loop) {
  CHECK(WorkerClient(loop.client(milliseconds(20'000))).heartbeat({"w", 1, false, 0, -1}) ==
        Orders::kRegister);
}

}  // namespace

// Ten thousand, or as many as this process may open files: each has an end here and one there.
TEST_CASE("thousands of idle connections do no harm to a run", "[actors][rpc][cpu]") {
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  ServeOptions serve;
  serve.gate.burst = 1 << 20;
  serve.gate.most_strangers = 512;
  serve.gate.grace = milliseconds(10);
  Loopback loop(serve);
  const int wanted =
      static_cast<int>(std::min<rlim_t>(10'000, limit.rlim_cur - static_cast<rlim_t>(1500)));
  // A member that was there before goes on over its connection.
  WorkerClient member(loop.client());
  CHECK(member.heartbeat({"w", 1, false, 0, -1}) == Orders::kRegister);

  std::vector<Line> idle;
  idle.reserve(static_cast<size_t>(wanted));
  int made = 0;
  for (int i = 0; i < wanted; ++i) {
    idle.emplace_back(loop.server->port());
    made += idle.back().open() ? 1 : 0;
    if (i % 1000 == 0) CHECK(member.heartbeat({"w", 1, false, 0, -1}) == Orders::kRegister);
  }
  WARN(made << " idle connections were made");
  CHECK(made > wanted * 9 / 10);
  CHECK(member.heartbeat({"w", 1, false, 0, -1}) == Orders::kRegister);
  check_serves(loop);
  // Of the strangers few are held at a time: the server's ends of the others are closed.
  for (int tries = 0; tries < 200 && loop.server->ended() < made - 512; ++tries)
    std::this_thread::sleep_for(milliseconds(20));
  CHECK(loop.server->ended() >= made - 512);
  for (int tries = 0; tries < 200 && open_files() > wanted + 900; ++tries)
    std::this_thread::sleep_for(milliseconds(20));
  CHECK(open_files() <= wanted + 900);
}

TEST_CASE("a stranger that says nothing is ended, a member is not", "[actors][rpc][cpu]") {
  ServeOptions serve;
  serve.gate.stranger_time = milliseconds(300);
  Loopback loop(serve);
  WorkerClient member(loop.client());
  CHECK(member.heartbeat({"w", 1, false, 0, -1}) == Orders::kRegister);
  const Line idle(loop.server->port());
  REQUIRE(idle.open());
  CHECK(idle.ends(milliseconds(10'000)));
  CHECK(loop.server->ended() == 1);
  CHECK(member.heartbeat({"w", 1, false, 0, -1}) == Orders::kRegister);
  CHECK(loop.server->ended() == 1);
}

TEST_CASE("the oldest stranger makes room for the next", "[actors][rpc][cpu]") {
  ServeOptions serve;
  serve.gate.most_strangers = 2;
  serve.gate.grace = milliseconds(200);
  Loopback loop(serve);
  const auto start = std::chrono::steady_clock::now();
  const Line first(loop.server->port()), second(loop.server->port()), third(loop.server->port());
  CHECK(first.ends(milliseconds(10'000)));
  // Not before it had its time for a first call.
  CHECK(std::chrono::steady_clock::now() - start >= milliseconds(200));
  CHECK_FALSE(second.ends(milliseconds(100)));
  CHECK_FALSE(third.ends(milliseconds(1)));
  check_serves(loop);
}

TEST_CASE("a host that connects too often is turned away for a while", "[actors][rpc][cpu]") {
  const TempDir folder;
  log::add_file(folder / "log");
  ServeOptions serve;
  serve.gate.burst = 5;
  serve.gate.per_second = 20;
  Loopback loop(serve);
  int turned_away = 0;
  std::vector<Line> lines;
  for (int i = 0; i < 40; ++i) lines.emplace_back(loop.server->port());
  for (const Line& line : lines) turned_away += line.ends(milliseconds(5)) ? 1 : 0;
  CHECK(turned_away > 10);
  check_serves(loop);  // tried again until its turn
  CHECK_THAT(read_file(folder / "log"), Catch::Contains("connects more than 20 times a second"));
}

TEST_CASE("a connection whose calls are refused again and again is ended", "[actors][rpc][cpu]") {
  ServeOptions serve;
  serve.gate.most_refusals = 3;
  Loopback loop(serve);
  RpcClientOptions options = loop.client();
  options.secret = std::string(64, 'b');
  WorkerClient stranger(options);
  for (int i = 0; i < 7; ++i) CHECK_THROWS_AS(stranger.leave("w"), Error);
  CHECK(loop.server->ended() == 2);
  check_serves(loop);
}

TEST_CASE("any bytes on the port are refused whether it speaks TLS or not", "[actors][rpc][cpu]") {
  const bool encrypted = GENERATE(false, true);
  CAPTURE(encrypted);
  const TempDir run;
  std::shared_ptr<const TlsIdentity> member;
  ServeOptions serve;
  if (encrypted) {
    member = read_identity(make_run_certificates(run.path()));
    serve.tls = issue_server_identity(run.path(), {});
  }
  Loopback loop(serve);
  // What each protocol begins with, then junk: a greeting of TLS 1.2, HTTP/2's and HTTP/1's.
  const std::vector<std::string> beginnings = {
      "",
      std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11),
      std::string("\x16\x03\x03\x00\x00", 5),
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 33),
      std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x01\x24\x00\x00\x00\x01", 33),
      "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
      "praetor-secret: " + kSecret};
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const Line line(loop.server->port());
    REQUIRE(line.open());
    std::string bytes = beginnings[static_cast<size_t>(round) % beginnings.size()];
    for (uint32_t more = random() % 2000; more > 0; --more) bytes += static_cast<char>(random());
    line.send(bytes);
    if (round % 20 == 0) line.ends(milliseconds(50));
  }
  RpcClientOptions options = loop.client(milliseconds(20'000));
  options.tls = member;
  CHECK(WorkerClient(options).heartbeat({"w", 1, false, 0, -1}) == Orders::kRegister);
  CHECK(loop.fake.calls() == std::vector<std::string>{"heartbeat"});
}
