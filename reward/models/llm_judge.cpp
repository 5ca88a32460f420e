#include "reward/models/llm_judge.h"

#include <utility>

#include "core/base/error.h"

namespace praetor {

LlmJudgeConfig LlmJudgeConfig::from_yaml(YamlReader& in) {
  LlmJudgeConfig config;
  config.model = AnswerModelConfig::from_yaml(in);
  config.text =
      TextTemplate::from_yaml(in, "text", {"prompt", "response", "reference", "categories"});
  config.model.positive = in.require_string("positive");
  config.model.negative = in.require_string("negative");
  if (in.has("negative") && config.model.positive == config.model.negative)
    in.error_at("negative", "is the positive answer as well");
  if (config.text.holds("reference")) {
    config.reference = Field::from_yaml(in, "reference", "metadata.reference");
    config.missing = missing_from_yaml(in);
  } else if (in.has("reference")) {
    in.error_at("reference", "has no effect: the text has no {reference}");
    in.get_optional_string("reference");
  }
  if (config.text.holds("categories") && !in.has("categories"))
    in.error_at("", "missing key \"categories\"; the text has {categories}, so a list is wanted");
  if (!config.text.holds("categories") && in.has("categories"))
    in.error_at("categories", "has no effect: the text has no {categories}");
  if (in.has("categories")) {
    for (const std::string& one : in.get("categories", std::vector<std::string>{}))
      config.categories += (config.categories.empty() ? "" : "\n") + one;
  }
  return config;
}

std::unique_ptr<LlmJudge> LlmJudge::load(const std::filesystem::path& folder,
                                         const LlmJudgeConfig& config) {
  return std::unique_ptr<LlmJudge>(new LlmJudge(AnswerModel::load(folder, config.model), config));
}

std::string LlmJudge::question(const Sample& sample, const std::string& reference) const {
  return config_.text.fill({{"prompt", sample.prompt},
                            {"response", sample.response},
                            {"reference", reference},
                            {"categories", config_.categories}});
}

std::vector<BatchResult> LlmJudge::score(std::span<const BatchItem> items) const {
  std::vector<BatchResult> results(items.size());
  std::vector<std::string> questions;
  std::vector<size_t> places;
  for (size_t i = 0; i < items.size(); ++i) {
    const Sample& sample = *items[i].sample;
    std::string reference;
    // As for any other judge, a row that cannot be judged is its sample's error alone.
    try {
      const auto found = config_.reference ? config_.reference->text(sample) : "";
      if (!found) {
        results[i].reason = missing_field(*config_.reference, config_.missing).reason;
        results[i].score = 0.0;
        results[i].not_applicable = true;
        continue;
      }
      reference = *found;
    } catch (const DataError& failure) {
      results[i].error = failure.what();
      continue;
    }
    questions.push_back(question(sample, reference));
    places.push_back(i);
  }
  const auto answers = model_->ask(questions);
  for (size_t k = 0; k < places.size(); ++k) {
    BatchResult& result = results[places[k]];
    result.error = answers[k].error;
    if (!answers[k].probability) continue;
    const double p = *answers[k].probability;
    result.score = p;
    result.verdict = p > 0.5;
    result.reason = str("P(", config_.model.positive, ") = ", p);
  }
  return results;
}

}  // namespace praetor
