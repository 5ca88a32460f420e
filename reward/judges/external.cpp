#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/text.h"
#include "reward/judges/registry.h"
#include "reward/judges/scorer_process.h"

namespace praetor {

namespace {

using nlohmann::json;
using std::chrono::milliseconds;

/// Asks a program of the user's, a line of JSON for each sample:
///   {"id": 7, "metadata": {...}, "prompt": "...", "response": "..."}
///   {"id": 7, "score": 0.5}, with "satisfied" (a boolean) and "reason" (a text) if it likes
///   {"id": 7, "error": "..."} for a sample that it cannot judge
/// The same sample gives the same verdict if the program sees to it.
struct ExternalConfig {
  std::vector<std::string> command;
  int64_t processes = 1;  ///< that answer at once, each one sample at a time
  milliseconds start_timeout{60'000};
  double threshold = 0.5;  ///< lowest score that passes where the program does not say
};

/// A few programs, each lent to one thread at a time.
class ScorerPool {
 public:
  explicit ScorerPool(const ExternalConfig& config) {
    for (int64_t i = 0; i < config.processes; ++i)
      idle_.push_back(std::make_unique<ScorerProcess>(config.command, config.start_timeout));
  }

  /// One that nobody else has, for the life of this.
  class Loan {
   public:
    Loan(ScorerPool& pool, const Deadline& deadline) : pool_(pool), scorer_(pool.take(deadline)) {}
    ~Loan() { pool_.give_back(std::move(scorer_)); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;
    ScorerProcess& scorer() { return *scorer_; }

   private:
    ScorerPool& pool_;
    std::unique_ptr<ScorerProcess> scorer_;
  };

 private:
  std::unique_ptr<ScorerProcess> take(const Deadline& deadline) {
    std::unique_lock lock(mutex_);
    while (idle_.empty()) {
      deadline.check();
      returned_.wait_for(lock, milliseconds(10));
    }
    // The last one that was given back: the others need not be started for a few samples.
    auto scorer = std::move(idle_.back());
    idle_.pop_back();
    return scorer;
  }

  void give_back(std::unique_ptr<ScorerProcess> scorer) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(scorer));
    returned_.notify_one();
  }

  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<ScorerProcess>> idle_;
};

class ExternalJudge final : public Judge {
 public:
  explicit ExternalJudge(const ExternalConfig& config)
      : threshold_(config.threshold), pool_(config) {}

  Verdict judge(const Sample& sample, const Deadline& deadline) const override {
    const json metadata = json::parse(sample.metadata, nullptr, false);
    if (!metadata.is_object())
      throw DataError("the metadata is not a JSON object: ", printable(sample.metadata));
    const int64_t id = ++last_id_;
    const json question = {{"id", id},
                           {"metadata", metadata},
                           {"prompt", sample.prompt},
                           {"response", sample.response}};
    ScorerPool::Loan loan(pool_, deadline);
    const std::string line = loan.scorer().ask(question.dump(), deadline);
    const json answer = json::parse(line, nullptr, false);
    if (!answer.is_object() || answer.value("id", json()) != id || !well_formed(answer)) {
      loan.scorer().stop();  // what it says from here on answers nobody knows what
      throw DataError("the scorer answered ",
                      printable(line, 200),
                      "; {\"id\": ",
                      id,
                      ", \"score\": a number} or {\"id\": ",
                      id,
                      ", \"error\": a text} is wanted");
    }
    if (answer.contains("error"))
      throw DataError("the scorer says: ", printable(answer["error"].get<std::string>(), 300));
    const auto score = answer["score"].get<double>();
    return {.score = score,
            .passed = answer.value("satisfied", score >= threshold_),
            .reason = answer.value("reason", "")};
  }

 private:
  static bool well_formed(const json& answer) {
    if (answer.contains("error")) return answer["error"].is_string();
    return answer.contains("score") && answer["score"].is_number() &&
           (!answer.contains("satisfied") || answer["satisfied"].is_boolean()) &&
           (!answer.contains("reason") || answer["reason"].is_string());
  }

  double threshold_;
  mutable ScorerPool pool_;
  mutable std::atomic<int64_t> last_id_ = 0;
};

}  // namespace

std::shared_ptr<const Judge> make_external(YamlReader& in) {
  ExternalConfig config;
  config.command = in.get("command", config.command);
  config.processes = in.get("processes", config.processes, closed(1, 64));
  config.start_timeout = milliseconds(
      in.get("start_timeout_ms", int64_t{config.start_timeout.count()}, closed(1, 3'600'000)));
  config.threshold = in.get("threshold", config.threshold, closed(-1e9, 1e9));
  if (config.command.empty() || config.command[0].empty()) {
    in.error_at("command",
                "a program and its arguments are wanted, as in [python3, scorer.py], or address: "
                "HOST:PORT of a service");
    return nullptr;
  }
  return std::make_shared<ExternalJudge>(config);
}

}  // namespace praetor
