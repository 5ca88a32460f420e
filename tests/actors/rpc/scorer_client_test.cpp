#include "actors/rpc/scorer_client.h"

#include <grpcpp/server_builder.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "actors/controller/services.h"
#include "core/base/deadline.h"
#include "core/base/error.h"
#include "praetor/v1/scorer.grpc.pb.h"
#include "reward/scorer.h"
#include "tests/actors/rpc/loopback.h"
#include "tests/support/catch.h"

using namespace praetor;
using namespace praetor::testing;
using std::chrono::milliseconds;

namespace {

using Answer =
    std::function<grpc::Status(const v1::ScoreSamplesRequest&, v1::ScoreSamplesResponse*)>;

/// A scorer as a user would write it, on loopback.
class ScorerServer final : public v1::Scorer::Service {
 public:
  explicit ScorerServer(Answer answer, int port = 0) : answer_(std::move(answer)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(str("127.0.0.1:", port), grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    if (port_ <= 0) throw TemporaryError("nothing could be bound");
  }
  ~ScorerServer() override { server_->Shutdown(std::chrono::system_clock::now()); }

  int port() const { return port_; }
  std::string address() const { return str("127.0.0.1:", port_); }
  std::string version = "1.0";

  grpc::Status Describe(grpc::ServerContext*,
                        const v1::DescribeScorerRequest*,
                        v1::DescribeScorerResponse* response) override {
    response->set_name("test");
    response->set_version(version);
    return grpc::Status::OK;
  }
  grpc::Status Score(grpc::ServerContext* context,
                     const v1::ScoreSamplesRequest* request,
                     v1::ScoreSamplesResponse* response) override {
    response->set_version("1.0");
    if (request->samples(0).response() == "hang") {
      while (!context->IsCancelled()) std::this_thread::sleep_for(milliseconds(1));
      return grpc::Status::CANCELLED;
    }
    return answer_(*request, response);
  }

 private:
  Answer answer_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

/// The table of the script below; the verdicts come in reverse.
grpc::Status by_table(const v1::ScoreSamplesRequest& request, v1::ScoreSamplesResponse* response) {
  for (int i = request.samples_size(); i-- > 0;) {
    const v1::ScorerSample& sample = request.samples(i);
    v1::ScorerVerdict* const verdict = response->add_verdicts();
    verdict->set_id(sample.id());
    if (sample.response() == "plain") {
      verdict->set_score(0.5);
    } else if (sample.response() == "low") {
      verdict->set_score(-2.5);
    } else if (sample.response() == "said") {
      verdict->set_score(0.9);
      verdict->set_satisfied(false);
      verdict->set_reason("too loud");
    } else {
      verdict->set_error("cannot read this");
    }
  }
  return grpc::Status::OK;
}
const char* const kTable = R"(while read -r line; do id=${line#*:}; id=${id%%,*}
  case $line in
    *plain*) echo "{\"id\":$id,\"score\":0.5}";;
    *low*) echo "{\"id\":$id,\"score\":-2.5}";;
    *said*) echo "{\"id\":$id,\"score\":0.9,\"satisfied\":false,\"reason\":\"too loud\"}";;
    *) echo "{\"id\":$id,\"error\":\"cannot read this\"}";;
  esac
done)";

Sample sample_of(const std::string& response) {
  Sample sample;
  sample.prompt = "Say it.";
  sample.response = response;
  sample.metadata = R"({"answer": 7})";
  return sample;
}

/// What the client makes of one call with these responses.
ScorerReply ask(ScorerClient& client,
                const std::vector<std::string>& responses,
                milliseconds timeout = milliseconds(20'000)) {
  std::vector<Sample> samples;
  for (const std::string& response : responses) samples.push_back(sample_of(response));
  std::vector<const Sample*> borrowed;
  for (const Sample& sample : samples) borrowed.push_back(&sample);
  return client.score(borrowed, timeout);
}

/// Answers with ids and scores as given, whatever it was asked.
Answer saying(const std::vector<std::pair<int64_t, double>>& verdicts) {
  return [verdicts](const auto&, v1::ScoreSamplesResponse* response) {
    for (const auto& [id, score] : verdicts) {
      v1::ScorerVerdict* const verdict = response->add_verdicts();
      verdict->set_id(id);
      verdict->set_score(score);
    }
    return grpc::Status::OK;
  };
}

}  // namespace

