#include "actors/roles/worker_process.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <thread>

#include "actors/job/engine_devices.h"
#include "actors/launch/die_with_parent.h"
#include "actors/roles/weight_receiver.h"
#include "actors/roles/weight_watch.h"
#include "actors/roles/worker_models.h"
#include "actors/rpc/broadcast_client.h"
#include "actors/train/interrupt.h"
#include "actors/train/weight_caster.h"
#include "actors/workers/reward_worker.h"
#include "actors/workers/rollout_worker.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/log_context.h"
#include "core/base/threads.h"
#include "core/cuda/choose.h"
#include "core/cuda/library.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

/// More than an engine works on at once; the controller gives no more than a fair share.
constexpr int64_t kGenerateLease = 65536;
constexpr int64_t kScoreLease = 256;
constexpr std::chrono::milliseconds kWait{20'000};
/// Leases in a row whose weights could not be had.
constexpr int kMostFailures = 3;

/// The loop of one kind of work. Kinds share the process's models, one at a time: two teams of
/// threads on the same cores would only hinder each other.
class Loop {
 public:
  Loop(Member& member, WorkerModels& models, std::mutex& turn)
      : member_(member), models_(models), turn_(turn) {}

  void generate(WorkerService& service, const std::function<bool()>& over) {
    WeightWatch watch(service);
    std::unique_lock<std::mutex> mine;
    RolloutWorker worker(
        service,
        [&](const Lease& lease) -> Generator& {
          mine = std::unique_lock(turn_);
          member_.set_busy(true);
          log::set_step(lease.weights.version.step + (lease.purpose == Purpose::kPolicy ? 1 : 0));
          Engine& engine = models_.engine(lease);
          member_.holds_weights(models_.weight_step());
          engine.set_refresh(models_.goes_on(lease) ? refresh_from(watch) : nullptr);
          if (models_.goes_on(lease)) watch.watch(lease.weights.version);
          return engine;
        },
        {.name = member_.info().name, .stream = true});
    run(over, [&] {
      const Release release{member_, mine};
      const bool worked = worker.work_once(kGenerateLease, kWait, over);
      watch.rest();
      return worked;
    });
  }

  void score(WorkerService& service, const std::function<bool()>& over) {
    std::unique_lock<std::mutex> mine;
    RewardWorker worker(
        service,
        [&](const Lease& lease) -> Scorer& {
          mine = std::unique_lock(turn_);
          member_.set_busy(true);
          log::set_step(lease.weights.version.step + (lease.purpose == Purpose::kPolicy ? 1 : 0));
          return models_.scorer(lease);
        },
        member_.info().name);
    run(over, [&] {
      const Release release{member_, mine};
      const bool worked = worker.work_once(kScoreLease, kWait);
      if (worked) member_.made_progress();
      return worked;
    });
  }

 private:
  /// What an engine asks between two steps.
  std::function<std::optional<int64_t>()> refresh_from(WeightWatch& watch) {
    return [this, &watch]() -> std::optional<int64_t> {
      const auto newer = watch.take();
      if (!newer || !models_.refresh(*newer)) return std::nullopt;
      member_.holds_weights(models_.weight_step());
      return newer->version.step;
    };
  }

  /// At the end of a lease, however it ends.
  struct Release {
    Member& member;
    std::unique_lock<std::mutex>& mine;
    ~Release() {
      if (!mine.owns_lock()) return;
      member.set_busy(false);
      mine.unlock();
    }
  };

  void run(const std::function<bool()>& over, const std::function<bool()>& work_once) {
    int failures = 0;
    while (!over()) {
      try {
        if (work_once()) failures = 0;
      } catch (const CancelledError&) {
        return;
      } catch (const Error& failure) {
        // Weights may be gone, or be on their way again: others may have more luck with the lease.
        const bool of_weights = failure.code() == ErrorCode::kNotFound ||
                                failure.code() == ErrorCode::kDataLoss ||
                                failure.code() == ErrorCode::kPermissionDenied;
        if (!of_weights || ++failures >= kMostFailures) throw;
        log::warn(str("a lease is given back: ", failure.what()));
        member_.rejoin();
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
      }
    }
  }

  Member& member_;
  WorkerModels& models_;
  std::mutex& turn_;
};

/// What a worker receives broadcasts of weights with: its engine's GPU, beside the engine.
struct Receiving {
  Receiving(const PublishConfig& config, const RpcClientOptions& calls, const std::string& name)
      : gpu(cuda::ChosenDevice::take()),
        beside(cuda::Library::instance().open(gpu.place().device())),
        service(calls),
        receiver(service,
                 groups_on(gpu.place().device()),
                 *beside,
                 {.worker = name, .timeout = milliseconds_of(config.timeout)}) {}

  cuda::ChosenDevice gpu;
  std::unique_ptr<cuda::Device> beside;
  BroadcastClient service;
  WeightReceiver receiver;
};

}  // namespace

