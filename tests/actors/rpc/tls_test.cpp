#include "actors/rpc/tls.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "actors/rpc/weight_stream.h"
#include "core/base/fs.h"
#include "core/base/log.h"
#include "tests/actors/rpc/loopback.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

using namespace praetor;
using namespace praetor::testing;
using std::chrono::milliseconds;

namespace {

namespace fs = std::filesystem;

int count(const std::string& text, const std::string& what) {
  int found = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

/// A run with certificates of its own, and its fake controller behind TLS.
struct Encrypted {
  TempDir run;
  TlsFiles files = make_run_certificates(run.path());
  std::shared_ptr<const TlsIdentity> member = read_identity(files);
  Loopback loop{options()};

  ServeOptions options() const {
    ServeOptions out;
    out.tls = issue_server_identity(run.path(), {"127.0.0.1"});
    return out;
  }
  RpcClientOptions client(std::shared_ptr<const TlsIdentity> identity) const {
    RpcClientOptions out = loop.client();
    out.tls = std::move(identity);
    return out;
  }
  void check_unharmed() {
    CHECK(WorkerClient(client(member)).heartbeat({"w", 1, false, 0, -1}) == Orders::kRegister);
  }
};

/// Certificates of a run that ended long ago.
TlsFiles expired_certificates(const fs::path& run_dir) {
  return make_run_certificates(run_dir, std::chrono::hours(-48));
}

}  // namespace

TEST_CASE("calls and weights pass over mutual TLS", "[actors][rpc][cpu]") {
  Encrypted wire;
  WorkerClient worker(wire.client(wire.member));
  CHECK(worker.join(example_member()).run_id == "run");
  wire.loop.fake.offer(example_lease(LeaseKind::kGenerate));
  CHECK(worker.lease({"w", LeaseKind::kGenerate, 1, 1, milliseconds(5000)}).has_value());
  worker.complete(example_completion());
  CHECK(wire.loop.fake.completions.size() == 1);
  LearnerClient learner(wire.client(wire.member));
  CHECK(learner.wait_batch(0, 1, {0, 1}, milliseconds(1000)).has_value());

  ServeOptions serve = wire.options();
  serve.run_id = "run";
  serve.secret = kSecret;
  WeightServer weights(serve);
  const std::string bytes(3'000'000, 'w');
  write_file_atomic(wire.run / "weights", bytes);
  Publication publication;
  publication.version = {0, 0, 40, "digest"};
  publication.address = weights.address();
  publication.bytes = static_cast<int64_t>(bytes.size());
  weights.set_file(publication.version, wire.run / "weights");
  fetch_weights(publication, wire.run / "copy", wire.client(wire.member));
  CHECK(read_file(wire.run / "copy") == bytes);
  RpcClientOptions plain = wire.client(nullptr);
  CHECK_THROWS_AS(fetch_weights(publication, wire.run / "copy2", plain), RefusedError);
}

TEST_CASE("TLS does not stand in for the secret", "[actors][rpc][cpu]") {
  Encrypted wire;
  RpcClientOptions options = wire.client(wire.member);
  options.secret = std::string(64, 'b');
  CHECK_THROWS_AS(WorkerClient(options).leave("w"), RefusedError);
  options.secret = kSecret;
  options.run_id = "other";
  CHECK_THROWS_AS(WorkerClient(options).leave("w"), RefusedError);
  CHECK(wire.loop.server->refused() == 2);
  wire.check_unharmed();
}

TEST_CASE("strangers to the authority are refused, and the refusal says why",
          "[actors][rpc][cpu]") {
  const TempDir log_folder;
  log::add_file(log_folder / "log");
  Encrypted wire;
  const TempDir other, old;
  const auto refusal = [&](std::shared_ptr<const TlsIdentity> identity) -> std::string {
    RpcClientOptions options = wire.client(std::move(identity));
    options.patience = milliseconds(20'000);
    try {
      WorkerClient(options).leave("w");
    } catch (const RefusedError& error) {
      CHECK(error.exit_status() == kExitRefused);
      return error.what();
    }
    return "taken";
  };

  // No TLS at all; the secret is right.
  CHECK_THAT(refusal(nullptr), Catch::Contains("the server speaks TLS alone"));

  // A certificate of another authority, whose holder believes ours.
  const auto theirs = read_identity(make_run_certificates(other.path()));
  TlsIdentity mixed = *theirs;
  mixed.ca = wire.member->ca;
  CHECK_THAT(refusal(std::make_shared<TlsIdentity>(mixed)),
             Catch::Contains("does not take this process's certificate") ||
                 Catch::Contains("closed the connection when it had seen"));
  // A server of another authority.
  CHECK_THAT(refusal(theirs), Catch::Contains("the server's certificate is not believed"));

  // No client certificate is shown.
  CHECK_THAT(refusal(std::make_shared<TlsIdentity>(TlsIdentity{"", "", wire.member->ca})),
             Catch::Contains("does not take this process's certificate") ||
                 Catch::Contains("closed the connection when it had seen"));

  // One of ours that has expired: signed by the same authority.
  fs::create_directories(old / "tls");
  fs::copy_file(wire.run / "tls" / "ca.key", old / "tls" / "ca.key");
  const TlsFiles expired = expired_certificates(old.path());
  CHECK_THROWS_WITH(read_identity(expired), Catch::Contains("expired on"));
  CHECK_THROWS_AS(read_identity(expired), RefusedError);
  const auto late = std::make_shared<TlsIdentity>(
      TlsIdentity{read_file(expired.certificate), read_file(expired.key), wire.member->ca});
  CHECK_THAT(refusal(late),
             Catch::Contains("does not take this process's certificate") ||
                 Catch::Contains("closed the connection when it had seen"));

  // The server has come to no harm, and has said so once.
  wire.check_unharmed();
  CHECK(wire.loop.fake.calls() == std::vector<std::string>{"heartbeat"});
  for (int tries = 0; tries < 100 && count(read_file(log_folder / "log"), "refused") == 0; ++tries)
    std::this_thread::sleep_for(milliseconds(50));
  const std::string said = read_file(log_folder / "log");
  CHECK(count(said, "refused 127.0.0.1: a connection ended without a call") == 1);
  CHECK(count(said, kSecret) == 0);
  CHECK(count(said, "PRIVATE KEY") == 0);
}

TEST_CASE("a member's certificate does not make a server", "[actors][rpc][cpu]") {
  Encrypted wire;
  ServeOptions serve = wire.loop.serve;
  serve.tls = wire.member;
  FakeServices fake;
  RpcServer impostor({&fake, nullptr, nullptr}, serve);
  RpcClientOptions options = wire.client(wire.member);
  options.resolve = [&] { return impostor.address(); };
  CHECK_THROWS_WITH(WorkerClient(options).leave("w"), Catch::Contains("is not believed"));
  CHECK(fake.calls().empty());
}

TEST_CASE("a server is believed under the names of its certificate alone", "[actors][rpc][cpu]") {
  Encrypted wire;
  RpcClientOptions options = wire.client(wire.member);
  // Every address of 127.0.0.0/8 is this host; the certificate names the first.
  ServeOptions serve = wire.loop.serve;
  serve.bind = "0.0.0.0";
  serve.advertise = "127.0.0.2";
  FakeServices fake;
  RpcServer server({&fake, nullptr, nullptr}, serve);
  options.resolve = [&] { return server.address(); };
  CHECK_THROWS_WITH(WorkerClient(options).leave("w"), Catch::Contains("mismatch"));
  options.resolve = [&] { return str("localhost:", server.port()); };
  CHECK_NOTHROW(WorkerClient(options).leave("w"));
}

TEST_CASE("a client with TLS finds that a server has none", "[actors][rpc][cpu]") {
  Encrypted wire;
  Loopback plain;
  RpcClientOptions options = wire.client(wire.member);
  options.resolve = [&] { return plain.server->address(); };
  CHECK_THROWS_WITH(WorkerClient(options).leave("w"), Catch::Contains("speaks no TLS"));
  CHECK(WorkerClient(plain.client()).heartbeat({"w", 1, false, 0, -1}) == Orders::kRegister);
  // Nobody there is no refusal.
  CHECK_FALSE(why_no_handshake("127.0.0.1:1", wire.member.get(), milliseconds(500)));
  CHECK_FALSE(why_no_handshake(plain.server->address(), nullptr, milliseconds(500)));
  CHECK_FALSE(why_no_handshake(wire.loop.server->address(), wire.member.get(), milliseconds(5000)));
}

TEST_CASE("a run's certificates are made once, for their owner's eyes", "[actors][rpc][cpu]") {
  const TempDir run;
  CHECK_THROWS_AS(issue_server_identity(run.path(), {"h"}), MissingInput);
  const TlsFiles files = make_run_certificates(run.path());
  struct stat info {};
  REQUIRE(::stat((run / "tls").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0700);
  int made = 0;
  for (const auto& entry : fs::directory_iterator(run / "tls")) {
    REQUIRE(::stat(entry.path().c_str(), &info) == 0);
    CHECK((info.st_mode & 0777) == 0600);
    ++made;
  }
  CHECK(made == 4);
  const std::string first = read_file(files.certificate);
  make_run_certificates(run.path());
  CHECK(read_file(files.certificate) == first);

  // Soon to expire, or torn: made anew, under the key of the authority that members know.
  const std::string key = read_file(run / "tls" / "ca.key");
  const auto before = read_identity(files);
  make_run_certificates(run.path(), std::chrono::hours(24 * 365));
  CHECK(read_file(files.certificate) != first);
  write_file_atomic(files.key, read_file(run / "tls" / "ca.key"));
  REQUIRE(::chmod(files.key.c_str(), 0600) == 0);
  make_run_certificates(run.path());
  CHECK_NOTHROW(read_identity(files));
  CHECK(read_file(run / "tls" / "ca.key") == key);
  Loopback loop([&] {
    ServeOptions serve;
    serve.tls = issue_server_identity(run.path(), {});
    return serve;
  }());
  RpcClientOptions options = loop.client();
  options.tls = before;  // of a process that was started before
  CHECK_NOTHROW(WorkerClient(options).leave("w"));
}

TEST_CASE("what is wrong with given certificates is named by file", "[actors][rpc][cpu]") {
  const TempDir run, other, work;
  const TlsFiles good = make_run_certificates(run.path());
  const TlsFiles theirs = make_run_certificates(other.path());
  const auto only = [](const std::vector<TlsFault>& faults, const char* file) {
    for (const TlsFault& fault : faults)
      if (fault.file == std::string(file)) return fault.message;
    return std::string("no fault");
  };
  CHECK_NOTHROW(read_identity(good));

  TlsFiles files = good;
  files.ca = theirs.ca;
  CHECK_THROWS_AS(read_identity(files), RefusedError);
  CHECK_THAT(only(faults_of(files), "certificate"), Catch::Contains("is not of the authority in"));

  files = good;
  files.key = theirs.key;
  CHECK_THROWS_AS(read_identity(files), DataError);
  CHECK_THAT(only(faults_of(files), "key"), Catch::Contains("is not the key of"));

  files = good;
  files.key = work / "none";
  CHECK_THROWS_AS(read_identity(files), MissingInput);

  files.key = work / "open.key";
  fs::copy_file(good.key, files.key);
  REQUIRE(::chmod(files.key.c_str(), 0644) == 0);
  CHECK_THROWS_AS(read_identity(files), RefusedError);
  CHECK_THAT(only(faults_of(files), "key"), Catch::Contains("chmod 600 " + files.key.string()));

  files = good;
  files.certificate = work / "junk";
  write_file_atomic(files.certificate, "hello");
  CHECK_THROWS_AS(read_identity(files), DataError);
  CHECK_THAT(only(faults_of(files), "certificate"), Catch::Contains("holds no certificate"));
  write_file_atomic(files.certificate, "");
  CHECK_THAT(only(faults_of(files), "certificate"), Catch::Contains("is empty"));

  // For a server and a client both, and for the host: a member's own is neither.
  CHECK_THAT(only(faults_of(good), "certificate"), Catch::Contains("is not meant for TLS servers"));
  bool host = false;
  for (const TlsFault& fault : faults_of(good, "node-7"))
    host = host || fault.message.find("is not valid for node-7") != std::string::npos;
  CHECK(host);
}

TEST_CASE("a user's own certificates do for servers and clients", "[actors][rpc][cpu]") {
  const TempDir own;
  const std::string at = own.path().string();
  write_file_atomic(own / "names", "subjectAltName=DNS:node-7,IP:127.0.0.1\n");
  const std::string make =
      "cd " + at +
      " && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=ours "
      "-keyout ca.key -out ca.pem -days 2 && openssl req -newkey ec -pkeyopt "
      "ec_paramgen_curve:P-256 -nodes -subj /CN=node -keyout node.key -out node.csr && openssl "
      "x509 "
      "-req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -days 2 -out "
      "node.pem && chmod 600 node.key";
  REQUIRE(std::system(("(" + make + ") 2> " + at + "/said").c_str()) == 0);
  const TlsFiles files{own / "node.pem", own / "node.key", own / "ca.pem"};
  for (const char* host : {"", "node-7", "127.0.0.1"}) {
    CAPTURE(host);
    CHECK(faults_of(files, host).empty());
  }
  CHECK(faults_of(files, "node-8").size() == 1);
  ServeOptions serve;
  serve.tls = read_identity(files);
  Loopback loop(serve);
  RpcClientOptions options = loop.client();
  options.tls = serve.tls;
  CHECK_NOTHROW(WorkerClient(options).leave("w"));
}

TEST_CASE("loopback is what no other host reaches", "[actors][rpc][cpu]") {
  for (const char* host : {"127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"})
    CHECK(is_loopback(host));
  for (const char* host :
       {"0.0.0.0", "::", "10.0.0.1", "127.evil.example", "localhost.example", ""})
    CHECK_FALSE(is_loopback(host));
}
