#include "actors/workers/rollout_worker.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace praetor {

namespace {

/// Results handed in together: one durable write for many short samples, few samples at risk.
constexpr size_t kResultsPerCompletion = 16;

/// Voices draw from streams of their own.
Purpose purpose_of(const GenerateItem& item, Purpose lease) {
  if (item.greedy) return Purpose::kGreedy;
  return item.voice.kind == VoiceKind::kPolicy ? lease : Purpose::kOpponent;
}

/// Neighbouring samples of one prompt and voice become one request, so that they share the prompt's
/// cache.
std::vector<GenerationRequest> requests_of(const Lease& lease) {
  std::vector<GenerationRequest> requests;
  for (const GenerateItem& item : lease.generate) {
    const auto index = static_cast<uint32_t>(item.id.sample);
    const Purpose purpose = purpose_of(item, lease.purpose);
    if (!requests.empty()) {
      GenerationRequest& last = requests.back();
      if (last.voice == item.voice && last.key.purpose == purpose &&
          last.key.prompt_ordinal == static_cast<uint64_t>(item.id.ordinal) &&
          last.key.sample_index + static_cast<uint32_t>(last.samples) == index) {
        ++last.samples;
        continue;
      }
    }
    requests.push_back({.prompt = item.prompt,
                        .params = lease.params,
                        .key = {.job_seed = lease.job_seed,
                                .stage = lease.stage,
                                .prompt_ordinal = static_cast<uint64_t>(item.id.ordinal),
                                .sample_index = index,
                                .purpose = purpose},
                        .samples = 1,
                        .voice = item.voice});
    if (item.greedy) requests.back().params.temperature = 0;
  }
  return requests;
}

/// The engine counts from 0, the lease's weights; those that replaced them it names.
void name_versions(std::vector<int64_t>& versions, int64_t lease_step) {
  std::ranges::replace(versions, int64_t{0}, lease_step);
}

/// Hands results in, on the caller's thread or on one of its own.
class Sender {
 public:
  Sender(WorkerService& controller, const Lease& lease, const std::string& worker, bool stream)
      : controller_(controller), lease_(lease), worker_(worker) {
    if (stream) thread_ = std::thread([this] { run(); });
  }
  ~Sender() { stop(); }
  Sender(const Sender&) = delete;
  Sender& operator=(const Sender&) = delete;

  /// @throws what an earlier hand-in threw
  void push(RolloutResult result) {
    const bool streams = thread_.joinable();
    std::unique_lock lock(mutex_);
    if (failure_) std::rethrow_exception(failure_);
    waiting_.push_back(std::move(result));
    if (streams) {
      changed_.notify_one();
    } else if (waiting_.size() >= kResultsPerCompletion) {
      send(std::exchange(waiting_, {}));
    }
  }

  void finish() {
    stop();
    if (failure_) std::rethrow_exception(failure_);
    if (!waiting_.empty()) send(std::exchange(waiting_, {}));
  }

 private:
  void send(std::vector<RolloutResult> results) {
    controller_.complete({.worker = worker_,
                          .lease = lease_.id,
                          .purpose = lease_.purpose,
                          .weights = lease_.weights.version,
                          .rollouts = std::move(results)});
  }

  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return over_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      auto results = std::exchange(waiting_, {});
      lock.unlock();
      try {
        send(std::move(results));
      } catch (...) {
        lock.lock();
        failure_ = std::current_exception();
        return;
      }
      lock.lock();
    }
  }

  void stop() {
    if (!thread_.joinable()) return;
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
      changed_.notify_one();
    }
    thread_.join();
  }

  WorkerService& controller_;
  const Lease& lease_;
  const std::string& worker_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<RolloutResult> waiting_;
  std::exception_ptr failure_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace

bool RolloutWorker::work_once(int64_t max_items,
                              std::chrono::milliseconds wait,
                              const std::function<bool()>& stop) {
  const auto lease = controller_.lease({.worker = options_.name,
                                        .kind = LeaseKind::kGenerate,
                                        .max_items = max_items,
                                        .number = ++requests_,
                                        .wait = wait});
  if (!lease) return false;
  Generator& generator = generator_of_(*lease);
  const std::vector<GenerationRequest> requests = requests_of(*lease);
  Sender sender(controller_, *lease, options_.name, options_.stream);
  generator.generate(requests, [&](Generation&& generation) {
    if (generation.finish == FinishReason::kCancelled) return true;
    const SampleKey& key = requests[static_cast<size_t>(generation.request)].key;
    const SampleId id{static_cast<int64_t>(key.prompt_ordinal),
                      static_cast<int32_t>(key.sample_index) + generation.sample};
    name_versions(generation.versions, lease->weights.version.step);
    sender.push({id, std::move(generation)});
    return !(stop && stop());
  });
  sender.finish();
  return true;
}

}  // namespace praetor
