#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/launch/child_process.h"

namespace praetor {

enum class Restart : uint8_t {
  kNever,
  kOnFailure,  ///< any end but exit status 0
  kAlways,
};

/// A process to keep running. Whatever the policy, an end that is not worth retrying
/// (ExitReport::worth_retrying) is not retried, nor is a third failure of the disk in a row.
struct ProcessSpec {
  std::string name;      ///< unique: "rollout-0", "learners"
  ChildCommand command;  ///< PRAETOR_INCARNATION is added to its environment
  /// Makes argv and environment of each start anew, over those of `command`, where they depend on
  /// what is alive; `attempt` counts from 1. What it throws counts as a start that failed.
  std::function<ChildCommand(int64_t attempt)> renew;
  Restart restart = Restart::kOnFailure;
  int max_restarts = 5;                       ///< within `window`
  std::chrono::milliseconds window{600'000};  ///< 10 minutes
  std::chrono::milliseconds backoff{500};     ///< before the first restart of a window; doubles
  std::chrono::milliseconds max_backoff{30'000};
};

/// What happened, told from within Supervisor's calls. A callback may call kill() and the const
/// functions, nothing else.
struct SupervisorCallbacks {
  std::function<void(const std::string& name, pid_t pid, int64_t incarnation)> started;
  std::function<void(const std::string& name, int64_t incarnation, const ExitReport& report)> died;
  /// It failed and will not be started again.
  std::function<void(const std::string& name, const std::string& why)> gave_up;
};

struct SupervisorOptions {
  int64_t first_incarnation = 1;  ///< of every name; above those of an earlier supervisor
  /// What backoff and window are counted by.
  std::function<std::chrono::steady_clock::time_point()> now = std::chrono::steady_clock::now;
};

/// Keeps the processes of a run on this machine running. One thread. The destructor kills what
/// still runs.
class Supervisor {
 public:
  explicit Supervisor(SupervisorCallbacks callbacks, SupervisorOptions options = {});
  ~Supervisor();
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  /// Starts a process. @throws InvalidArgument for a name in use; what ChildProcess throws
  void add(ProcessSpec spec);

  /// Waits until something happens, at most `timeout`, and a signal ends the wait early. Collects
  /// what has ended, starts what is due, tells the callbacks. @return false when nothing happened
  bool poll(std::chrono::milliseconds timeout);

  /// Kills a process that is hung (SIGKILL to its group); it is then treated as one that failed.
  /// `why` goes into its report. @return false when none of that name runs
  bool kill(const std::string& name, const std::string& why);

  /// Asks one process to end in its own way and time: sends `signal` to its group, and does not
  /// start it again. died() is told when it has ended. @return false when none of that name runs
  bool request_end(const std::string& name, int signal);

  /// Ends one process for good: SIGTERM, SIGKILL after `grace`. died() is told, gave_up() is not.
  void stop(const std::string& name, std::chrono::milliseconds grace, const std::string& why);
  /// The same for all, at the same time; planned restarts are dropped.
  void stop_all(std::chrono::milliseconds grace, const std::string& why = "the run ends");

  bool running(const std::string& name) const;
  /// Runs, or will be started again.
  bool alive(const std::string& name) const;
  /// Of those that run.
  std::vector<std::string> names() const;
  /// Of all that were ever added.
  std::vector<std::string> all_names() const;
  int64_t incarnation(const std::string& name) const;  ///< the latest; 0 for an unknown name
  int64_t restarts() const { return restarts_; }       ///< of all processes

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Process;

  void start(Process& process);
  void tell_if_stuck(Process& process);
  bool collect(Process& process);
  void plan_restart(Process& process, const std::string& how);
  void give_up(Process& process, const std::string& why);
  bool start_due(Process& process);
  Process* find(const std::string& name) const;
  void stop_processes(const std::vector<Process*>& which,
                      std::chrono::milliseconds grace,
                      const std::string& why);

  SupervisorCallbacks callbacks_;
  SupervisorOptions options_;
  std::map<std::string, std::unique_ptr<Process>> processes_;
  int64_t restarts_ = 0;
};

}  // namespace praetor
