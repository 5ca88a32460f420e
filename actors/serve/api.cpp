#include "actors/serve/api.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "actors/serve/json_fields.h"
#include "core/base/error.h"
#include "core/base/text.h"
#include "core/data/example.h"
#include "rollout/sampling_config.h"

namespace praetor::serve {

using nlohmann::json;

namespace {

constexpr int64_t kMostSamples = 128;
constexpr size_t kMostPrompts = 256;
constexpr size_t kMostStops = 16;
constexpr int64_t kDefaultTokens = 16;  // of a completion, as OpenAI's
constexpr double kMostBias = 100;

std::string content_of(JsonFields& message, const std::string& where) {
  const json& content = message.value("content");
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) message.fail("content", "must be a string or a list of text parts");
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    if (!content[i].is_object()) message.fail("content", "its parts must be objects");
    JsonFields part(content[i], str(where, "content[", i, "]."));
    if (part.text("type") != "text") part.fail("type", "only \"text\" is supported");
    text += part.text("text").value_or("");
    part.reject_unknown();
  }
  return text;
}

std::vector<Message> messages_of(JsonFields& fields) {
  const json& list = fields.value("messages");
  if (!list.is_array() || list.empty()) {
    fields.fail("messages", "must be a list of {\"role\", \"content\"} that is not empty");
  }
  std::vector<Message> messages;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = str("messages[", i, "].");
    if (!list[i].is_object()) fields.fail("messages", "its entries must be objects");
    JsonFields message(list[i], where);
    const auto role = message.text("role");
    if (!role) message.fail("role", "is missing: system, user or assistant");
    messages.push_back({*role, content_of(message, where)});
    message.ignore({"name"});
    message.refuse({"tool_calls", "tool_call_id", "function_call", "refusal", "audio"});
    message.reject_unknown();
  }
  return messages;
}

std::vector<int64_t> encoded(const Row& row, const ServedModel& model, const char* param) {
  try {
    return prompt_tokens(row, model.tokenizer, {.chat_template = model.chat_template});
  } catch (const Error& failure) {
    throw ApiError{.message = str(param, ": ", failure.what()), .param = param};
  }
}

std::vector<int64_t> encoded_text(const std::string& text, const ServedModel& model) {
  Row row;
  row.prompt = text;
  return encoded(row, model, "prompt");
}

// A text, a list of texts, a list of token ids, or a list of such lists.
std::vector<std::vector<int64_t>> prompts_of(JsonFields& fields, const ServedModel& model) {
  const json& prompt = fields.value("prompt");
  if (prompt.is_string()) return {encoded_text(prompt.get<std::string>(), model)};
  if (!prompt.is_array() || prompt.empty()) {
    fields.fail("prompt", "must be a string, a list of strings, or token ids");
  }
  if (prompt[0].is_number()) return {token_ids_of(prompt, "prompt")};
  if (prompt.size() > kMostPrompts) {
    fields.fail("prompt", str(prompt.size(), " prompts; at most ", kMostPrompts, " are taken"));
  }
  std::vector<std::vector<int64_t>> all;
  for (size_t i = 0; i < prompt.size(); ++i) {
    all.push_back(prompt[i].is_string() ? encoded_text(prompt[i].get<std::string>(), model)
                                        : token_ids_of(prompt[i], str("prompt[", i, "]")));
  }
  return all;
}

std::vector<std::vector<int64_t>> conversation_of(JsonFields& fields, const ServedModel& model) {
  Row row;
  row.messages = messages_of(fields);
  if (model.chat_template.empty()) {
    fields.fail("messages",
                "the model's folder has no chat template: start the server with --template, or "
                "use /v1/completions");
  }
  return {encoded(row, model, "messages")};
}

// Schema of what response_format asks for; none: plain text.
std::optional<std::string> schema_of(JsonFields& fields) {
  const json& format = fields.value("response_format");
  if (format.is_null()) return std::nullopt;
  if (!format.is_object()) fields.fail("response_format", "must be an object");
  JsonFields inner(format, "response_format.");
  const std::string type = inner.text("type").value_or("");
  if (type == "text") return std::nullopt;
  if (type == "json_object") return R"({"type":"object"})";
  if (type != "json_schema") inner.fail("type", "must be text, json_object or json_schema");
  const json& named = inner.value("json_schema");
  if (!named.is_object() || !named.contains("schema")) {
    inner.fail("json_schema", "must be an object with a \"schema\"");
  }
  return named["schema"].dump();
}

