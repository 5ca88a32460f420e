#include <utility>

#include "core/base/error.h"
#include "rollout/grammar/json_schema.h"
#include "rollout/grammar/pattern.h"
#include "rollout/grammar/token_automaton.h"
#include "rollout/processors/registry.h"

// Processors that hold a response to a language: regex, json_schema.

namespace praetor {
namespace {

class Constraint final : public LogitProcessor {
 public:
  Constraint(std::shared_ptr<grammar::TokenAutomaton> automaton,
             std::span<const int64_t> stop_tokens)
      : automaton_(std::move(automaton)), stop_tokens_(stop_tokens), place_(automaton_->start()) {}
  void push(int64_t token) override { place_ = automaton_->advance(std::move(place_), token); }
  void apply(std::span<float> z) override { automaton_->bar(place_, stop_tokens_, z); }
  bool complete() override { return automaton_->complete(place_); }

 private:
  std::shared_ptr<grammar::TokenAutomaton> automaton_;
  std::span<const int64_t> stop_tokens_;
  grammar::TokenAutomaton::Place place_;
};

/// Complaints of `make` begin with `key`.
template <typename Make>
auto naming(const char* key, const Make& make) {
  try {
    return make();
  } catch (const InvalidArgument& failure) {
    throw InvalidArgument(key, ": ", failure.what());
  }
}

BindProcessor bind_language(const char* key, const grammar::ExpressionPtr& expression) {
  const auto nfa = std::make_shared<const grammar::Nfa>(*expression);
  return [key, nfa](ProcessorVocabulary& vocabulary) -> StartProcessor {
    const auto automaton = naming(
        key, [&] { return std::make_shared<grammar::TokenAutomaton>(*nfa, vocabulary.table()); });
    return [automaton](const ProcessedResponse& response) {
      return std::make_unique<Constraint>(automaton, response.stop_tokens);
    };
  };
}

}  // namespace

/// {"pattern": "..."}: the whole response matches (rollout/grammar/pattern.h).
BindProcessor read_regex(ProcessorOptions& in) {
  const std::string pattern = in.text("pattern");
  return naming("pattern", [&] {
    return bind_language("pattern", grammar::parse_pattern(pattern, grammar::Extent::kWhole));
  });
}

/// {"schema": {...}}: the response is JSON that meets the schema (rollout/grammar/json_schema.h).
BindProcessor read_json_schema(ProcessorOptions& in) {
  const auto& schema = in.value("schema");
  return naming("schema",
                [&] { return bind_language("schema", grammar::schema_expression(schema)); });
}

}  // namespace praetor
