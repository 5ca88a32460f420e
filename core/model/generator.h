#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/base/random.h"

namespace praetor {

/// One logit processor of a request (rollout/processors/registry.h).
struct ProcessorSpec {
  std::string kind;
  std::string options = "{}";  ///< JSON object, without needless spaces
  bool operator==(const ProcessorSpec&) const = default;
};

/// The most entries that SamplingParams::top_logprobs may ask for.
constexpr int64_t kMostTopLogprobs = 20;

struct SamplingParams {
  int64_t max_new_tokens = 128;  ///< >= 1
  double temperature = 1.0;      ///< >= 0; 0 is greedy
  int64_t top_k = 0;             ///< 0: off
  double top_p = 1.0;            ///< (0, 1]
  double min_p = 0.0;            ///< [0, 1): relative to the most likely token
  double repetition_penalty =
      1.0;  ///< > 0, CTRL's form (arXiv:1909.05858), over prompt and response
  std::vector<int64_t> stop_tokens;       ///< the stop token is the last token of the response
  std::vector<std::string> stop_strings;  ///< text is cut before the string; tokens and log-probs
                                          ///< keep all up to the token that completed it
  bool ignore_eos = false;                ///< stop_tokens do not stop
  std::vector<ProcessorSpec> processors;  ///< edit the logits, in this order
  int64_t top_logprobs = 0;  ///< most likely tokens reported beside each, at most 20; 0: off
};

/// Whose distribution a response is drawn from, token by token.
enum class VoiceKind : uint8_t {
  kPolicy,
  kCompanion,  ///< the engine's second model alone
  kMixture,    ///< log p = (1 - share) log policy + share log companion + constant
               ///< (arXiv:2312.00886, section 7), both tempered alike
};
struct Voice {
  VoiceKind kind = VoiceKind::kPolicy;
  double share = 0;  ///< of the companion in a mixture, (0, 1)
  bool operator==(const Voice&) const = default;
};

/// One prompt of which `samples` responses are wanted; sample i uses `key` with sample_index =
/// key.sample_index + i.
struct GenerationRequest {
  std::vector<int64_t> prompt;  ///< not empty
  SamplingParams params;
  SampleKey key;
  int32_t samples = 1;
  Voice voice;
};

/// A token that could have stood in a place, and its log-probability there.
struct TopLogprob {
  int64_t token = 0;
  float logprob = 0.0F;  ///< nats, untempered
  bool operator==(const TopLogprob&) const = default;
};

enum class FinishReason : uint8_t { kStop, kLength, kCancelled };
const char* to_string(FinishReason reason);  ///< "stop", "length", "cancelled"

/// One finished response.
struct Generation {
  int64_t request = 0;                   ///< index of the request
  int32_t sample = 0;                    ///< 0 .. samples-1
  std::vector<int64_t> tokens;           ///< the new tokens, stop token included
  std::vector<float> behavior_logprobs;  ///< tempered, before truncation and penalties (untempered
                                         ///< at temperature 0)
  std::vector<float> model_logprobs;     ///< the untempered model's
  std::vector<float> sampled_logprobs;   ///< tempered, penalised, processed, truncated: what was
                                         ///< drawn from; empty when all of these are off
  std::vector<float> kept_masses;        ///< share of the penalised and processed distribution that
                                         ///< truncation kept; empty with sampled_logprobs
  std::vector<TopLogprob>
      top_logprobs;               ///< [R,k], the most likely first, of equal ones the lower
                                  ///< id; k = min(asked for, V); empty when none are asked for
  std::vector<int64_t> versions;  ///< of the weights each token was drawn from; empty where the
                                  ///< generator was never told one
  std::string text;               ///< decoded, cut at a stop string; special tokens left out
  FinishReason finish = FinishReason::kLength;
};

/// Anything that turns prompts into responses: the engine, a remote worker, a test's table.
class Generator {
 public:
  virtual ~Generator() = default;
  /// Generates all requests; `on_finish` is called on the calling thread as each response ends, in
  /// no fixed order. Return false from `on_finish` to cancel what is left.
  virtual void generate(std::span<const GenerationRequest> requests,
                        const std::function<bool(Generation&&)>& on_finish) = 0;
};

}  // namespace praetor
