#include "rollout/response.h"

#include <algorithm>
#include <utility>

namespace praetor {

Response::Response(const GenerationRequest& request,
                   int64_t index,
                   int32_t sample,
                   const Tokenizer& tokenizer,
                   int64_t max_tokens,
                   int64_t vocab_size,
                   std::unique_ptr<ProcessorChain> processors,
                   bool streamed)
    : request_(request),
      tokenizer_(tokenizer),
      max_tokens_(max_tokens),
      reshaped_(reshapes(request.params)),
      processors_(std::move(processors)),
      stops_(request.params.stop_strings) {
  made_.request = index;
  made_.sample = sample;
  const auto capacity = static_cast<size_t>(max_tokens);
  made_.tokens.reserve(capacity);
  made_.behavior_logprobs.reserve(capacity);
  made_.model_logprobs.reserve(capacity);
  if (reshaped_) {
    made_.sampled_logprobs.reserve(capacity);
    made_.kept_masses.reserve(capacity);
  }
  const int64_t tops = std::min(request.params.top_logprobs, vocab_size);
  made_.top_logprobs.reserve(capacity * static_cast<size_t>(tops));
  if (request.params.repetition_penalty != 1.0) {
    seen_.emplace(vocab_size);
    for (const int64_t id : request.prompt) seen_->add(id);
  }
  if (stops_.any() || streamed) decoder_.emplace(tokenizer);
}

SampleRow Response::next_row(int64_t logits_row) {
  SampleKey key = request_.key;
  key.sample_index += static_cast<uint32_t>(made_.sample);
  return {.logits_row = logits_row,
          .params = &request_.params,
          .key = key,
          .position = static_cast<uint32_t>(made_.tokens.size()),
          .seen = seen_ ? &*seen_ : nullptr,
          .processors = processors_.get()};
}

bool Response::is_stop(int64_t token) const {
  const auto& stops = request_.params.stop_tokens;
  return !request_.params.ignore_eos && std::find(stops.begin(), stops.end(), token) != stops.end();
}

bool Response::push(const SampledToken& sampled, int64_t version) {
  if (version != 0) {
    made_.versions.resize(made_.tokens.size(), 0);
    made_.versions.push_back(version);
  }
  made_.tokens.push_back(sampled.token);
  made_.behavior_logprobs.push_back(sampled.behavior_logprob);
  made_.model_logprobs.push_back(sampled.model_logprob);
  if (reshaped_) {
    made_.sampled_logprobs.push_back(sampled.sampled_logprob);
    made_.kept_masses.push_back(sampled.kept_mass);
  }
  made_.top_logprobs.insert(made_.top_logprobs.end(), sampled.top.begin(), sampled.top.end());
  if (seen_) seen_->add(sampled.token);
  if (processors_) processors_->push(sampled.token);
  const bool matched = decoder_ && stops_.push(decoder_->push(sampled.token));
  const bool stopped =
      matched || is_stop(sampled.token) || (processors_ && processors_->complete());
  if (!stopped && static_cast<int64_t>(made_.tokens.size()) < max_tokens_) return false;
  // What the decoder still held back may complete a stop string as well.
  const bool matched_at_end = decoder_ && !matched && stops_.push(decoder_->finish());
  end(stopped || matched_at_end ? FinishReason::kStop : FinishReason::kLength);
  return true;
}

void Response::end(FinishReason reason) {
  made_.finish = reason;
  made_.text = decoder_ ? stops_.text() : tokenizer_.decode(made_.tokens);
}

std::string_view Response::new_text() {
  const std::string_view text = stops_.text();
  const size_t from = told_;
  told_ = std::max(from, stops_.certain());
  return text.substr(from, told_ - from);
}

Generation Response::take() {
  return std::move(made_);
}

Generation Response::abandon(FinishReason reason) {
  if (decoder_) stops_.push(decoder_->finish());
  end(reason);
  return take();
}

}  // namespace praetor
