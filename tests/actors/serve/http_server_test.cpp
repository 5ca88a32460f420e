#include "actors/serve/http_server.h"

#include <httplib.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "tests/actors/serve/serve_fixture.h"
#include "tests/support/catch.h"

namespace praetor::serve {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using praetor::testing::ServedTiny;

/// A server of the tiny model on a port of its own.
struct Running {
  explicit Running(HttpOptions options = {}, int64_t most_open = 1000)
      : loop(tiny.engine, most_open), server(at_any_port(std::move(options)), tiny.served, loop) {
    port = server.bind();
    thread = std::thread([this] { server.run(); });
  }
  ~Running() {
    server.stop();
    thread.join();
  }
  static HttpOptions at_any_port(HttpOptions options) {
    options.port = 0;
    return options;
  }
  httplib::Client client() const {
    httplib::Client client("127.0.0.1", port);
    client.set_read_timeout(20s);
    return client;
  }
  httplib::Result post(const std::string& path, const json& body) const {
    return client().Post(path.c_str(), body.dump(), "application/json");
  }

  ServedTiny tiny;
  EngineLoop loop;
  HttpServer server;
  int port = 0;
  std::thread thread;
};

/// The JSON of each server-sent event; the last must be the mark of the end.
std::vector<json> events_of(const std::string& body) {
  std::vector<json> events;
  const std::string mark = "data: [DONE]\n\n";
  REQUIRE(body.size() >= mark.size());
  REQUIRE(body.substr(body.size() - mark.size()) == mark);
  for (size_t at = 0; at + mark.size() < body.size();) {
    const size_t end = body.find("\n\n", at);
    REQUIRE(body.compare(at, 6, "data: ") == 0);
    events.push_back(json::parse(body.substr(at + 6, end - at - 6)));
    at = end + 2;
  }
  return events;
}

const std::string kCompletions = "/v1/completions";
const std::string kChat = "/v1/chat/completions";

}  // namespace

TEST_CASE("a completion comes whole or in pieces, the same by seed", "[actors][cpu]") {
  const Running running;
  json body = {{"model", "tiny"},
               {"prompt", {"ab", "cd"}},
               {"max_tokens", 12},
               {"n", 2},
               {"seed", 3},
               {"logprobs", 2}};
  const auto whole = running.post(kCompletions, body);
  REQUIRE(whole);
  REQUIRE(whole->status == 200);
  CHECK(whole->get_header_value("Content-Type") == "application/json");
  const json answer = json::parse(whole->body);
  CHECK(answer["object"] == "text_completion");
  CHECK(answer["model"] == "tiny");
  REQUIRE(answer["choices"].size() == 4);
  CHECK(answer["usage"]["prompt_tokens"] == 4);
  int64_t tokens = 0;
  for (int i = 0; i < 4; ++i) {
    const json& choice = answer["choices"][i];
    CHECK(choice["index"] == i);
    const json& logprobs = choice["logprobs"];
    const size_t count = logprobs["tokens"].size();
    tokens += static_cast<int64_t>(count);
    CHECK(logprobs["token_logprobs"].size() == count);
    CHECK(logprobs["top_logprobs"].size() == count);
    CHECK(logprobs["text_offset"][0] == 0);
    CHECK((choice["finish_reason"] == "length" || choice["finish_reason"] == "stop"));
  }
  CHECK(answer["usage"]["completion_tokens"] == tokens);
  CHECK(json::parse(running.post(kCompletions, body)->body)["choices"] == answer["choices"]);

  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  const auto streamed = running.post(kCompletions, body);
  REQUIRE(streamed);
  CHECK(streamed->get_header_value("Content-Type") == "text/event-stream");
  std::vector<std::string> text(4), finish(4);
  std::vector<json> logprobs(4, json::array());
  const auto events = events_of(streamed->body);
  for (const json& event : events) {
    for (const json& choice : event["choices"]) {
      const size_t i = choice["index"];
      text[i] += choice["text"].get<std::string>();
      if (!choice["finish_reason"].is_null()) finish[i] = choice["finish_reason"];
      if (choice["logprobs"].is_null()) continue;
      for (const json& p : choice["logprobs"]["token_logprobs"]) logprobs[i].push_back(p);
    }
  }
  CHECK(events.back()["usage"] == answer["usage"]);
  CHECK(events.back()["choices"].empty());
  for (size_t i = 0; i < 4; ++i) {
    const json& choice = answer["choices"][i];
    CHECK(text[i] == choice["text"]);
    CHECK(finish[i] == choice["finish_reason"]);
    CHECK(logprobs[i] == choice["logprobs"]["token_logprobs"]);
  }
}