void read_penalties(JsonFields& fields, SamplingParams& params) {
  const auto add = [&](ProcessorSpec spec) { params.processors.push_back(std::move(spec)); };
  if (const auto least = fields.integer("min_tokens", at_least(0)); least && *least > 0) {
    add(min_new_tokens(*least));
  }
  const json& bias = fields.value("logit_bias");
  if (!bias.is_null() && !bias.empty()) {
    if (!bias.is_object()) fields.fail("logit_bias", "must map token ids to numbers");
    JsonFields ids(bias, "logit_bias.");
    for (const auto& [id, value] : bias.items()) ids.number(id, closed(-kMostBias, kMostBias));
    add(logit_bias(bias.dump()));
  }
  if (const auto p = fields.number("presence_penalty", closed(-2, 2)); p && *p != 0) {
    add(presence_penalty(*p));
  }
  if (const auto p = fields.number("frequency_penalty", closed(-2, 2)); p && *p != 0) {
    add(frequency_penalty(*p));
  }
  const auto pattern = fields.text("regex");
  const json& schema = fields.value("json_schema");
  const auto format = schema_of(fields);
  if (static_cast<int>(pattern.has_value()) + static_cast<int>(!schema.is_null()) +
          static_cast<int>(format.has_value()) >
      1) {
    fields.fail("response_format", "regex, json_schema and response_format exclude each other");
  }
  if (pattern) add(regex_constraint(*pattern));
  if (!schema.is_null()) add(json_schema_constraint(schema.dump()));
  if (format) add(json_schema_constraint(*format));
}

void read_sampling(JsonFields& fields, const ServedModel& model, SamplingParams& params) {
  params.temperature = fields.number("temperature", closed(0, 2)).value_or(1);
  params.top_p = fields.number("top_p", left_open(0, 1)).value_or(1);
  params.top_k = std::max<int64_t>(0, fields.integer("top_k", at_least(-1)).value_or(0));
  params.min_p = fields.number("min_p", Range{.low = 0, .high = 1, .high_open = true}).value_or(0);
  params.repetition_penalty = fields.number("repetition_penalty", greater_than(0)).value_or(1);
  params.ignore_eos = fields.flag("ignore_eos", false);
  params.stop_strings = fields.texts("stop");
  if (params.stop_strings.size() > kMostStops) {
    fields.fail("stop", str(params.stop_strings.size(), " strings; at most ", kMostStops));
  }
  const auto empty = std::find(params.stop_strings.begin(), params.stop_strings.end(), "");
  if (empty != params.stop_strings.end()) fields.fail("stop", "a stop string must not be empty");
  params.stop_tokens = fields.token_ids("stop_token_ids");
  const auto& ends = model.config.eos_tokens;
  params.stop_tokens.insert(params.stop_tokens.end(), ends.begin(), ends.end());
  read_penalties(fields, params);
}

void read_logprobs(JsonFields& fields, ApiRequest& request) {
  if (request.endpoint == Endpoint::kCompletions) {
    const auto top = fields.integer("logprobs", closed(0, kMostTopLogprobs));
    request.logprobs = top.has_value();
    request.params.top_logprobs = top.value_or(0);
    return;
  }
  request.logprobs = fields.flag("logprobs", false);
  const auto top = fields.integer("top_logprobs", closed(0, kMostTopLogprobs));
  if (top && !request.logprobs) fields.fail("top_logprobs", "needs \"logprobs\": true");
  request.params.top_logprobs = top.value_or(0);
}