TEST_CASE("a service and a program that judge alike give the same parts", "[actors][rpc][cpu]") {
  const ScorerServer server(by_table);
  const auto scored = [&](const std::string& form) {
    const auto document =
        YamlDocument::parse("{on_error: drop, parts: [{kind: external, " + form + "}]}", "r.yaml");
    const RewardConfig config = RewardConfig::from_yaml(document->root());
    document->throw_if_errors();
    const auto scorer = Scorer::make(config,
                                     [](const std::string&) { return std::filesystem::path(); },
                                     {.connect = ScorerClient::connect});
    return scorer->score(std::vector<Sample>{
        sample_of("plain"), sample_of("low"), sample_of("said"), sample_of("other")});
  };
  const auto service = scored(str("batch: 3, address: '", server.address(), "'"));
  const auto program = scored("command: " + nlohmann::json({"sh", "-c", kTable}).dump());
  REQUIRE(service.size() == program.size());
  for (size_t i = 0; i < program.size(); ++i) {
    CHECK(service[i].score == program[i].score);
    CHECK(service[i].parts[0].score == program[i].parts[0].score);
    CHECK(service[i].parts[0].verdict == program[i].parts[0].verdict);
    CHECK(service[i].parts[0].reason == program[i].parts[0].reason);
    CHECK(service[i].parts[0].retries == program[i].parts[0].retries);
    CHECK(service[i].parts[0].error.empty() == program[i].parts[0].error.empty());
  }
  CHECK(service[0].score == 0.5);
  CHECK(service[2].parts[0].verdict == false);
  CHECK(service[3].parts[0].error ==
        str("the scorer at ", server.address(), " says: cannot read this"));
}

