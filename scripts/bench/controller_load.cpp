// Loads a controller with workers that have no model: each leases, makes up results, completes.
// Every worker has its own connection and thread, as a process of its own would have; they share
// this process. Prints one JSON line.
//
//   controller_load RUN_DIR [--workers 900] [--scorers 100] [--items 32] [--tokens 256] [--seconds
//   20]
//                           [--think 0] [--wait 5000] [--relays 0] [--stage N]
//
// With --stage the learner's part is played too: step after step of that (online) stage is opened
// and committed as soon as it is scored, so that there is always work.
// With --relays so many relays of the run, started beforehand, stand between.
// RUN_DIR/controller.json says where the controller is, RUN_DIR/secret lets us in. With --fake the
// controller is a child of this program that hands out made-up work without end and records
// nothing: what remains is the cost of the wire. With --idle as well it never has work: what
// remains is the cost of calls that wait.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "actors/rpc/client.h"
#include "actors/rpc/endpoint.h"
#include "actors/rpc/secret.h"
#include "actors/rpc/server.h"
#include "core/base/log.h"

using namespace praetor;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

namespace {

struct Settings {
  std::string run_dir;
  int workers = 900;
  int scorers = 100;
  int64_t items = 32;
  int64_t tokens = 256;
  double seconds = 20;
  int64_t think_ms = 0;    ///< between a lease and its completion, as if it were worked on
  int64_t wait_ms = 5000;  ///< that a request waits for work; 0: it is asked again after a rest
  int relays = 0;          ///< that workers take turns at, as relay-0, relay-1, ...; 0: none
  int64_t stage = -1;      ///< whose steps are opened and committed; -1: by somebody else
  bool fake = false;
  bool idle = false;
};

/// Work without end, and no record of it.
class EndlessWork final : public WorkerService {
 public:
  EndlessWork(std::string run_id, const Settings& settings)
      : run_id_(std::move(run_id)), tokens_(settings.tokens), idle_(settings.idle) {}
  Admission join(const MemberInfo&) override { return {run_id_, "", "", milliseconds(2000)}; }
  Orders heartbeat(const Heartbeat&) override { return Orders::kGoOn; }
  void leave(const std::string&) override {}
  std::optional<Lease> lease(const LeaseRequest& request) override {
    if (idle_) {
      std::this_thread::sleep_for(request.wait);
      return std::nullopt;
    }
    Lease lease;
    lease.id = next_++;
    lease.kind = request.kind;
    lease.time = std::chrono::minutes(1);
    lease.params.max_new_tokens = tokens_;
    for (int64_t i = 0; i < request.max_items; ++i) {
      const SampleId id{lease.id, static_cast<int32_t>(i)};
      if (request.kind == LeaseKind::kGenerate) {
        lease.generate.push_back({id, std::vector<int64_t>(64, 7)});
      } else {
        lease.score.push_back({id, {"a prompt", std::string(1000, 'x'), "{}", tokens_, true}});
      }
    }
    return lease;
  }
  void complete(Completion) override {}
  std::optional<Publication> newer_weights(const NewerWeights&) override { return std::nullopt; }