// The limit asked for, or what is left of the positions; the longest prompt decides.
void read_length(JsonFields& fields, const ServedModel& model, ApiRequest& request) {
  const auto limit = fields.integer("max_tokens", at_least(1));
  const auto chat_limit = request.endpoint == Endpoint::kChat
                              ? fields.integer("max_completion_tokens", at_least(1))
                              : std::nullopt;
  int64_t longest = 0;
  for (const auto& prompt : request.prompts) {
    longest = std::max(longest, static_cast<int64_t>(prompt.size()));
  }
  const int64_t left = model.config.max_positions - longest;
  const auto wanted = chat_limit ? chat_limit : limit;
  const bool chat = request.endpoint == Endpoint::kChat;
  const int64_t tokens = wanted.value_or(chat ? left : std::min(left, kDefaultTokens));
  if (left < 1 || tokens > left) {
    throw ApiError{.message = str("the model has ",
                                  model.config.max_positions,
                                  " positions; the prompt has ",
                                  longest,
                                  " tokens, and ",
                                  std::max<int64_t>(tokens, 1),
                                  " more are asked for"),
                   .param = chat ? "messages" : "prompt",
                   .code = "context_length_exceeded"};
  }
  request.params.max_new_tokens = tokens;
}

void check_model(JsonFields& fields, const ServedModel& model) {
  const auto name = fields.text("model");
  if (!name) fields.fail("model", str("is missing; this server has ", model.name));
  if (*name == model.name) return;
  throw ApiError{
      .status = 404,
      .message = str(
          "the model '", printable(*name), "' does not exist; this server has '", model.name, "'"),
      .param = "model",
      .code = "model_not_found"};
}

void read_stream(JsonFields& fields, ApiRequest& request) {
  request.stream = fields.flag("stream", false);
  const json& options = fields.value("stream_options");
  if (options.is_null()) return;
  if (!options.is_object()) fields.fail("stream_options", "must be an object");
  if (!request.stream) fields.fail("stream_options", "needs \"stream\": true");
  JsonFields inner(options, "stream_options.");
  request.include_usage = inner.flag("include_usage", false);
  inner.ignore({"include_obfuscation"});
  inner.reject_unknown();
}

}  // namespace

std::string ApiError::body() const {
  nlohmann::ordered_json error;
  error["message"] = message;
  error["type"] = type;
  error["param"] = param.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(param);
  error["code"] = code.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(code);
  return nlohmann::ordered_json{{"error", error}}.dump(
      -1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

int64_t ApiRequest::prompt_tokens() const {
  int64_t all = 0;
  for (const auto& prompt : prompts) all += static_cast<int64_t>(prompt.size());
  return all;
}

std::vector<GenerationRequest> ApiRequest::generation_requests() const {
  std::vector<GenerationRequest> all;
  for (const auto& prompt : prompts) {
    all.push_back({.prompt = prompt,
                   .params = params,
                   .key = {.job_seed = seed, .prompt_ordinal = all.size()},
                   .samples = samples});
  }
  return all;
}

ApiRequest read_request(Endpoint endpoint,
                        const std::string& body,
                        const ServedModel& model,
                        uint64_t random_seed) {
  JsonFields fields(body);
  ApiRequest request{.endpoint = endpoint};
  const bool chat = endpoint == Endpoint::kChat;
  check_model(fields, model);
  request.prompts = chat ? conversation_of(fields, model) : prompts_of(fields, model);
  read_length(fields, model, request);
  read_sampling(fields, model, request.params);
  read_logprobs(fields, request);
  read_stream(fields, request);
  request.samples = static_cast<int32_t>(fields.integer("n", closed(1, kMostSamples)).value_or(1));
  const auto seed = fields.integer("seed", Range{});
  request.seed = seed ? static_cast<uint64_t>(*seed) : random_seed;
  fields.ignore(
      {"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"});
  if (chat) {
    fields.refuse({"tools",
                   "tool_choice",
                   "functions",
                   "function_call",
                   "modalities",
                   "audio",
                   "prediction",
                   "reasoning_effort",
                   "web_search_options",
                   "verbosity"});
    fields.ignore({"parallel_tool_calls"});
  } else {
    const auto best_of = fields.integer("best_of", at_least(1));
    if (best_of && *best_of != request.samples) fields.fail("best_of", "must be n");
    fields.refuse({"echo", "suffix"});
  }
  fields.reject_unknown();
  return request;
}

}  // namespace praetor::serve
