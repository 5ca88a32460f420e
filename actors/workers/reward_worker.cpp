#include "actors/workers/reward_worker.h"

#include <vector>

#include "reward/scorer.h"

namespace praetor {

bool RewardWorker::work_once(int64_t max_items, std::chrono::milliseconds wait) {
  const auto lease = controller_.lease({.worker = name_,
                                        .kind = LeaseKind::kScore,
                                        .max_items = max_items,
                                        .number = ++requests_,
                                        .wait = wait});
  if (!lease) return false;
  std::vector<Sample> samples;
  std::vector<std::vector<Rival>> rivals;
  for (const ScoreItem& item : lease->score) {
    samples.push_back(item.sample);
    rivals.push_back(item.rivals);
  }
  std::vector<Score> scores = scorer_of_(*lease).score(samples, rivals);
  Completion done{.worker = name_,
                  .lease = lease->id,
                  .purpose = lease->purpose,
                  .weights = lease->weights.version};
  for (size_t i = 0; i < scores.size(); ++i)
    done.scores.push_back({lease->score[i].id, std::move(scores[i])});
  controller_.complete(std::move(done));
  return true;
}

}  // namespace praetor
