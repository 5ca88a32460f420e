#include "actors/workers/reward_worker.h"

#include <memory>
#include <optional>
#include <utility>

#include "reward/scorer.h"
#include "tests/support/catch.h"
#include "tests/support/shared_data.h"

namespace praetor {

namespace {

/// Gives one lease and keeps what comes back.
class OneLease final : public WorkerService {
 public:
  explicit OneLease(Lease lease) : lease_(std::move(lease)) {}
  Admission join(const MemberInfo&) override { return {}; }
  Orders heartbeat(const Heartbeat&) override { return Orders::kGoOn; }
  void leave(const std::string&) override {}
  std::optional<Lease> lease(const LeaseRequest&) override {
    return std::exchange(lease_, std::nullopt);
  }
  void complete(Completion completion) override { done = std::move(completion); }
  std::optional<Publication> newer_weights(const NewerWeights&) override { return std::nullopt; }
  std::optional<Completion> done;

 private:
  std::optional<Lease> lease_;
};

}  // namespace

TEST_CASE("a worker compares samples with their rivals and hands the preferences in",
          "[actors][cpu]") {
  const auto document =
      YamlDocument::parse("parts: [{kind: preference, form: scalar, stage: rm, weight: 4}]");
  const RewardConfig config = RewardConfig::from_yaml(document->root());
  document->throw_if_errors();
  const auto scorer =
      Scorer::make(config, [](const std::string&) { return testing::golden("reward/llama"); });
  Lease lease{.id = 1, .kind = LeaseKind::kScore};
  lease.score.push_back({.id = {3, 0},
                         .sample = {.prompt = "Tom", .response = "ran"},
                         .rivals = {{1, "sat and ate"}, {2, "ran"}}});
  lease.score.push_back({.id = {3, 1}, .sample = {.prompt = "Tom", .response = "sat and ate"}});
  OneLease service(std::move(lease));
  RewardWorker worker(
      service, [&](const Lease&) -> Scorer& { return *scorer; }, "w");
  CHECK(worker.work_once(8, std::chrono::milliseconds(0)));
  REQUIRE(service.done);
  REQUIRE(service.done->scores.size() == 2);
  const Score& first = service.done->scores[0].score;
  REQUIRE(first.preferences.size() == 2);
  CHECK(first.preferences[0].rival == 1);
  CHECK(first.preferences[0].probability != 0.5);
  CHECK((first.preferences[1] == Preference{2, 0.5}));
  CHECK(*first.score == 4 * (first.preferences[0].probability + 0.5) / 2);
  CHECK(service.done->scores[1].score.preferences.empty());
  CHECK(service.done->scores[1].score.score == 0.0);
  CHECK_FALSE(worker.work_once(8, std::chrono::milliseconds(0)));
}

}  // namespace praetor