int run_worker(const WorkerOptions& options) {
  if (started_by_launcher()) die_with_parent();
  const std::string name =
      options.name.empty() ? str("worker-", host_name(), "-", ::getpid()) : options.name;
  log::set_role(name);
  const InterruptGuard guard("");
  const auto interrupted = [] { return InterruptGuard::requested() != 0; };
  // What the job says of patience is known once it has been admitted. One that a person starts
  // says soon that nobody answers; one that a supervisor starts may be earlier than its controller.
  const std::chrono::seconds patience(std::getenv("PRAETOR_INCARNATION") ? 120 : 10);
  const auto generates = std::ranges::find(options.serves, LeaseKind::kGenerate);
  Member member(options.address.options(patience, interrupted),
                {.name = name,
                 .role = generates != options.serves.end() ? Role::kRollout : Role::kReward,
                 .serves = options.serves,
                 .host = host_name(),
                 .pid = ::getpid(),
                 .threads = options.threads,
                 .incarnation = incarnation_of_process()});
  const fs::path run_dir = member.admission().run_dir;
  if (!fs::exists(run_dir / "resolved.yaml")) {
    throw MissingInput(run_dir.string(),
                       ": the run directory cannot be reached from host ",
                       host_name(),
                       "; mount it under the same path");
  }
  const JobConfig job = JobConfig::load(run_dir / "resolved.yaml");
  if (generates != options.serves.end()) require_engine_devices(job);
  set_threads(options.threads);
  const auto over = [&] { return interrupted() || member.dismissed(); };
  const RpcClientOptions calls =
      options.address.options(milliseconds_of(job.supervision.patience), over);
  std::optional<Receiving> receiving;
  if (job.publish.broadcasts() && generates != options.serves.end())
    receiving.emplace(job.publish, calls, name);
  WorkerModels models(
      job,
      {.run_dir = run_dir,
       .scratch = options.scratch.empty()
                      ? fs::temp_directory_path() / str("praetor-", name, "-", ::getpid())
                      : options.scratch,
       .fetch = calls,
       .scorer_tls =
           job.network.own_certificates() ? read_identity(job.network.own_files()) : nullptr,
       .on_step = [&member] { member.made_progress(); },
       .device = receiving ? &receiving->gpu.device() : nullptr,
       .received = receiving ? std::function([&](const Publication& publication) {
         return receiving->receiver.take(publication);
       })
                             : nullptr});

  std::mutex turn;
  Loop loop(member, models, turn);
  WorkerClient service(calls);
  std::exception_ptr failure;
  std::atomic<bool> failed{false};
  const auto ending = [&] { return over() || failed; };
  const auto serve = [&](LeaseKind kind) {
    try {
      kind == LeaseKind::kGenerate ? loop.generate(service, ending) : loop.score(service, ending);
    } catch (...) {
      const std::lock_guard lock(turn);
      if (!failure) failure = std::current_exception();
      failed = true;
    }
  };
  std::vector<std::thread> others;
  for (size_t i = 1; i < options.serves.size(); ++i) others.emplace_back(serve, options.serves[i]);
  serve(options.serves.front());
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
  log::info(member.dismissed() ? "the run is over" : "leaving");
  return interrupted() ? 128 + InterruptGuard::requested() : kExitDone;
}

}  // namespace praetor