 private:
  std::string run_id_;
  int64_t tokens_;
  bool idle_;
  std::atomic<int64_t> next_{1};
};

/// The fake's process: serves until its parent is gone or tells it to end.
int serve_fake(const Settings& settings) {
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  const std::string run_id = make_run_id();
  EndlessWork work(run_id, settings);
  ServeOptions options;
  options.run_id = run_id;
  options.secret = make_secret(settings.run_dir);
  RpcServer server({&work, nullptr, nullptr}, options);
  write_endpoint(settings.run_dir, {run_id, server.address(), ::getpid(), 1});
  int signal = 0;
  sigwait(&signals, &signal);
  server.stop(milliseconds(500));
  for (const auto& [method, latency] : server.latencies()) {
    std::fprintf(stderr,
                 "server: %-18s %8ld calls  p50 %.3f ms  p99 %.3f ms  max %.3f ms\n",
                 method.c_str(),
                 static_cast<long>(latency.count),
                 latency.p50_ms,
                 latency.p99_ms,
                 latency.max_ms);
  }
  return 0;
}

/// What /proc says of a process; zeros when it is not of this machine.
struct Usage {
  double cpu_seconds = 0;
  double rss_mb = 0;
  double peak_rss_mb = 0;
  int64_t threads = 0;
};

Usage usage_of(int64_t pid) {
  Usage out;
  const std::string folder = "/proc/" + std::to_string(pid);
  std::ifstream stat(folder + "/stat");
  std::string text((std::istreambuf_iterator<char>(stat)), {});
  if (const size_t name_end = text.rfind(')'); name_end != std::string::npos) {
    std::istringstream rest(text.substr(name_end + 1));
    std::string skipped;
    for (int i = 3; i < 14; ++i) rest >> skipped;
    double user = 0;
    double system = 0;
    rest >> user >> system;
    out.cpu_seconds = (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
  }
  std::ifstream status(folder + "/status");
  for (std::string line; std::getline(status, line);) {
    std::istringstream words(line);
    std::string key;
    double value = 0;
    words >> key >> value;
    if (key == "VmRSS:") out.rss_mb = value / 1024;
    if (key == "VmHWM:") out.peak_rss_mb = value / 1024;
    if (key == "Threads:") out.threads = static_cast<int64_t>(value);
  }
  return out;
}

/// One worker's count of what it did.
struct Tally {
  std::vector<double> lease_ms;  ///< of leases that brought work
  std::vector<double> complete_ms;
  int64_t samples = 0;
  int64_t empty = 0;  ///< leases without work
  std::string error;
};

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

Completion answer(const Lease& lease, const std::string& worker, int64_t tokens) {
  Completion out;
  out.worker = worker;
  out.lease = lease.id;
  out.purpose = lease.purpose;
  out.weights = lease.weights.version;
  for (const GenerateItem& item : lease.generate) {
    Generation made;
    const int64_t count = std::min(tokens, lease.params.max_new_tokens);
    for (int64_t i = 0; i < count; ++i) made.tokens.push_back((item.id.ordinal * 31 + i) % 97);
    made.behavior_logprobs.assign(static_cast<size_t>(count), -1.25f);
    made.model_logprobs.assign(static_cast<size_t>(count), -1.5f);
    made.text.assign(static_cast<size_t>(count) * 4, 'x');
    made.finish = FinishReason::kLength;
    out.rollouts.push_back({item.id, std::move(made)});
  }
  for (const ScoreItem& item : lease.score) {
    Score score;
    score.score = static_cast<double>(item.id.ordinal % 7);
    score.parts.push_back({"load", 1.0, score.score, std::nullopt, "", "", 0.1});
    out.scores.push_back({item.id, std::move(score)});
  }
  return out;
}

/// A worker's life: from joining to `stop`.
void work(const RpcClientOptions& options,
          const Settings& settings,
          const std::string& name,
          LeaseKind kind,
          const std::atomic<bool>& stop,
          Tally& tally) {
  try {
    WorkerClient controller(options);
    const Role role = kind == LeaseKind::kGenerate ? Role::kRollout : Role::kReward;
    const auto incarnation = static_cast<int64_t>(::getpid());
    const Admission admission =
        controller.join({name, role, {kind}, "load", ::getpid(), 0, 1, incarnation});
    auto beat_at = Clock::now();
    for (int64_t number = 1; !stop; ++number) {
      if (Clock::now() >= beat_at) {
        const Orders orders = controller.heartbeat({name, incarnation, true, tally.samples, -1});
        if (orders == Orders::kLeave) break;
        beat_at = Clock::now() + admission.heartbeat;
      }
      auto start = Clock::now();
      const auto lease =
          controller.lease({name, kind, settings.items, number, milliseconds(settings.wait_ms)});
      if (!lease) {
        ++tally.empty;
        if (settings.wait_ms == 0) std::this_thread::sleep_for(milliseconds(200));
        continue;
      }
      tally.lease_ms.push_back(milliseconds_since(start));
      std::this_thread::sleep_for(milliseconds(settings.think_ms));
      Completion completion = answer(*lease, name, settings.tokens);
      const auto samples =
          static_cast<int64_t>(completion.rollouts.size() + completion.scores.size());
      start = Clock::now();
      controller.complete(std::move(completion));
      tally.complete_ms.push_back(milliseconds_since(start));
      tally.samples += samples;
    }
    controller.leave(name);
  } catch (const Error& error) {
    tally.error = error.what();
  }
}

/// The learner's part: no model, no loss, one step after another.
void drive(const RpcClientOptions& options,
           const Settings& settings,
           const std::atomic<bool>& stop,
           std::string& error) {
  try {
    LearnerClient controller(options);
    const auto stage = static_cast<uint32_t>(settings.stage);
    int64_t step = controller.stage_progress(stage).last_step;
    controller.begin_stage(stage, step);
    while (!stop) {
      ++step;
      // A thousandth of the batch: its way to a learner is not what is measured.
      std::optional<StepBatch> batch;
      while (!stop && !batch) {
        controller.open_step(stage, step, {.version = {.stage = stage, .step = step - 1}});
        batch = controller.wait_batch(stage, step, {0, 1000}, milliseconds(1000));
      }
      if (batch) {
        controller.commit_step(
            stage, "{}", {.step = step, .loss_digest = "0", .gradient_digest = "0"});
      }
    }
  } catch (const Error& failure) {
    error = failure.what();
  }
}

nlohmann::ordered_json quantiles(std::vector<double> values) {
  if (values.empty()) return nullptr;
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
  };
  return {{"count", values.size()}, {"p50_ms", at(0.5)}, {"p99_ms", at(0.99)}, {"max_ms", at(1)}};
}

int load(const Settings& settings) {
  log::set_stderr(false);  // a thousand workers that try again are a thousand lines
  const auto endpoint = read_endpoint(settings.run_dir);
  if (!endpoint) throw MissingInput(settings.run_dir, ": no controller.json: none has started");
  RpcClientOptions options;
  options.run_id = endpoint->run_id;
  options.secret = read_secret(settings.run_dir);
  options.resolve = endpoint_resolver(settings.run_dir, endpoint->run_id);
  options.patience = std::chrono::seconds(30);
  if (endpoint->tls) options.tls = read_identity(*endpoint->tls);

  std::atomic<bool> stop{false};
  const auto count = static_cast<size_t>(settings.workers + settings.scorers);
  std::vector<Tally> tallies(count);
  std::vector<std::thread> threads;
  const Usage before = usage_of(endpoint->pid);
  const Usage own_before = usage_of(::getpid());
  const auto start = Clock::now();
  for (size_t i = 0; i < count; ++i) {
    const bool scores = i >= static_cast<size_t>(settings.workers);
    threads.emplace_back([&, i, scores] {
      RpcClientOptions mine = options;
      if (settings.relays > 0) {
        mine.resolve = endpoint_resolver(settings.run_dir,
                                         endpoint->run_id,
                                         str("relay-", i % static_cast<size_t>(settings.relays)));
      }
      work(mine,
           settings,
           str(scores ? "load-reward-" : "load-rollout-", i),
           scores ? LeaseKind::kScore : LeaseKind::kGenerate,
           stop,
           tallies[i]);
    });
  }
  std::string drive_error;
  if (settings.stage >= 0)
    threads.emplace_back([&] { drive(options, settings, stop, drive_error); });
  std::this_thread::sleep_for(std::chrono::duration<double>(settings.seconds));
  const Usage after = usage_of(endpoint->pid);
  const Usage own = usage_of(::getpid());
  stop = true;
  for (std::thread& thread : threads) thread.join();
  const double seconds = milliseconds_since(start) / 1000;

  std::vector<double> leases;
  std::vector<double> completions;
  int64_t samples = 0;
  int64_t empty = 0;
  std::vector<std::string> errors;
  for (const Tally& tally : tallies) {
    leases.insert(leases.end(), tally.lease_ms.begin(), tally.lease_ms.end());
    completions.insert(completions.end(), tally.complete_ms.begin(), tally.complete_ms.end());
    samples += tally.samples;
    empty += tally.empty;
    if (!tally.error.empty()) errors.push_back(tally.error);
  }
  if (!drive_error.empty()) errors.push_back(drive_error);
  nlohmann::ordered_json out = {
      {"case", "controller_load"},
      {"fake", settings.fake},
      {"workers", settings.workers},
      {"scorers", settings.scorers},
      {"items", settings.items},
      {"tokens", settings.tokens},
      {"think_ms", settings.think_ms},
      {"relays", settings.relays},
      {"seconds", seconds},
      {"samples_per_second", static_cast<double>(samples) / seconds},
      {"lease", quantiles(std::move(leases))},
      {"complete", quantiles(std::move(completions))},
      {"empty_leases", empty},
      {"load_cpu_cores", (own.cpu_seconds - own_before.cpu_seconds) / settings.seconds},
      {"controller_cpu_cores", (after.cpu_seconds - before.cpu_seconds) / settings.seconds},
      {"controller_rss_mb", after.rss_mb},
      {"controller_peak_rss_mb", after.peak_rss_mb},
      {"controller_threads", after.threads},
      {"failed_workers", errors.size()},
  };
  if (!errors.empty()) out["first_error"] = errors.front();
  std::printf("%s\n", out.dump().c_str());
  return errors.empty() ? 0 : kExitTemporary;
}

int run(Settings settings) {
  if (!settings.fake) return load(settings);
  std::string folder = (std::filesystem::temp_directory_path() / "praetor-load-XXXXXX").string();
  if (!::mkdtemp(folder.data())) throw IoError("cannot make ", folder);
  settings.run_dir = folder;
  // Before the first use of gRPC, which does not survive a fork.
  const pid_t child = ::fork();
  if (child == 0) {
    int status = kExitBug;
    try {
      status = serve_fake(settings);
    } catch (const std::exception& error) {
      log::error(error.what());
    }
    std::_Exit(status);
  }
  for (int tries = 0; tries < 200 && !read_endpoint(folder); ++tries)
    std::this_thread::sleep_for(milliseconds(50));
  int status = kExitBug;
  try {
    status = load(settings);
  } catch (const Error& error) {
    log::error(error.what());
  }
  ::kill(child, SIGTERM);
  ::waitpid(child, nullptr, 0);
  std::filesystem::remove_all(folder);
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("load on a controller");
  app.add_option("run_dir", settings.run_dir, "the run's folder (not with --fake)");
  app.add_option("--workers", settings.workers, "that generate")->check(CLI::Range(0, 5000));
  app.add_option("--scorers", settings.scorers, "that score")->check(CLI::Range(0, 5000));
  app.add_option("--items", settings.items, "asked for in a lease")->check(CLI::Range(1, 10'000));
  app.add_option("--tokens", settings.tokens, "in a response")->check(CLI::Range(1, 1'000'000));
  app.add_option("--seconds", settings.seconds)->check(CLI::Range(0.1, 3600.0));
  app.add_option("--think", settings.think_ms, "milliseconds of work on a lease")
      ->check(CLI::Range(0, 3'600'000));
  app.add_option("--wait", settings.wait_ms, "milliseconds that a request waits for work")
      ->check(CLI::Range(0, 30'000));
  app.add_option("--relays",
                 settings.relays,
                 "that workers ask, as praetor relay RUN_DIR --name relay-0, relay-1, ...")
      ->check(CLI::Range(0, 1000));
  app.add_option("--stage", settings.stage, "play the learner's part for this online stage")
      ->check(CLI::Range(0, 255));
  app.add_flag("--idle", settings.idle, "with --fake: there is never work");
  app.add_flag("--fake", settings.fake, "a controller of this program's own");
  CLI11_PARSE(app, argc, argv);
  if (settings.run_dir.empty() && !settings.fake) {
    std::fprintf(stderr, "controller_load: RUN_DIR or --fake is needed\n");
    return kExitUsage;
  }
  try {
    return run(settings);
  } catch (const Error& error) {
    log::error(error.what());
    return error.exit_status();
  }
}
