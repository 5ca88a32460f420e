#include "actors/workers/rollout_worker.h"

#include <utility>
#include <vector>

namespace praetor {

namespace {

/// Results handed in together: one durable write for many short samples, few samples at risk.
constexpr size_t kResultsPerCompletion = 16;

/// Neighbouring samples of one prompt become one request, so that they share the prompt's cache.
std::vector<GenerationRequest> requests_of(const Lease& lease) {
  std::vector<GenerationRequest> requests;
  for (const GenerateItem& item : lease.generate) {
    const auto index = static_cast<uint32_t>(item.id.sample);
    if (!requests.empty()) {
      GenerationRequest& last = requests.back();
      if (last.key.prompt_ordinal == static_cast<uint64_t>(item.id.ordinal) &&
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
                                .purpose = Purpose::kPolicy},
                        .samples = 1});
  }
  return requests;
}

}  // namespace

bool RolloutWorker::work_once(int64_t max_items, bool (*stop)()) {
  const auto lease = controller_.lease(name_, LeaseKind::kGenerate, max_items);
  if (!lease) return false;
  const std::vector<GenerationRequest> requests = requests_of(*lease);
  std::vector<RolloutResult> finished;
  const auto hand_in = [&] {
    if (!finished.empty()) controller_.complete(lease->id, std::exchange(finished, {}));
  };
  generator_.generate(requests, [&](Generation&& generation) {
    if (generation.finish == FinishReason::kCancelled) return true;
    const SampleKey& key = requests[static_cast<size_t>(generation.request)].key;
    const SampleId id{static_cast<int64_t>(key.prompt_ordinal),
                      static_cast<int32_t>(key.sample_index) + generation.sample};
    finished.push_back({id, lease->weight_version, std::move(generation)});
    if (finished.size() >= kResultsPerCompletion) hand_in();
    return !(stop && stop());
  });
  hand_in();
  return true;
}

}  // namespace praetor
