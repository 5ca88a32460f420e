#include "actors/rpc/weight_stream.h"

#include <atomic>

#include "core/base/fs.h"
#include "core/base/str.h"
#include "tests/actors/rpc/loopback.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

using namespace praetor;
using namespace praetor::testing;
using std::chrono::milliseconds;

namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

/// A learner that offers a file of 5 MiB and a bit, and a worker that wants it.
struct Weights {
  TempDir folder;
  std::string bytes;
  std::unique_ptr<WeightServer> server;
  Publication publication;
  RpcClientOptions options;

  Weights() {
    for (int64_t i = 0; i < 5 * kMiB + 17; ++i) bytes += static_cast<char>((i * 2654435761u) >> 13);
    write_file_atomic(folder / "weights", bytes);
    ServeOptions serve;
    serve.run_id = "run";
    serve.secret = kSecret;
    server = std::make_unique<WeightServer>(serve);
    publication.version = {0, 0, 40, "digest-40"};
    publication.address = server->address();
    publication.bytes = static_cast<int64_t>(bytes.size());
    server->set_file(publication.version, folder / "weights");
    options.run_id = "run";
    options.secret = kSecret;
    options.patience = std::chrono::seconds(20);
    options.first_backoff = milliseconds(10);
  }

  FetchReport fetch() { return fetch_weights(publication, folder / "copy", options); }
  bool nothing_came() const {
    return !std::filesystem::exists(folder / "copy") &&
           std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1;
  }
};

}  // namespace

TEST_CASE("weights are streamed whole", "[actors][rpc][cpu]") {
  Weights weights;
  const FetchReport report = weights.fetch();
  CHECK(report.bytes == weights.publication.bytes);
  CHECK(report.resumed == 0);
  CHECK(read_file(weights.folder / "copy") == weights.bytes);
}

TEST_CASE("a stream that breaks goes on where it was", "[actors][rpc][cpu]") {
  Weights weights;
  std::atomic<int> breaks{0};
  std::atomic<int64_t> sent{0};
  weights.server->set_fault([&](int64_t offset, std::string& bytes) {
    // Breaks twice, each time after some of the file.
    if ((offset == 2 * kMiB && breaks == 0) || (offset == 4 * kMiB && breaks == 1)) {
      ++breaks;
      throw IoError("the cable was pulled");
    }
    sent += static_cast<int64_t>(bytes.size());
  });
  const FetchReport report = weights.fetch();
  CHECK(breaks == 2);
  CHECK(report.resumed == 2);
  CHECK(sent == weights.publication.bytes);  // nothing was sent twice
  CHECK(read_file(weights.folder / "copy") == weights.bytes);
}

TEST_CASE("a flipped byte is asked for again", "[actors][rpc][cpu]") {
  Weights weights;
  std::atomic<int> flips{0};
  weights.server->set_fault([&](int64_t offset, std::string& bytes) {
    if (offset == kMiB && flips++ < 2) bytes[1000] = static_cast<char>(bytes[1000] ^ 1);
  });
  const FetchReport report = weights.fetch();
  CHECK(report.bad_chunks == 2);
  CHECK(read_file(weights.folder / "copy") == weights.bytes);
}

TEST_CASE("a byte that is always flipped is a named error", "[actors][rpc][cpu]") {
  Weights weights;
  weights.server->set_fault([&](int64_t offset, std::string& bytes) {
    if (offset == kMiB) bytes[1000] = static_cast<char>(bytes[1000] ^ 1);
  });
  CHECK_THROWS_AS(weights.fetch(), DataError);
  CHECK_THROWS_WITH(weights.fetch(), Catch::Contains("the chunk at byte 1048576 came damaged"));
  CHECK(weights.nothing_came());
}

TEST_CASE("chunks that do not fit the file are refused", "[actors][rpc][cpu]") {
  Weights weights;
  weights.server->set_fault([&](int64_t, std::string& bytes) { bytes.clear(); });
  CHECK_THROWS_WITH(weights.fetch(), Catch::Contains("does not fit the file"));
  weights.server->set_fault(nullptr);
  weights.publication.bytes += 1;
  CHECK_THROWS_WITH(weights.fetch(), Catch::Contains("were published"));
  CHECK(weights.nothing_came());
}

