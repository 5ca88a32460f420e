#include "actors/train/local_roles.h"

#include <limits>

#include "actors/rpc/scorer_client.h"
#include "actors/train/interrupt.h"

namespace praetor {

namespace {

constexpr const char* kName = "colocated";
constexpr int64_t kScoreLease = 256;
constexpr std::chrono::milliseconds kNoWait{0};

}  // namespace

LocalRoles::LocalRoles(WorkerService& controller,
                       const Transformer& policy,
                       const Transformer* companion,
                       const Tokenizer& tokenizer,
                       const StageConfig& stage,
                       const std::filesystem::path& results,
                       std::shared_ptr<const TlsIdentity> scorer_tls,
                       cuda::Device* device)
    : controller_(controller),
      on_gpu_(stage.engine.device == EngineDevice::kCuda),
      engine_(policy, tokenizer, stage.engine, companion, device),
      scorer_(Scorer::make(stage.rewards,
                           [&](const std::string& name) { return results / name; },
                           {.connect = ScorerClient::connector(std::move(scorer_tls))})),
      rollout_(controller, [this](const Lease&) -> Generator& { return engine_; }, {.name = kName}),
      reward_(
          controller, [this](const Lease&) -> Scorer& { return *scorer_; }, kName) {}

void LocalRoles::rest() {
  if (on_gpu_) engine_.release_cache();
}

void LocalRoles::work(bool may_interrupt, const std::function<void(const char*)>& begin_phase) {
  const auto stop = [&] { return may_interrupt && InterruptGuard::requested() != 0; };
  if (begin_phase) begin_phase("rollout");
  while (!stop() && rollout_.work_once(std::numeric_limits<int64_t>::max(), kNoWait, stop)) {
  }
  if (stop()) {
    controller_.leave(kName);
    throw Interrupted{InterruptGuard::requested()};
  }
  if (begin_phase) begin_phase("score");
  while (reward_.work_once(kScoreLease, kNoWait)) {
  }
}

}  // namespace praetor