TEST_CASE("a chat comes whole or in pieces", "[actors][cpu]") {
  const Running running;
  json body = {{"model", "tiny"},
               {"messages", {{{"role", "user"}, {"content", "hello"}}}},
               {"max_tokens", 10},
               {"seed", 1},
               {"logprobs", true},
               {"top_logprobs", 3}};
  const json answer = json::parse(running.post(kChat, body)->body);
  CHECK(answer["object"] == "chat.completion");
  const json& choice = answer["choices"][0];
  CHECK(choice["message"]["role"] == "assistant");
  const json& content = choice["logprobs"]["content"];
  REQUIRE(content.size() == answer["usage"]["completion_tokens"]);
  CHECK(content[0]["top_logprobs"].size() == 3);
  CHECK(content[0]["bytes"][0] == static_cast<int>(content[0]["token"].get<std::string>()[0]));
  body["stream"] = true;
  const auto events = events_of(running.post(kChat, body)->body);
  CHECK(events[0]["object"] == "chat.completion.chunk");
  CHECK(events[0]["choices"][0]["delta"]["role"] == "assistant");
  std::string text;
  for (const json& event : events) {
    const json& delta = event["choices"][0]["delta"];
    if (delta.contains("content")) text += delta["content"].get<std::string>();
  }
  CHECK(text == choice["message"]["content"]);
  CHECK(events.back()["choices"][0]["finish_reason"] == choice["finish_reason"]);
}

TEST_CASE("an answer can be bound to a pattern", "[actors][cpu]") {
  const Running running;
  const json answer = json::parse(
      running
          .post(
              kCompletions,
              {{"model", "tiny"}, {"prompt", "ab"}, {"max_tokens", 20}, {"regex", "(cat|dog){2}"}})
          ->body);
  const std::string text = answer["choices"][0]["text"];
  CHECK((text == "catcat" || text == "catdog" || text == "dogcat" || text == "dogdog"));
  CHECK(answer["choices"][0]["finish_reason"] == "stop");
}

TEST_CASE("errors have the API's form", "[actors][cpu]") {
  const Running running({.body_bytes = 10000});
  const auto error_of = [](const httplib::Result& result, int status) {
    REQUIRE(result);
    CHECK(result->status == status);
    const json error = json::parse(result->body)["error"];
    CHECK(error["message"].is_string());
    CHECK(error["type"].is_string());
    return error;
  };
  CHECK(error_of(running.post(kCompletions, {{"model", "tiny"}}), 400)["param"] == "prompt");
  CHECK(error_of(running.post(kCompletions, {{"model", "gpt"}}), 404)["code"] == "model_not_found");
  // The engine's own refusals too.
  const json token = error_of(
      running.post(kCompletions, {{"model", "tiny"}, {"prompt", json::array({500})}}), 400);
  CHECK_THAT(token["message"].get<std::string>(), Catch::Matchers::Contains("500"));
  const json pattern = error_of(
      running.post(kCompletions, {{"model", "tiny"}, {"prompt", "a"}, {"regex", "(a"}}), 400);
  CHECK_THAT(pattern["message"].get<std::string>(), Catch::Matchers::Contains("regex"));
  auto client = running.client();
  error_of(client.Post(kChat.c_str(), "{\"model\"", "application/json"), 400);
  error_of(client.Get("/v1/nothing"), 404);
  error_of(client.Get(kChat.c_str()), 404);
  error_of(client.Post(kChat.c_str(), std::string(20000, ' '), "application/json"), 413);
  CHECK(client.Get("/health")->status == 200);
}

TEST_CASE("without the key nobody is answered but by /health", "[actors][cpu]") {
  const Running running({.api_key = "secret"});
  auto client = running.client();
  CHECK(client.Get("/health")->status == 200);
  for (const char* path : {"/v1/models", "/metrics"}) {
    const auto refused = client.Get(path);
    CHECK(refused->status == 401);
    CHECK(json::parse(refused->body)["error"]["code"] == "invalid_api_key");
    CHECK(client.Get(path, {{"Authorization", "Bearer secreT"}})->status == 401);
    CHECK(client.Get(path, {{"Authorization", "Bearer secret"}})->status == 200);
  }
}