TEST_CASE("the newest four files are offered, also when they are gone", "[actors][rpc][cpu]") {
  Weights weights;
  std::filesystem::remove(weights.folder / "weights");
  write_file_atomic(weights.folder / "next", "abc");
  weights.server->set_file({0, 0, 41, "digest-41"}, weights.folder / "next");
  CHECK(weights.fetch().bytes == weights.publication.bytes);
  weights.publication.version.digest = "digest-41";
  weights.publication.bytes = 3;
  weights.fetch();
  CHECK(read_file(weights.folder / "copy") == "abc");
  // One that is kept counts as new: the one before it goes instead.
  weights.server->set_file({0, 0, 42, "digest-42"}, weights.folder / "next");
  weights.server->set_file({0, 0, 43, "digest-43"}, weights.folder / "next");
  weights.server->keep("digest-41");
  weights.server->set_file({0, 0, 44, "digest-44"}, weights.folder / "next");
  weights.server->set_file({0, 0, 45, "digest-45"}, weights.folder / "next");
  CHECK(weights.fetch().bytes == 3);
  for (const char* gone : {"digest-40", "digest-42"}) {
    weights.publication.version.digest = gone;
    CHECK_THROWS_AS(weights.fetch(), MissingInput);
  }
  CHECK_THROWS_AS(weights.server->set_file({0, 0, 43, ""}, weights.folder / "next"),
                  InvalidArgument);
  CHECK_THROWS_AS(weights.server->set_file({0, 0, 43, "d"}, weights.folder / "none"), MissingInput);
}

TEST_CASE("the base of adapters is offered beside the newest files", "[actors][rpc][cpu]") {
  Weights weights;
  write_file_atomic(weights.folder / "base", "abcd");
  write_file_atomic(weights.folder / "next", "abc");
  weights.server->set_base({0, 0, 0, "base"}, weights.folder / "base");
  for (int64_t step = 41; step < 50; ++step)
    weights.server->set_file({0, 0, step, str("digest-", step)}, weights.folder / "next");
  weights.publication.version.digest = "base";
  weights.publication.bytes = 4;
  CHECK(weights.fetch().bytes == 4);
  weights.server->set_base({0, 0, 0, "another"}, weights.folder / "base");
  CHECK_THROWS_AS(weights.fetch(), MissingInput);
  weights.publication.version.digest = "another";
  CHECK(weights.fetch().bytes == 4);
  weights.server->drop_base();
  CHECK_THROWS_AS(weights.fetch(), MissingInput);
}

TEST_CASE("an empty file is a file", "[actors][rpc][cpu]") {
  Weights weights;
  write_file_atomic(weights.folder / "empty", "");
  weights.server->set_file({0, 0, 41, "digest-41"}, weights.folder / "empty");
  weights.publication.version.digest = "digest-41";
  weights.publication.bytes = 0;
  CHECK(weights.fetch().bytes == 0);
  CHECK(read_file(weights.folder / "copy").empty());
}

TEST_CASE("weights are for members, and for the patient", "[actors][rpc][cpu]") {
  Weights weights;
  weights.options.secret = std::string(64, 'b');
  CHECK_THROWS_AS(weights.fetch(), RefusedError);
  weights.options.secret = kSecret;
  weights.options.cancelled = [] { return true; };
  weights.server->set_fault([](int64_t, std::string&) { throw IoError("no"); });
  CHECK_THROWS_AS(weights.fetch(), CancelledError);
  weights.options.cancelled = nullptr;
  weights.options.patience = milliseconds(100);
  CHECK_THROWS_AS(weights.fetch(), RpcError);
  weights.server->stop(milliseconds(0));
  CHECK_THROWS_AS(weights.fetch(), RpcError);
  CHECK(weights.nothing_came());
}
