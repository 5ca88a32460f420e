#include "reward/models/preference.h"

#include <map>
#include <utility>

#include "core/base/error.h"
#include "core/base/sigmoid.h"
#include "core/base/text.h"

namespace praetor {

namespace {

/// Distinct texts in the order they came, so that what stands in many pairs is read once.
template <typename Key>
class Distinct {
 public:
  size_t place(const Key& key) {
    const auto [found, fresh] = places_.try_emplace(key, places_.size());
    if (fresh) order_.push_back(key);
    return found->second;
  }
  const std::vector<Key>& order() const { return order_; }

 private:
  std::map<Key, size_t> places_;
  std::vector<Key> order_;
};

class GenerativePreference final : public PreferencePart {
 public:
  GenerativePreference(std::unique_ptr<AnswerModel> model, PairQuestion question)
      : model_(std::move(model)), question_(std::move(question)) {}

 private:
  std::vector<AnswerModel::Result> compare(const std::vector<Pair>& pairs) const override {
    Distinct<std::string> questions;
    std::vector<std::pair<size_t, size_t>> places;
    for (const Pair& pair : pairs) {
      const auto ask = [&](const std::string& a, const std::string& b) {
        return questions.place(question_.fill(pair.sample->prompt, a, b));
      };
      const size_t forward = ask(pair.sample->response, *pair.rival);
      places.emplace_back(forward, ask(*pair.rival, pair.sample->response));
    }
    const auto answers = model_->ask(questions.order());
    std::vector<AnswerModel::Result> out;
    for (const auto& [forward, backward] : places) {
      const AnswerModel::Result& ab = answers[forward];
      const AnswerModel::Result& ba = answers[backward];
      AnswerModel::Result& result = out.emplace_back();
      result.error = ab.error.empty() ? ba.error : ab.error;
      if (result.error.empty()) result.probability = symmetrised(*ab.probability, *ba.probability);
    }
    return out;
  }

  std::unique_ptr<AnswerModel> model_;
  PairQuestion question_;
};

class ScalarPreference final : public PreferencePart {
 public:
  explicit ScalarPreference(std::unique_ptr<RewardModel> model) : model_(std::move(model)) {}

 private:
  std::vector<AnswerModel::Result> compare(const std::vector<Pair>& pairs) const override {
    Distinct<std::pair<std::string, std::string>> texts;
    std::vector<std::pair<size_t, size_t>> places;
    for (const Pair& pair : pairs) {
      const size_t own = texts.place({pair.sample->prompt, pair.sample->response});
      places.emplace_back(own, texts.place({pair.sample->prompt, *pair.rival}));
    }
    std::vector<Sample> samples;
    for (const auto& [prompt, response] : texts.order())
      samples.push_back({.prompt = prompt, .response = response});
    const auto rewards = model_->score(samples);
    std::vector<AnswerModel::Result> out;
    for (const auto& [own, other] : places) {
      const RewardModel::Result& a = rewards[own];
      const RewardModel::Result& b = rewards[other];
      AnswerModel::Result& result = out.emplace_back();
      result.error = a.error.empty() ? b.error : a.error;
      if (result.error.empty()) result.probability = sigmoid(*a.score - *b.score);
    }
    return out;
  }

  std::unique_ptr<RewardModel> model_;
};

}  // namespace

double symmetrised(double first_ab, double first_ba) {
  // Exactly 1/2 where the two are equal.
  return 0.5 + 0.5 * (first_ab - first_ba);
}

PreferenceConfig PreferenceConfig::from_yaml(YamlReader& in) {
  PreferenceConfig config;
  const std::string form = in.require_string("form", {"generative", "scalar"});
  if (form == "scalar") config.scalar = RewardModelConfig::from_yaml(in);
  if (form != "generative") return config;
  config.generative = AnswerModelConfig::from_yaml(in);
  config.question = PairQuestion::from_yaml(in);
  config.generative->positive = config.question.answers[0];
  config.generative->negative = config.question.answers[1];
  return config;
}

ModelFolder PreferenceConfig::folder() const {
  if (generative) return generative->folder;
  return scalar ? scalar->folder() : ModelFolder{};
}

std::unique_ptr<PreferencePart> PreferencePart::load(const std::filesystem::path& folder,
                                                     const PreferenceConfig& config) {
  if (config.scalar)
    return std::make_unique<ScalarPreference>(RewardModel::load(folder, *config.scalar));
  return std::make_unique<GenerativePreference>(AnswerModel::load(folder, *config.generative),
                                                config.question);
}

std::vector<BatchResult> PreferencePart::score(std::span<const BatchItem> items) const {
  std::vector<Pair> pairs;
  for (const BatchItem& item : items) {
    for (const Rival& rival : item.rivals) {
      if (is_utf8(rival.response)) pairs.push_back({item.sample, &rival.response});
    }
  }
  const auto answers = compare(pairs);
  std::vector<BatchResult> results(items.size());
  size_t next = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    BatchResult& result = results[i];
    double sum = 0.0;
    for (const Rival& rival : items[i].rivals) {
      const AnswerModel::Result answer =
          is_utf8(rival.response) ? answers[next++]
                                  : AnswerModel::Result{.error = "the response is not valid UTF-8"};
      if (!answer.probability) {
        if (result.error.empty()) result.error = str("rival ", rival.sample, ": ", answer.error);
        continue;
      }
      sum += *answer.probability;
      result.preferences.push_back({rival.sample, *answer.probability});
    }
    if (!result.error.empty()) {
      result.preferences.clear();
      continue;
    }
    result.not_applicable = items[i].rivals.empty();
    const auto count = static_cast<double>(items[i].rivals.size());
    result.score = result.not_applicable ? 0.0 : sum / count;
    if (result.not_applicable) {
      result.reason = "not applicable: there is no rival";
      continue;
    }
    result.verdict = *result.score > 0.5;
    result.reason = str("P = ", *result.score, " over ", count, count == 1 ? " rival" : " rivals");
  }
  return results;
}

}  // namespace praetor
