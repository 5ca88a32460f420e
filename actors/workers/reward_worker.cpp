#include "actors/workers/reward_worker.h"

#include <vector>

#include "reward/scorer.h"

namespace praetor {

bool RewardWorker::work_once(int64_t max_items) {
  const auto lease = controller_.lease(name_, LeaseKind::kScore, max_items);
  if (!lease) return false;
  std::vector<Sample> samples;
  for (const ScoreItem& item : lease->score) samples.push_back(item.sample);
  std::vector<Score> scores = scorer_.score(samples);
  std::vector<ScoreResult> results;
  for (size_t i = 0; i < scores.size(); ++i)
    results.push_back({lease->score[i].id, std::move(scores[i])});
  controller_.complete(lease->id, std::move(results));
  return true;
}

}  // namespace praetor
