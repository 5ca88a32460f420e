#include "actors/roles/separate_run.h"

#include <signal.h>

#include <cstdio>
#include <deque>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "actors/launch/launcher.h"
#include "actors/launch/supervisor.h"
#include "actors/roles/folder_watch.h"
#include "actors/roles/learner_process.h"
#include "actors/roles/log_follower.h"
#include "actors/roles/member.h"
#include "actors/roles/server_place.h"
#include "actors/rpc/endpoint.h"
#include "actors/rpc/secret.h"
#include "actors/train/interrupt.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/program.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kPoll{200};
constexpr milliseconds kAsk{500};       ///< between two questions to the controller
constexpr milliseconds kAnswer{5'000};  ///< for one
constexpr milliseconds kControllerStart{30'000};
constexpr std::uintmax_t kLeastSpace = 1 << 20;  ///< bytes; with less a disk counts as full
constexpr milliseconds kGrace{10'000};           ///< between SIGTERM and SIGKILL
constexpr milliseconds kSaveGrace{600'000};      ///< for learners that save a checkpoint

const char* const kController = "controller";

/// Threads of each of `processes` that take turns on `places` hosts, taken to be as large as this.
int share_of_cores(int64_t threads, int64_t processes, int64_t places) {
  if (threads > 0) return static_cast<int>(threads);
  const auto cores = static_cast<int64_t>(std::thread::hardware_concurrency());
  const int64_t here = (processes + places - 1) / places;
  return static_cast<int>(std::max<int64_t>(1, cores / std::max<int64_t>(1, here)));
}

/// The run as the supervisor holds it.
class SeparateRun {
 public:
  SeparateRun(const JobConfig& job,
              fs::path run_dir,
              std::optional<fs::path> from,
              std::string until)
      : job_(job),
        run_dir_(std::move(run_dir)),
        from_(std::move(from)),
        until_(std::move(until)),
        launcher_(Launcher::make(job)),
        program_(own_program().string()),
        learner_log_(log_of(kLearners)),
        supervisor_({.started = [this](auto& name, auto, auto) { started(name); },
                     .died = [this](auto& name,
                                    auto incarnation,
                                    auto& report) { died(name, incarnation, report); },
                     .gave_up = [this](auto& name, auto& why) { gave_up_[name] = why; }}) {}

  int run() {
    server_place(job_.network);  // throws, if at all, before anything is started
    if (job_.launcher.kind != "local")
      std::fprintf(stderr, "processes start on %s\n", launcher_->describe().c_str());
    make_secret(run_dir_);
    const milliseconds lost_after = milliseconds_of(job_.supervision.lost_after);
    FolderWatch disk(run_dir_, lost_after, lost_after);
    const auto before = read_endpoint(run_dir_);
    start_controller(before ? before->incarnation : 0);
    start_others();
    while (!done_) {
      supervisor_.poll(kPoll);
      learner_log_.pass_on();
      watch();
      if (const auto news = disk.news()) log::warn(*news);
      if (const int signal = InterruptGuard::requested()) return interrupt(signal);
      for (const auto& [name, why] : gave_up_) {
        if (name == kController || name == kLearners || !others_serve(name)) {
          std::fprintf(stderr, "%s: given up (%s); the run ends\n", name.c_str(), why.c_str());
          if (last_status_[name] == kExitIo) tell_of_disk();
          end();
          return std::max(1, last_status_[name]);
        }
        log::warn(str(name, ": given up (", why, "); the others go on"));
      }
      gave_up_.clear();
    }
    end();
    return kExitDone;
  }

 private:
  fs::path log_of(const std::string& name) const { return run_dir_ / "logs" / (name + ".log"); }

  ProcessSpec spec(const std::string& name, std::function<ChildCommand(int64_t)> renew) const {
    ProcessSpec out;
    out.name = name;
    out.command.log_file = log_of(name);
    out.renew = std::move(renew);
    // Nobody leaves before the end, whatever status a launcher has for it.
    out.restart = Restart::kAlways;
    out.max_restarts = static_cast<int>(job_.supervision.restarts);
    return out;
  }

  /// Of the worker that is started as the `index`-th.
  std::string relay_of(int64_t index) const {
    return str("relay-", index / job_.roles.relay_workers);
  }

  void start_controller(int64_t incarnation_before) {
    supervisor_.add(spec(kController, [this](int64_t) {
      return ChildCommand{.argv = {program_, "controller", run_dir_.string()},
                          .environment = role_environment(job_)};
    }));
    const auto end = Clock::now() + kControllerStart;
    for (;;) {
      const auto endpoint = read_endpoint(run_dir_);
      if (endpoint && endpoint->incarnation > incarnation_before) break;
      supervisor_.poll(milliseconds(20));
      if (gave_up_.contains(kController))
        throw TemporaryError("the controller does not start: ", gave_up_[kController]);
      if (Clock::now() > end)
        throw TemporaryError("the controller has not started within ",
                             kControllerStart.count() / 1000,
                             " s; see ",
                             log_of(kController).string());
      if (const int signal = InterruptGuard::requested()) throw Interrupted{signal};
    }
    address_ = RunAddress::of(run_dir_);
    RpcClientOptions options = address_.options(kAnswer, nullptr);
    options.call_time = kAnswer;
    client_ = std::make_unique<SupervisorClient>(options);
    answered_ = Clock::now();
  }

  void start_others() {
    const RolesConfig& roles = job_.roles;
    std::vector<std::string> learner = {program_, "learner", run_dir_.string()};
    if (from_) learner.insert(learner.end(), {"--from", from_->string()});
    if (!until_.empty()) learner.insert(learner.end(), {"--until", until_});
    supervisor_.add(spec(kLearners, [this, learner](int64_t attempt) {
      std::error_code ignored;
      fs::remove(learners_done_file(run_dir_), ignored);
      return launcher_->learners(learner, job_.roles.learner_ranks, attempt);
    }));
    // Workers of both kinds take turns on the hosts, the learners' last.
    int64_t number = roles.learner_ranks;
    const int64_t workers = roles.rollout_workers + roles.reward_workers;
    const int64_t each = roles.relay_workers;
    for (int64_t first = 0; each > 0 && first < workers; first += each) {
      const std::string name = relay_of(first);
      const std::vector<std::string> words = {program_, "relay", run_dir_.string(), "--name", name};
      supervisor_.add(spec(name, [this, name, words, at = number + first](int64_t attempt) {
        return launcher_->worker(name, words, at, attempt);
      }));
    }
    const auto add_workers =
        [&](const std::string& role, int64_t count, int threads, const std::string& serves) {
          for (int64_t i = 0; i < count; ++i) {
            const std::string name = str(role, "-", i);
            std::vector<std::string> words = {program_,
                                              "worker",
                                              "--join",
                                              run_dir_.string(),
                                              "--name",
                                              name,
                                              "--serve",
                                              serves,
                                              "--threads",
                                              str(threads)};
            if (each > 0)
              words.insert(words.end(), {"--relay", relay_of(number - roles.learner_ranks)});
            supervisor_.add(spec(name, [this, name, words, at = number++](int64_t attempt) {
              return launcher_->worker(name, words, at, attempt);
            }));
          }
        };
    add_workers("rollout",
                roles.rollout_workers,
                share_of_cores(roles.rollout_threads, roles.rollout_workers, launcher_->places()),
                roles.reward_workers > 0 ? "generate" : "generate,score");
    add_workers("reward",
                roles.reward_workers,
                share_of_cores(roles.reward_threads, roles.reward_workers, launcher_->places()),
                "score");
  }

  /// A process that finds the disk full cannot write its log either.
  void tell_of_disk() const {
    std::error_code failure;
    const auto space = fs::space(run_dir_, failure);
    if (failure || space.available >= kLeastSpace) return;
    std::fprintf(stderr,
                 "%s: the disk is full; make room, then go on with --resume auto: nothing that was "
                 "recorded is lost\n",
                 run_dir_.c_str());
  }

  void started(const std::string& name) {
    if (name != kController) return;
    answered_ = Clock::now();
    heard_ = false;
  }

  void died(const std::string& name, int64_t incarnation, const ExitReport& report) {
    last_status_[name] = report.exit_status();
    if (name == kLearners && report.success() && fs::exists(learners_done_file(run_dir_))) {
      done_ = true;
      return;
    }
    if (ending_) return;
    std::fprintf(stderr, "%s died: %s\n", name.c_str(), report.text().c_str());
    deaths_.push_back({name, incarnation, report.how()});
  }

  /// Leases of the dead go to others at once. A controller that does not answer hears it later.
  void tell_deaths() {
    while (!deaths_.empty()) {
      const Death& death = deaths_.front();
      const bool learners = death.name == kLearners;
      const int64_t ranks = learners ? job_.roles.learner_ranks : 1;
      try {
        for (int64_t rank = 0; rank < ranks && death.name != kController; ++rank) {
          client_->report_death(
              learners ? str("learner-", rank) : death.name, death.incarnation, death.how);
        }
      } catch (const Error&) {
        return;
      }
      deaths_.pop_front();
    }
  }

  /// Members that give no sign of life, or do not get on, are ended; so is a controller that does
  /// not answer.
  void watch() {
    if (Clock::now() - asked_ < kAsk) return;
    asked_ = Clock::now();
    if (!supervisor_.running(kController)) return;
    RunStatus status;
    try {
      status = client_->status();
      answered_ = Clock::now();
      heard_ = true;
    } catch (const Error& failure) {
      // One that starts reads the ledger first.
      const milliseconds lost_after = milliseconds_of(job_.supervision.lost_after);
      const auto silent = Clock::now() - answered_;
      if (silent > (heard_ ? lost_after : std::max(lost_after, kControllerStart))) {
        supervisor_.kill(kController,
                         str("no answer for ",
                             std::chrono::duration_cast<std::chrono::seconds>(silent).count(),
                             " s"));
      }
      return;
    }
    tell_deaths();
    for (const std::string& prompt : status.set_aside) {
      if (!told_.insert(prompt).second) continue;
      std::fprintf(stderr,
                   "set aside: %s; it ended worker after worker, and the run goes on without it\n",
                   prompt.c_str());
    }
    for (const MemberStatus& member : status.members) {
      if (!member.lost) continue;
      const std::string name = member.info.role == Role::kLearner ? kLearners : member.info.name;
      if (supervisor_.running(name) && supervisor_.incarnation(name) == member.info.incarnation)
        supervisor_.kill(name, str(member.info.name, ": ", member.why));
    }
  }

  /// True when another worker does what `name` did.
  bool others_serve(const std::string& name) const {
    const std::string role = name.substr(0, name.find('-'));
    for (int64_t i = 0; i < 10000; ++i) {
      const std::string other = str(role, "-", i);
      if (supervisor_.incarnation(other) == 0) return false;
      if (other != name && supervisor_.alive(other)) return true;
    }
    return false;
  }

  int interrupt(int signal) {
    std::fprintf(stderr, "interrupted: the learners save a checkpoint\n");
    ending_ = true;
    supervisor_.request_end(kLearners, launcher_->end_signal(kLearners));
    const auto end = Clock::now() + kSaveGrace;
    while (supervisor_.running(kLearners) && Clock::now() < end) {
      supervisor_.poll(kPoll);
      learner_log_.pass_on();
    }
    this->end();
    throw Interrupted{signal};
  }

  void end() {
    ending_ = true;
    learner_log_.pass_on();
    try {
      if (supervisor_.running(kController) && client_) client_->end_run();
    } catch (const Error& failure) {
      log::warn(str("the controller did not hear of the end: ", failure.what()));
    }
    supervisor_.request_end(kController, 0);  // not to be started again
    std::vector<std::string> others;
    for (const std::string& name : supervisor_.all_names()) {
      if (name == kController) continue;
      others.push_back(name);
      supervisor_.request_end(name, launcher_->end_signal(name));
    }
    // The controller leaves once all members have; it stays for those that were started elsewhere.
    const auto late = Clock::now() + kGrace;
    while (!supervisor_.names().empty() && Clock::now() < late) supervisor_.poll(kPoll);
    supervisor_.stop_all(kGrace);
    launcher_->clear(others);
  }

  struct Death {
    std::string name;
    int64_t incarnation = 0;
    std::string how;
  };

  const JobConfig& job_;
  const fs::path run_dir_;
  const std::optional<fs::path> from_;
  const std::string until_;
  const std::unique_ptr<Launcher> launcher_;
  const std::string program_;
  RunAddress address_;
  std::unique_ptr<SupervisorClient> client_;
  LogFollower learner_log_;
  std::deque<Death> deaths_;
  std::set<std::string> told_;  ///< prompts set aside that the user has heard of
  std::map<std::string, std::string> gave_up_;
  std::map<std::string, int> last_status_;
  bool done_ = false, ending_ = false;
  Clock::time_point asked_;
  Clock::time_point answered_;  ///< the controller, last; or when it was started
  bool heard_ = false;          ///< it has answered since
  Supervisor supervisor_;       ///< last: its callbacks use the rest
};

}  // namespace

int run_separate(const JobConfig& job,
                 const fs::path& run_dir,
                 const std::optional<fs::path>& from,
                 const std::string& until) {
  return SeparateRun(job, run_dir, from, until).run();
}

}  // namespace praetor
