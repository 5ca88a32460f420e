#include "reward/scorer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <thread>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

/// Why no part may look at a sample; empty when it may be scored.
std::string unreadable(const Sample& sample) {
  if (!is_utf8(sample.response)) return "the response is not valid UTF-8";
  if (!is_utf8(sample.prompt)) return "the prompt is not valid UTF-8";
  return "";
}

/// Calls work(i) for i in 0..count-1 on up to `threads` threads, this one included. `work` does not
/// throw.
void for_each_index(size_t count, int threads, const std::function<void(size_t)>& work) {
  std::atomic<size_t> next{0};
  const auto run = [&] {
    for (size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::jthread> helpers;
  const size_t wanted = std::min(count, static_cast<size_t>(threads));
  for (size_t i = 1; i < wanted; ++i) helpers.emplace_back(run);
  run();
}

}  // namespace

std::unique_ptr<Scorer> Scorer::make(
    const RewardConfig& config,
    const std::function<std::filesystem::path(const std::string&)>& stage_result,
    Options options) {
  PRAETOR_CHECK(!config.parts.empty(), "a reward has at least one part");
  std::unique_ptr<Scorer> scorer(new Scorer());
  scorer->config_ = config;
  const auto cores = static_cast<int>(std::thread::hardware_concurrency());
  scorer->threads_ = options.threads > 0 ? options.threads : std::clamp(cores, 1, 4);
  for (const PartConfig& part : config.parts) {
    PRAETOR_CHECK((part.judge != nullptr) != part.model.has_value(),
                  "part ",
                  part.name,
                  " is one of the two");
    std::unique_ptr<RewardModel> model;
    if (part.model) {
      const auto folder =
          part.model->stage.empty() ? part.model->path : stage_result(part.model->stage);
      model = RewardModel::load(folder, *part.model);
    }
    scorer->models_.push_back(std::move(model));
  }
  scorer->reset_counters();
  return scorer;
}

std::vector<Score> Scorer::score(std::span<const Sample> samples) {
  std::vector<std::vector<PartScore>> outcomes(samples.size());
  for (auto& parts : outcomes) {
    for (const PartConfig& config : config_.parts) {
      parts.push_back({.name = config.name, .weight = config.weight});
    }
  }
  run_judges(samples, outcomes);
  run_models(samples, outcomes);
  for (const auto& parts : outcomes) {
    for (size_t p = 0; p < parts.size(); ++p) counters_[p].add(parts[p]);
  }
  std::vector<Score> scores;
  scores.reserve(samples.size());
  for (size_t i = 0; i < samples.size(); ++i) scores.push_back(combine(outcomes[i], i));
  return scores;
}

void Scorer::run_judges(std::span<const Sample> samples,
                        std::vector<std::vector<PartScore>>& outcomes) const {
  const auto judged = [](const PartConfig& part) { return part.judge != nullptr; };
  if (std::ranges::none_of(config_.parts, judged)) return;
  for_each_index(samples.size(), threads_, [&](size_t i) {
    const std::string broken = unreadable(samples[i]);
    for (size_t p = 0; p < config_.parts.size(); ++p) {
      if (!config_.parts[p].judge) continue;
      PartScore& part = outcomes[i][p];
      if (!broken.empty()) {
        part.error = broken;
        continue;
      }
      const auto begin = Clock::now();
      // A thread's body is a border: whatever a judge throws becomes the sample's named error.
      try {
        Verdict verdict =
            config_.parts[p].judge->judge(samples[i], Deadline::after(config_.timeout));
        part.score = verdict.score;
        part.verdict = verdict.passed;
        part.reason = std::move(verdict.reason);
      } catch (const std::exception& failure) {
        part.error = failure.what();
      }
      part.latency_ms = milliseconds_since(begin);
    }
  });
}

void Scorer::run_models(std::span<const Sample> samples,
                        std::vector<std::vector<PartScore>>& outcomes) const {
  for (size_t p = 0; p < models_.size(); ++p) {
    if (!models_[p]) continue;
    std::vector<Sample> readable;
    std::vector<size_t> places;
    for (size_t i = 0; i < samples.size(); ++i) {
      outcomes[i][p].error = unreadable(samples[i]);
      if (!outcomes[i][p].error.empty()) continue;
      readable.push_back(samples[i]);
      places.push_back(i);
    }
    const auto begin = Clock::now();
    const auto results = models_[p]->score(readable);
    const double each =
        readable.empty() ? 0.0 : milliseconds_since(begin) / static_cast<double>(readable.size());
    for (size_t k = 0; k < places.size(); ++k) {
      PartScore& part = outcomes[places[k]][p];
      part.score = results[k].score;
      part.error = results[k].error;
      part.latency_ms = each;
    }
  }
}

Score Scorer::combine(std::vector<PartScore>& parts, size_t sample) const {
  Score out;
  double sum = 0.0;
  bool whole = true;
  for (PartScore& part : parts) {
    if (!part.error.empty()) {
      if (config_.on_error == OnError::kFail) {
        throw DataError("sample ", sample, ": rewards part \"", part.name, "\": ", part.error);
      }
      whole = false;
    } else {
      sum += part.weight * *part.score;
    }
    out.parts.push_back(std::move(part));
  }
  if (whole) {
    out.score = sum;
  } else if (config_.on_error == OnError::kValue) {
    out.score = config_.error_value;
  }
  return out;
}

void Scorer::reset_counters() {
  counters_.clear();
  for (const PartConfig& part : config_.parts) {
    counters_.push_back({.name = part.name, .is_judge = part.judge != nullptr});
  }
}

}  // namespace praetor
