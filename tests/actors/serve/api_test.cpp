#include "actors/serve/api.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/actors/serve/serve_fixture.h"
#include "tests/support/catch.h"

namespace praetor::serve {
namespace {

using nlohmann::json;

ApiRequest read(Endpoint endpoint, const std::string& body) {
  const praetor::testing::ServedTiny tiny;
  return read_request(endpoint, body, tiny.served, 77);
}

ApiError refusal(Endpoint endpoint, const std::string& body) {
  try {
    read(endpoint, body);
  } catch (const ApiError& error) {
    return error;
  }
  FAIL("not refused: " << body);
  return {};
}

}  // namespace

TEST_CASE("a completion's fields become the engine's", "[actors][cpu]") {
  const ApiRequest r = read(Endpoint::kCompletions,
                            R"({"model": "tiny", "prompt": ["ab", "c"], "max_tokens": 7, "n": 3,
        "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": -3, "stop": "x",
        "stop_token_ids": [4], "repetition_penalty": 1.5, "logprobs": 2, "ignore_eos": true,
        "presence_penalty": 0.5, "logit_bias": {"5": -100}, "user": "me", "stream": true,
        "stream_options": {"include_usage": true}})");
  REQUIRE(r.prompts.size() == 2);
  CHECK(r.prompts[0] == std::vector<int64_t>{2, 3});
  CHECK(r.prompt_tokens() == 3);
  CHECK(r.params.max_new_tokens == 7);
  CHECK(r.samples == 3);
  CHECK(r.params.temperature == 0.5);
  CHECK(r.params.top_p == 0.9);
  CHECK(r.params.top_k == 5);
  CHECK(r.params.min_p == 0.1);
  CHECK(r.params.repetition_penalty == 1.5);
  CHECK(r.params.stop_strings == std::vector<std::string>{"x"});
  CHECK(r.params.stop_tokens == std::vector<int64_t>{4, 0});
  CHECK(r.params.ignore_eos);
  CHECK(r.params.top_logprobs == 2);
  CHECK(r.logprobs);
  CHECK(r.stream);
  CHECK(r.include_usage);
  REQUIRE(r.params.processors.size() == 2);
  CHECK(r.params.processors[0].kind == "logit_bias");
  CHECK(r.params.processors[1].kind == "presence_penalty");
  const auto requests = r.generation_requests();
  REQUIRE(requests.size() == 2);
  CHECK(requests[1].prompt == r.prompts[1]);
  CHECK(requests[1].samples == 3);
  CHECK(requests[0].key.job_seed == static_cast<uint64_t>(-3));
  CHECK(requests[1].key.prompt_ordinal == 1);
}

TEST_CASE("what is left out takes the API's defaults", "[actors][cpu]") {
  const ApiRequest plain =
      read(Endpoint::kCompletions, R"({"model": "tiny", "prompt": [5, 6], "seed": null})");
  CHECK(plain.prompts == std::vector<std::vector<int64_t>>{{5, 6}});
  CHECK(plain.params.max_new_tokens == 16);
  CHECK(plain.params.temperature == 1);
  CHECK(plain.seed == 77);
  CHECK(plain.samples == 1);
  CHECK_FALSE(plain.logprobs);
  CHECK_FALSE(plain.stream);
  // A chat goes on to the last position: 80 of them, 3 letters and the template's newline.
  const ApiRequest chat = read(
      Endpoint::kChat, R"({"model": "tiny", "messages": [{"role": "user", "content": "abc"}]})");
  CHECK(chat.prompts.at(0).size() == 4);
  CHECK(chat.params.max_new_tokens == 76);
  const ApiRequest parts = read(Endpoint::kChat, R"({"model": "tiny", "max_completion_tokens": 5,
      "messages": [{"role": "user", "content": [{"type": "text", "text": "ab"},
                                                {"type": "text", "text": "c"}]}]})");
  CHECK(parts.prompts == chat.prompts);
  CHECK(parts.params.max_new_tokens == 5);
}

TEST_CASE("a chat may ask for JSON", "[actors][cpu]") {
  const std::string head = R"({"model": "tiny", "messages": [{"role": "user", "content": "a"}], )";
  const ApiRequest any =
      read(Endpoint::kChat, head + R"("response_format": {"type": "json_object"}})");
  REQUIRE(any.params.processors.size() == 1);
  CHECK(any.params.processors[0].kind == "json_schema");
  const ApiRequest schema =
      read(Endpoint::kChat, head + R"("response_format": {"type": "json_schema",
      "json_schema": {"name": "n", "strict": true, "schema": {"type": "integer"}}}})");
  CHECK(schema.params.processors.at(0).options.find("integer") != std::string::npos);
  CHECK(read(Endpoint::kChat, head + R"("response_format": {"type": "text"}})")
            .params.processors.empty());
  const ApiRequest regex = read(Endpoint::kChat, head + R"("regex": "[ab]+"})");
  CHECK(regex.params.processors.at(0).kind == "regex");
}