TEST_CASE("sixty-four streams at once are each what they are alone", "[actors][cpu]") {
  const Running running;
  const auto body_of = [](int i) {
    return json{{"model", "tiny"},
                {"prompt", json::array({1 + i % 7, 2, 3})},
                {"max_tokens", 20 + i % 30},
                {"seed", i},
                {"stream", true}};
  };
  const auto text_of = [](const std::string& body) {
    std::string text;
    for (const json& event : events_of(body))
      text += event["choices"][0]["text"].get<std::string>();
    return text;
  };
  std::vector<std::string> bodies(64);
  std::vector<std::thread> callers;
  for (int i = 0; i < 64; ++i) {
    callers.emplace_back([&, i] {
      const auto result = running.post(kCompletions, body_of(i));
      bodies[static_cast<size_t>(i)] = result ? result->body : httplib::to_string(result.error());
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (int i = 0; i < 64; i += 9) {
    const auto alone = running.post(kCompletions, body_of(i));
    REQUIRE(alone);
    INFO(bodies[static_cast<size_t>(i)]);
    CHECK(text_of(bodies[static_cast<size_t>(i)]) == text_of(alone->body));
  }
  for (const std::string& body : bodies) CHECK(events_of(body).size() > 1);
}

TEST_CASE("a caller who hangs up is not answered on", "[actors][cpu]") {
  const Running running;
  const bool stream = GENERATE(true, false);
  for (int i = 0; i < 3; ++i) {
    const json body = {{"model", "tiny"},
                       {"prompt", std::vector<std::string>(64, "a")},
                       {"max_tokens", 76},
                       {"n", 128},
                       {"ignore_eos", true},
                       {"stream", stream}};
    httplib::Client client = running.client();
    client.set_read_timeout(0, 20000);
    httplib::Request request;
    request.method = "POST";
    request.path = kCompletions;
    request.body = body.dump();
    request.content_receiver = [](const char*, size_t, uint64_t, uint64_t) { return false; };
    CHECK_FALSE(client.send(request));
  }
  for (int i = 0; i < 1000; ++i) {
    if (running.loop.stats().running == 0 && running.loop.stats().queued == 0) break;
    std::this_thread::sleep_for(10ms);
  }
  CHECK(running.loop.stats().running == 0);
  CHECK(running.loop.stats().engine.responses < 3 * 64 * 128);
  CHECK(running.client().Get("/health")->status == 200);
}

TEST_CASE("beyond the most that may be open, callers hear 429", "[actors][cpu]") {
  const Running running({}, 2);
  const auto refused = running.post(kCompletions, {{"model", "tiny"}, {"prompt", {"a", "b", "c"}}});
  REQUIRE(refused);
  CHECK(refused->status == 429);
  CHECK(refused->has_header("Retry-After"));
  CHECK(running.post(kCompletions, {{"model", "tiny"}, {"prompt", {"a", "b"}}})->status == 200);
}

TEST_CASE("a request ends at its limit with what it has", "[actors][cpu]") {
  const Running running({.request_limit = 0ms});
  const auto result = running.post(kCompletions, {{"model", "tiny"}, {"prompt", "a"}});
  REQUIRE(result);
  CHECK(json::parse(result->body)["choices"][0]["finish_reason"] == "timeout");
}

TEST_CASE("metrics count what was answered", "[actors][cpu]") {
  const Running running;
  running.post(kCompletions,
               {{"model", "tiny"}, {"prompt", "abc"}, {"max_tokens", 5}, {"ignore_eos", true}});
  running.post(kCompletions, {{"model", "tiny"}});
  auto client = running.client();
  client.Get("/somewhere");
  // An answer is counted when it has been sent, which its caller may know first.
  std::string text;
  for (int i = 0; i < 500; ++i) {
    text = client.Get("/metrics")->body;
    const bool counted = text.find("\"other\"") != std::string::npos;
    if (counted && text.find("praetor_requests_running 0\n") != std::string::npos) break;
    std::this_thread::sleep_for(10ms);
  }
  for (const char* line : {
           "praetor_requests_total{endpoint=\"/v1/completions\",status=\"200\"} 1\n",
           "praetor_requests_total{endpoint=\"/v1/completions\",status=\"400\"} 1\n",
           "praetor_requests_total{endpoint=\"other\",status=\"404\"} 1\n",
           "praetor_prompt_tokens_total 3\n",
           "praetor_completion_tokens_total 5\n",
           "praetor_requests_running 0\n",
           "praetor_answer_seconds_count 1\n",
           "# TYPE praetor_answer_seconds histogram\n",
       }) {
    CHECK_THAT(text, Catch::Matchers::Contains(line));
  }
  const json models = json::parse(client.Get("/v1/models")->body);
  CHECK(models["data"][0]["id"] == "tiny");
}

TEST_CASE("an address in use is refused", "[actors][cpu]") {
  const Running running;
  ServedTiny tiny;
  EngineLoop loop(tiny.engine, 10);
  HttpServer second({.port = running.port}, tiny.served, loop);
  CHECK_THROWS_AS(second.bind(), IoError);
}

}  // namespace praetor::serve
