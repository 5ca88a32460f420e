#include "actors/serve/answer.h"

#include <utility>

namespace praetor::serve {

using nlohmann::ordered_json;

namespace {

std::string dumped(const ordered_json& json) {
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string event(const ordered_json& json) {
  return "data: " + dumped(json) + "\n\n";
}

// A response that its deadline ended is none of OpenAI's cases: it is called what it is.
const char* finish_of(const Generation& made) {
  return made.finish == FinishReason::kCancelled ? "timeout" : to_string(made.finish);
}

ordered_json bytes_of(const std::string& text) {
  ordered_json bytes = ordered_json::array();
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
  return bytes;
}

std::vector<TokenPiece> pieces_of(const Generation& made) {
  std::vector<TokenPiece> pieces(made.tokens.size());
  const size_t each = pieces.empty() ? 0 : made.top_logprobs.size() / pieces.size();
  for (size_t t = 0; t < pieces.size(); ++t) {
    pieces[t].token = made.tokens[t];
    pieces[t].logprob = made.model_logprobs[t];
    const auto first = made.top_logprobs.begin() + static_cast<std::ptrdiff_t>(t * each);
    pieces[t].top.assign(first, first + static_cast<std::ptrdiff_t>(each));
  }
  return pieces;
}

}  // namespace

Answer::Answer(const ApiRequest& request, const ServedModel& model, std::string id, int64_t created)
    : request_(request), model_(model), id_(std::move(id)), created_(created) {}

int64_t Answer::choice_of(int64_t request, int32_t sample) const {
  return request * request_.samples + sample;
}

ordered_json Answer::head(bool chunk) const {
  const bool chat = request_.endpoint == Endpoint::kChat;
  ordered_json head;
  head["id"] = id_;
  head["object"] = !chat ? "text_completion" : chunk ? "chat.completion.chunk" : "chat.completion";
  head["created"] = created_;
  head["model"] = model_.name;
  head["choices"] = ordered_json::array();
  return head;
}

ordered_json Answer::usage() const {
  const int64_t prompt = request_.prompt_tokens();
  return {{"prompt_tokens", prompt},
          {"completion_tokens", completion_tokens_},
          {"total_tokens", prompt + completion_tokens_}};
}

std::string Answer::token_text(int64_t token) const {
  const std::string bytes = model_.tokenizer.token_bytes(token, false);
  // Special tokens add nothing to the text; their name says more than nothing.
  return bytes.empty() ? model_.tokenizer.id_to_token(token).value_or("") : bytes;
}

// One token in the form of chats.
ordered_json Answer::token_logprobs(const TokenPiece& token) const {
  const auto entry = [&](int64_t id, float logprob) {
    const std::string text = token_text(id);
    return ordered_json{{"token", text}, {"logprob", logprob}, {"bytes", bytes_of(text)}};
  };
  ordered_json out = entry(token.token, token.logprob);
  out["top_logprobs"] = ordered_json::array();
  for (const TopLogprob& top : token.top) {
    out["top_logprobs"].push_back(entry(top.token, top.logprob));
  }
  return out;
}

// Null where none were asked for. `offset`: of the first token's text in the choice's.
ordered_json Answer::logprobs(const std::vector<TokenPiece>& tokens, int64_t offset) const {
  if (!request_.logprobs) return nullptr;
  if (request_.endpoint == Endpoint::kChat) {
    ordered_json content = ordered_json::array();
    for (const TokenPiece& token : tokens) content.push_back(token_logprobs(token));
    return {{"content", content}, {"refusal", nullptr}};
  }
  ordered_json out{{"tokens", ordered_json::array()},
                   {"token_logprobs", ordered_json::array()},
                   {"top_logprobs", ordered_json::array()},
                   {"text_offset", ordered_json::array()}};
  for (const TokenPiece& token : tokens) {
    const std::string text = token_text(token.token);
    ordered_json top = ordered_json::object();
    for (const TopLogprob& each : token.top) top[token_text(each.token)] = each.logprob;
    out["tokens"].push_back(text);
    out["token_logprobs"].push_back(token.logprob);
    out["top_logprobs"].push_back(top);
    out["text_offset"].push_back(offset);
    offset += static_cast<int64_t>(model_.tokenizer.token_bytes(token.token, false).size());
  }
  return out;
}

std::string Answer::text_chunk(int64_t choice,
                               const std::string& text,
                               ordered_json logprobs,
                               const char* finish) const {
  ordered_json out{{"index", choice}};
  if (request_.endpoint == Endpoint::kChat) {
    out["delta"] =
        text.empty() && finish ? ordered_json::object() : ordered_json{{"content", text}};
  } else {
    out["text"] = text;
  }
  out["logprobs"] = std::move(logprobs);
  out["finish_reason"] = finish ? ordered_json(finish) : ordered_json(nullptr);
  ordered_json chunk = head(true);
  chunk["choices"].push_back(std::move(out));
  if (request_.include_usage) chunk["usage"] = nullptr;
  return event(chunk);
}

std::string Answer::opening() const {
  if (request_.endpoint != Endpoint::kChat) return "";
  std::string all;
  for (int64_t i = 0; i < prompts() * request_.samples; ++i) {
    ordered_json chunk = head(true);
    chunk["choices"].push_back({{"index", i},
                                {"delta", {{"role", "assistant"}, {"content", ""}}},
                                {"logprobs", nullptr},
                                {"finish_reason", nullptr}});
    if (request_.include_usage) chunk["usage"] = nullptr;
    all += event(chunk);
  }
  return all;
}

std::string Answer::chunk(const TokenPiece& piece) {
  if (piece.text.empty() && !request_.logprobs) return "";
  const int64_t choice = choice_of(piece.request, piece.sample);
  size_t& sent = sent_[choice];
  ordered_json beside = logprobs({piece}, static_cast<int64_t>(sent));
  sent += piece.text.size();
  return text_chunk(choice, piece.text, std::move(beside), nullptr);
}

std::string Answer::last_chunk(const Generation& made) {
  const int64_t choice = choice_of(made.request, made.sample);
  const size_t sent = sent_[choice];
  const std::string rest = sent < made.text.size() ? made.text.substr(sent) : "";
  return text_chunk(choice, rest, nullptr, finish_of(made));
}

std::string Answer::closing() const {
  std::string end;
  if (request_.include_usage) {
    ordered_json chunk = head(true);
    chunk["usage"] = usage();
    end = event(chunk);
  }
  return end + "data: [DONE]\n\n";
}

void Answer::add(Generation made) {
  ++ended_;
  completion_tokens_ += static_cast<int64_t>(made.tokens.size());
  if (request_.stream) return;
  const int64_t choice = choice_of(made.request, made.sample);
  made_.emplace(choice, std::move(made));
}

ordered_json Answer::choice(const Generation& made) const {
  ordered_json out{{"index", choice_of(made.request, made.sample)}};
  if (request_.endpoint == Endpoint::kChat) {
    out["message"] = {{"role", "assistant"}, {"content", made.text}, {"refusal", nullptr}};
  } else {
    out["text"] = made.text;
  }
  out["logprobs"] = logprobs(pieces_of(made), 0);
  out["finish_reason"] = finish_of(made);
  return out;
}

std::string Answer::whole() const {
  ordered_json out = head(false);
  for (const auto& [index, made] : made_) out["choices"].push_back(choice(made));
  out["usage"] = usage();
  return dumped(out);
}

}  // namespace praetor::serve
