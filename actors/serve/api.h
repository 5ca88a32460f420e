#pragma once

#include <cstdint>
#include <exception>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "core/model/generator.h"
#include "core/model/model_config.h"
#include "core/tokenizer/tokenizer.h"

namespace praetor::serve {

/// An answer that is an error, in the form of OpenAI's API.
struct ApiError {
  int status = 400;
  std::string message;
  std::string param;  ///< of the request; empty: none in particular
  std::string code;   ///< empty: none
  std::string type = "invalid_request_error";
  std::string body() const;
};

enum class Endpoint { kCompletions, kChat };

/// What a request says, ready for the engine.
struct ApiRequest {
  Endpoint endpoint = Endpoint::kCompletions;
  std::vector<std::vector<int64_t>> prompts;
  SamplingParams params;
  int32_t samples = 1;
  uint64_t seed = 0;
  bool stream = false;
  bool include_usage = false;  ///< a last chunk with the counts of tokens
  bool logprobs = false;

  int64_t prompt_tokens() const;
  /// One for each prompt; their keys are of `seed`.
  std::vector<GenerationRequest> generation_requests() const;
};

/// What the server knows of its model. All is borrowed.
struct ServedModel {
  const ModelConfig& config;
  const Tokenizer& tokenizer;
  std::string name;
  std::string chat_template;  ///< empty: there is none, and chats are refused
};

/// Reads the body of a POST to /v1/completions or /v1/chat/completions. Beside OpenAI's fields:
/// top_k, min_p, repetition_penalty, min_tokens, ignore_eos, stop_token_ids, regex and json_schema.
/// A field that is known and not supported, and one that is not known, are refused by name.
/// @param random_seed  where the request has none
/// @throws ApiError
ApiRequest read_request(Endpoint endpoint,
                        const std::string& body,
                        const ServedModel& model,
                        uint64_t random_seed);

}  // namespace praetor::serve
