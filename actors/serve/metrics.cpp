#include "actors/serve/metrics.h"

#include "core/base/error.h"

namespace praetor::serve {
namespace {

std::string described(const std::string& name, const char* type, const std::string& help) {
  return str("# HELP ", name, " ", help, "\n# TYPE ", name, " ", type, "\n");
}

std::string one(const std::string& name, const char* type, const std::string& help, int64_t value) {
  return str(described(name, type, help), name, " ", value, "\n");
}

}  // namespace

void Metrics::Histogram::add(Duration took) {
  const double seconds = std::chrono::duration<double>(took).count();
  size_t bucket = 0;
  while (bucket < kBounds.size() && seconds > kBounds[bucket]) ++bucket;
  ++counts[bucket];
  sum += seconds;
}

std::string Metrics::Histogram::text(const std::string& name, const std::string& help) const {
  std::string out = described(name, "histogram", help);
  int64_t below = 0;
  for (size_t i = 0; i < kBounds.size(); ++i) {
    below += counts[i];
    out += str(name, "_bucket{le=\"", kBounds[i], "\"} ", below, "\n");
  }
  below += counts.back();
  out += str(name, "_bucket{le=\"+Inf\"} ", below, "\n", name, "_sum ", sum, "\n");
  return out + str(name, "_count ", below, "\n");
}

void Metrics::answered(const std::string& endpoint, int status) {
  const std::lock_guard lock(mutex_);
  ++answers_[{endpoint, status}];
}

void Metrics::tokens(int64_t prompt, int64_t completion) {
  const std::lock_guard lock(mutex_);
  prompt_tokens_ += prompt;
  completion_tokens_ += completion;
}

void Metrics::first_token(Duration after) {
  const std::lock_guard lock(mutex_);
  first_token_.add(after);
}

void Metrics::whole_answer(Duration after) {
  const std::lock_guard lock(mutex_);
  whole_answer_.add(after);
}

std::string Metrics::text(const EngineLoop::Stats& engine) const {
  const std::lock_guard lock(mutex_);
  std::string out =
      described("praetor_requests_total", "counter", "answers by endpoint and status");
  for (const auto& [key, count] : answers_) {
    out += str("praetor_requests_total{endpoint=\"",
               key.first,
               "\",status=\"",
               key.second,
               "\"} ",
               count,
               "\n");
  }
  const EngineStats& e = engine.engine;
  out +=
      one("praetor_prompt_tokens_total", "counter", "tokens of prompts answered", prompt_tokens_);
  out += one("praetor_completion_tokens_total", "counter", "tokens of answers", completion_tokens_);
  out += one("praetor_requests_running", "gauge", "requests in the engine", engine.running);
  out += one("praetor_requests_queued", "gauge", "calls before the engine", engine.queued);
  out += one("praetor_engine_failures_total", "counter", "steps that threw", engine.failures);
  out += one("praetor_engine_steps_total", "counter", "forward passes", e.steps);
  out += one("praetor_engine_tokens_total", "counter", "tokens sampled", e.tokens);
  out +=
      one("praetor_engine_prefill_rows_total", "counter", "prompt tokens computed", e.prefill_rows);
  out += one("praetor_engine_shared_rows_total",
             "counter",
             "prompt tokens not computed, since another request began alike",
             e.adopted_rows);
  out +=
      one("praetor_engine_preemptions_total", "counter", "responses computed again", e.preemptions);
  out += one("praetor_engine_peak_blocks", "gauge", "most cache blocks in use", e.peak_blocks);
  out +=
      first_token_.text("praetor_first_token_seconds", "from request to the first token streamed");
  return out + whole_answer_.text("praetor_answer_seconds", "from request to the whole answer");
}

}  // namespace praetor::serve