TEST_CASE("a service gets the sample whole, and says who it is", "[actors][rpc][cpu]") {
  v1::ScoreSamplesRequest seen;
  const ScorerServer server([&](const v1::ScoreSamplesRequest& request, auto* response) {
    seen = request;
    return saying({{2, 0.25}, {1, 4.0}})(request, response);
  });
  ScorerClient client(server.address());
  const ScorerIdentity identity = client.describe(milliseconds(20'000));
  CHECK(identity.name == "test");
  CHECK(identity.version == "1.0");
  const ScorerReply reply = ask(client, {"two\nlines \xc3\xa9", ""});
  REQUIRE(seen.samples_size() == 2);
  CHECK(seen.samples(0).prompt() == "Say it.");
  CHECK(seen.samples(0).response() == "two\nlines \xc3\xa9");
  CHECK(seen.samples(0).metadata() == R"({"answer": 7})");
  CHECK(seen.samples(1).response().empty());
  CHECK(reply.version == "1.0");
  CHECK(reply.answers[0]->score == 4.0);
  CHECK(reply.answers[1]->score == 0.25);
  CHECK_FALSE(reply.answers[1]->satisfied);
}

TEST_CASE("a service that does not answer in time is given up, and heard again later",
          "[actors][rpc][cpu]") {
  const ScorerServer server(saying({{1, 1.0}}));
  ScorerClient client(server.address());
  ask(client, {"fine"});  // connected
  CHECK_THROWS_AS(ask(client, {"hang"}, milliseconds(50)), TimeoutError);
  CHECK_THROWS_WITH(ask(client, {"hang"}, milliseconds(50)),
                    str("timeout after 50 ms at ", server.address()));
  CHECK(ask(client, {"fine"}).answers[0]->score == 1.0);
}

TEST_CASE("a service that is started again is found by the next try", "[actors][rpc][cpu]") {
  auto server = std::make_unique<ScorerServer>(saying({{1, 1.0}}));
  const int port = server->port();
  ScorerClient client(server->address());
  CHECK(ask(client, {"a"}).answers[0]->score == 1.0);
  server.reset();
  CHECK_THROWS_WITH(ask(client, {"a"}, milliseconds(100)),
                    Catch::Contains(str("127.0.0.1:", port)));
  // The call waits for the service to come.
  std::thread starter([&] { server = std::make_unique<ScorerServer>(saying({{1, 2.0}}), port); });
  CHECK(ask(client, {"a"}).answers[0]->score == 2.0);
  starter.join();
}

TEST_CASE("an address where nobody answers is named, and so is another service",
          "[actors][rpc][cpu]") {
  ScorerClient nobody("127.0.0.1:1");
  CHECK_THROWS_AS(nobody.describe(milliseconds(50)), TemporaryError);
  CHECK_THROWS_WITH(nobody.describe(milliseconds(50)),
                    "nobody answers at 127.0.0.1:1: no connection within 50 ms; start the scorer "
                    "there, or mend the part's address");
  const Loopback loop;
  ScorerClient wrong(loop.server->address());
  CHECK_THROWS_AS(wrong.describe(milliseconds(20'000)), RefusedError);
  CHECK_THROWS_WITH(wrong.describe(milliseconds(20'000)),
                    str("the server at ",
                        loop.server->address(),
                        " does not offer praetor.v1.Scorer; it may be another service: mend the "
                        "part's address"));
}

TEST_CASE("answers that make no sense are refused", "[actors][rpc][cpu]") {
  const auto failure = [](const Answer& answer) -> std::string {
    const ScorerServer server(answer);
    ScorerClient client(server.address());
    try {
      ask(client, {"a", "b"});
    } catch (const Error& error) {
      std::string message = error.what();
      const size_t at = message.find(server.address());
      return at == std::string::npos ? message : message.replace(at, server.address().size(), "X");
    }
    return "answered";
  };
  CHECK(failure(saying({{1, 1.0}, {2, 1.0}})) == "answered");
  const std::string wanted = "; one verdict a sample, with the sample's id, is wanted";
  CHECK(failure(saying({{1, 1.0}, {1, 2.0}})) ==
        "the scorer at X answered twice for id 1" + wanted);
  for (const int64_t id : {int64_t{3}, int64_t{0}, int64_t{-1}}) {
    CHECK(failure(saying({{id, 1.0}})) ==
          str("the scorer at X answered for an id that it was not asked, ", id, wanted));
  }
  CHECK(failure([](const auto&, v1::ScoreSamplesResponse* response) {
          response->clear_version();
          return grpc::Status::OK;
        }) ==
        "the scorer at X names no version; one that changes whenever its verdicts may is "
        "wanted");
  CHECK(failure([](const auto&, auto*) {
          return grpc::Status(grpc::StatusCode::UNKNOWN, "division by zero");
        }) == "the scorer at X failed: UNKNOWN: division by zero");
  CHECK_THAT(failure([](const auto&, v1::ScoreSamplesResponse* response) {
               response->add_verdicts()->set_reason(std::string(size_t{65} << 20, 'x'));
               return grpc::Status::OK;
             }),
             Catch::StartsWith("the scorer at X failed: RESOURCE_EXHAUSTED: "));
}

TEST_CASE("a short answer leaves the samples that it lacks open", "[actors][rpc][cpu]") {
  const ScorerServer server(saying({{2, 1.0}}));
  ScorerClient client(server.address());
  const ScorerReply reply = ask(client, {"a", "b", "c"});
  REQUIRE(reply.answers.size() == 3);
  CHECK_FALSE(reply.answers[0]);
  CHECK(reply.answers[1]->score == 1.0);
  CHECK_FALSE(reply.answers[2]);
}

TEST_CASE("a service without a version is refused", "[actors][rpc][cpu]") {
  ScorerServer server(saying({}));
  server.version = "";
  ScorerClient client(server.address());
  CHECK_THROWS_WITH(client.describe(milliseconds(20'000)),
                    str("the scorer at ",
                        server.address(),
                        " names no version; one that changes whenever its verdicts may is wanted"));
}