TEST_CASE("what cannot be met is refused by the field's name", "[actors][cpu]") {
  struct Case {
    std::string body;
    std::string param;
    std::string says;
  };
  const std::string head = R"({"model": "tiny", "prompt": "ab", )";
  const std::vector<Case> cases = {
      {"{", "", "not valid JSON"},
      {"[1]", "", "must be a JSON object"},
      {R"({"prompt": "a"})", "model", "this server has tiny"},
      {R"({"model": "tiny"})", "prompt", "must be a string"},
      {R"({"model": "tiny", "prompt": []})", "prompt", "must be"},
      {R"({"model": "tiny", "prompt": [1, "a"]})", "prompt", "found \"a\""},
      {R"({"model": "tiny", "prompt": ["a", [1, -2.5]]})", "prompt[1]", "found -2.5"},
      {R"({"model": "tiny", "prompt": 5})", "prompt", "must be"},
      {head + R"("temperature": 2.5})", "temperature", "2.5 is outside [0, 2]"},
      {head + R"("temperature": "hot"})", "temperature", "must be a number"},
      {head + R"("max_tokens": 0})", "max_tokens", "0 is outside"},
      {head + R"("max_tokens": 1.5})", "max_tokens", "must be an integer"},
      {head + R"("max_tokens": 18446744073709551615})", "max_tokens", "must be an integer"},
      {head + R"("n": 1000})", "n", "1000 is outside"},
      {head + R"("top_p": 0})", "top_p", "outside (0, 1]"},
      {head + R"("stream": "yes"})", "stream", "true or false"},
      {head + R"("stop": [1]})", "stop", "must hold strings"},
      {head + R"("stop": [""]})", "stop", "must not be empty"},
      {head + R"("logprobs": 21})", "logprobs", "21 is outside"},
      {head + R"("logit_bias": {"5": 101}})", "logit_bias.5", "101 is outside"},
      {head + R"("logit_bias": [5]})", "logit_bias", "must map"},
      {head + R"("stream_options": {"include_usage": true}})", "stream_options", "needs"},
      {head + R"("best_of": 4})", "best_of", "must be n"},
      {head + R"("echo": true})", "echo", "not supported"},
      {head + R"("temprature": 1})", "temprature", "did you mean temperature?"},
      {head + R"("regex": "a", "json_schema": {}})", "response_format", "exclude each other"},
  };
  for (const Case& c : cases) {
    INFO(c.body);
    const ApiError error = refusal(Endpoint::kCompletions, c.body);
    CHECK(error.status == 400);
    CHECK(error.param == c.param);
    CHECK_THAT(error.message, Catch::Matchers::Contains(c.says));
  }
  CHECK(refusal(Endpoint::kCompletions, R"({"model": "other", "prompt": "a"})").status == 404);
  const ApiError longer = refusal(Endpoint::kCompletions, head + R"("max_tokens": 79})");
  CHECK(longer.code == "context_length_exceeded");
  CHECK_THAT(longer.message, Catch::Matchers::Contains("80 positions"));
}

TEST_CASE("a chat's messages are checked one by one", "[actors][cpu]") {
  const std::string head = R"({"model": "tiny", "messages": )";
  const auto param = [&](const std::string& rest) {
    return refusal(Endpoint::kChat, head + rest).param;
  };
  CHECK(param("[]}") == "messages");
  CHECK(param("[1]}") == "messages");
  CHECK(param(R"([{"content": "a"}]})") == "messages[0].role");
  CHECK(param(R"([{"role": "user"}]})") == "messages[0].content");
  CHECK(param(R"([{"role": "user", "content": [{"type": "image_url"}]}]})") ==
        "messages[0].content[0].type");
  CHECK(param(R"([{"role": "user", "content": "a", "x": 1}]})") == "messages[0].x");
  CHECK(param(R"([{"role": "poet", "content": "a"}]})") == "messages");
  CHECK(param(R"([{"role": "user", "content": "a"}], "tools": [{}]})") == "tools");
  CHECK(param(R"([{"role": "user", "content": "a"}], "top_logprobs": 2})") == "top_logprobs");
  CHECK(param(R"([{"role": "user", "content": "a"}], "response_format": {"type": "xml"}})") ==
        "response_format.type");
  praetor::testing::ServedTiny tiny;
  tiny.served.chat_template.clear();
  CHECK_THROWS_AS(
      read_request(
          Endpoint::kChat, head + R"([{"role": "user", "content": "a"}]})", tiny.served, 1),
      ApiError);
}

TEST_CASE("an error's body has the API's form", "[actors][cpu]") {
  const ApiError error{.status = 404, .message = "no", .param = "model", .code = "model_not_found"};
  CHECK(json::parse(error.body()) == json::parse(R"({"error": {"message": "no",
      "type": "invalid_request_error", "param": "model", "code": "model_not_found"}})"));
  CHECK(json::parse(ApiError{.message = "\xff"}.body())["error"]["param"].is_null());
}

}  // namespace praetor::serve
