#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "actors/serve/api.h"
#include "actors/serve/engine_loop.h"

namespace praetor::serve {

/// The answers to one request in the form of OpenAI's API: whole, or chunk by chunk as server-sent
/// events. Choices are numbered prompt by prompt, sample by sample.
class Answer {
 public:
  /// @param id       of the answer, "cmpl-..." or "chatcmpl-..."
  /// @param created  seconds since 1970
  Answer(const ApiRequest& request, const ServedModel& model, std::string id, int64_t created);

  /// What begins a stream: of a chat, a chunk with the role for each choice.
  std::string opening() const;
  /// The chunk of a token, or nothing when it has neither text nor log-probabilities to show.
  std::string chunk(const TokenPiece& piece);
  /// The last chunk of a choice: the text that was held back, and why it ended.
  std::string last_chunk(const Generation& made);
  /// What ends a stream: the counts if asked for, and the mark of the end.
  std::string closing() const;

  /// Keeps a response for `whole`, or counts one that was streamed.
  void add(Generation made);
  bool complete() const { return ended_ == request_.samples * prompts(); }
  std::string whole() const;
  int64_t completion_tokens() const { return completion_tokens_; }

 private:
  int64_t prompts() const { return static_cast<int64_t>(request_.prompts.size()); }
  int64_t choice_of(int64_t request, int32_t sample) const;
  nlohmann::ordered_json head(bool chunk) const;
  nlohmann::ordered_json usage() const;
  nlohmann::ordered_json token_logprobs(const TokenPiece& token) const;
  nlohmann::ordered_json logprobs(const std::vector<TokenPiece>& tokens, int64_t offset) const;
  nlohmann::ordered_json choice(const Generation& made) const;
  std::string text_chunk(int64_t choice,
                         const std::string& text,
                         nlohmann::ordered_json logprobs,
                         const char* finish) const;
  std::string token_text(int64_t token) const;

  const ApiRequest& request_;
  const ServedModel& model_;
  const std::string id_;
  const int64_t created_;
  int64_t ended_ = 0;
  int64_t completion_tokens_ = 0;
  std::map<int64_t, size_t> sent_;  ///< bytes of text, by choice
  std::map<int64_t, Generation> made_;
};

}  // namespace praetor::serve
