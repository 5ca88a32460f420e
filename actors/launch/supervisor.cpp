#include "actors/launch/supervisor.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "core/base/error.h"
#include "core/base/log.h"

namespace praetor {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

struct Supervisor::Process {
  ProcessSpec spec;
  int64_t incarnation = 0;
  int64_t attempts = 0;                 // of starts
  std::unique_ptr<ChildProcess> child;  // while it runs
  std::optional<Time> due;              // of a planned restart
  std::deque<Time> restarts;            // within the window
  int disk_failures = 0;                // one after another
  std::optional<Time> killed;           // by kill(), and it has not ended yet
  bool stopping = false;
};

namespace {

/// A disk that failed so often in a row is full, or gone for longer than we wait.
constexpr int kDiskTries = 3;

/// How long a killed process may take to end before we speak of it.
constexpr milliseconds kKillPatience{3'000};

/// One of its threads is in a call that no signal can end.
bool waits_in_kernel(pid_t pid) {
  std::error_code gone;
  for (const auto& thread :
       std::filesystem::directory_iterator(str("/proc/", pid, "/task"), gone)) {
    std::ifstream file(thread.path() / "stat");
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const size_t name_end = text.rfind(')');  // PID (NAME) STATE
    if (name_end != std::string::npos && text.substr(name_end + 1, 2) == " D") return true;
  }
  return false;
}

milliseconds until(steady_clock::time_point end, steady_clock::time_point now) {
  return std::max(milliseconds(0), std::chrono::ceil<milliseconds>(end - now));
}

/// Waits until one of the processes ends. @return false when a signal came first
bool wait_for_any(const std::vector<int>& handles, milliseconds timeout) {
  std::vector<pollfd> wanted;
  for (const int handle : handles) {
    if (handle >= 0) wanted.push_back({handle, POLLIN, 0});
  }
  // A kernel without such handles is asked often.
  if (wanted.size() < handles.size()) timeout = std::min(timeout, milliseconds(10));
  timeout = std::min(timeout, milliseconds(1'000'000));
  return ::poll(wanted.data(), wanted.size(), static_cast<int>(timeout.count())) >= 0 ||
         errno != EINTR;
}

}  // namespace

Supervisor::Supervisor(SupervisorCallbacks callbacks, SupervisorOptions options)
    : callbacks_(std::move(callbacks)), options_(std::move(options)) {}

Supervisor::~Supervisor() {
  // All at once: each destructor then waits for its own alone.
  for (const auto& [name, process] : processes_) {
    if (process->child) process->child->kill("who started it is done with it");
  }
}

void Supervisor::add(ProcessSpec spec) {
  if (spec.name.empty() || alive(spec.name))
    throw InvalidArgument("supervisor: \"", spec.name, "\" names a process already");
  std::unique_ptr<Process>& place = processes_[spec.name];
  auto fresh = std::make_unique<Process>();
  fresh->incarnation = place ? place->incarnation : options_.first_incarnation - 1;
  fresh->spec = std::move(spec);
  place = std::move(fresh);
  start(*place);
}

void Supervisor::start(Process& process) {
  ++process.incarnation;
  process.due.reset();
  ChildCommand command = process.spec.command;
  if (process.spec.renew) {
    ChildCommand fresh = process.spec.renew(++process.attempts);
    command.argv = std::move(fresh.argv);
    command.environment.merge(fresh.environment);
  }
  command.environment["PRAETOR_INCARNATION"] = std::to_string(process.incarnation);
  process.child = std::make_unique<ChildProcess>(std::move(command));
  if (callbacks_.started)
    callbacks_.started(process.spec.name, process.child->pid(), process.incarnation);
}

bool Supervisor::poll(milliseconds timeout) {
  const auto end = steady_clock::now() + timeout;
  for (;;) {
    for (const auto& [name, process] : processes_) tell_if_stuck(*process);
    bool happened = false;
    for (const auto& [name, process] : processes_) happened |= collect(*process);
    for (const auto& [name, process] : processes_) happened |= start_due(*process);
    if (happened) return true;
    milliseconds wait = until(end, steady_clock::now());
    if (wait.count() == 0) return false;
    std::vector<int> handles;
    for (const auto& [name, process] : processes_) {
      if (process->child) handles.push_back(process->child->wait_handle());
      if (process->due) wait = std::min(wait, until(*process->due, options_.now()));
    }
    if (!wait_for_any(handles, wait)) return false;
  }
}

void Supervisor::tell_if_stuck(Process& process) {
  if (!process.child || !process.killed || options_.now() < *process.killed + kKillPatience) return;
  const pid_t pid = process.child->pid();
  log::warn(str(process.spec.name,
                " (process ",
                pid,
                ") was killed and does not end",
                waits_in_kernel(pid) ? ": it waits in the kernel, as for a disk or a network file "
                                       "system that does not answer; it ends once that does"
                                     : ""));
  process.killed.reset();
}

bool Supervisor::collect(Process& process) {
  if (!process.child || !process.child->poll()) return false;
  const ExitReport report = *process.child->poll();
  process.child.reset();
  process.killed.reset();
  if (callbacks_.died) callbacks_.died(process.spec.name, process.incarnation, report);
  if (process.stopping || (report.success() && process.spec.restart != Restart::kAlways))
    return true;
  const bool disk = report.exit_status() == kExitIo;
  process.disk_failures = disk ? process.disk_failures + 1 : 0;
  if (!report.worth_retrying() || process.disk_failures >= kDiskTries) {
    give_up(process, report.how() + ": another try would end alike");
  } else if (process.spec.restart == Restart::kNever) {
    give_up(process, report.how());
  } else {
    plan_restart(process, report.how());
  }
  return true;
}

void Supervisor::plan_restart(Process& process, const std::string& how) {
  const ProcessSpec& spec = process.spec;
  const Time now = options_.now();
  while (!process.restarts.empty() && process.restarts.front() + spec.window <= now)
    process.restarts.pop_front();
  const auto count = static_cast<int>(process.restarts.size());
  if (count >= spec.max_restarts) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(spec.window).count();
    give_up(process, str(how, ", after ", count, " restarts within ", seconds, " s"));
    return;
  }
  milliseconds delay = spec.backoff;
  for (int i = 0; i < count && delay < spec.max_backoff; ++i) delay *= 2;
  process.due = now + std::min(delay, spec.max_backoff);
}

void Supervisor::give_up(Process& process, const std::string& why) {
  process.due.reset();
  if (callbacks_.gave_up) callbacks_.gave_up(process.spec.name, why);
}

bool Supervisor::start_due(Process& process) {
  if (!process.due || options_.now() < *process.due) return false;
  process.restarts.push_back(options_.now());
  ++restarts_;
  try {
    start(process);
  } catch (const Error& failure) {
    // As if it had died at once: a full process table passes, a program that is gone does not.
    ExitReport report;
    report.status = failure.exit_status();
    if (report.worth_retrying()) {
      log::warn(process.spec.name + ": " + failure.what());
      plan_restart(process, failure.what());
    } else {
      give_up(process, failure.what());
    }
  }
  return true;
}

bool Supervisor::kill(const std::string& name, const std::string& why) {
  Process* process = find(name);
  if (!process || !process->child) return false;
  process->child->kill(why);
  process->killed = options_.now();
  return true;
}

bool Supervisor::request_end(const std::string& name, int signal) {
  Process* process = find(name);
  if (!process) return false;
  process->stopping = true;
  process->due.reset();
  if (!process->child) return false;
  process->child->signal(signal);
  return true;
}

void Supervisor::stop(const std::string& name, milliseconds grace, const std::string& why) {
  if (Process* process = find(name)) stop_processes({process}, grace, why);
}

void Supervisor::stop_all(milliseconds grace, const std::string& why) {
  std::vector<Process*> all;
  for (const auto& [name, process] : processes_) all.push_back(process.get());
  stop_processes(all, grace, why);
}

void Supervisor::stop_processes(const std::vector<Process*>& which,
                                milliseconds grace,
                                const std::string& why) {
  const auto wait_until = [&](steady_clock::time_point end) {
    for (;;) {
      std::vector<int> handles;
      for (Process* process : which) {
        collect(*process);
        if (process->child) handles.push_back(process->child->wait_handle());
      }
      const milliseconds left = until(end, steady_clock::now());
      if (handles.empty() || left.count() == 0) return;
      wait_for_any(handles, left);
    }
  };
  for (Process* process : which) {
    process->stopping = true;
    process->due.reset();
    collect(*process);
    if (process->child) process->child->ask_to_end(why);
  }
  wait_until(steady_clock::now() + grace);
  for (Process* process : which) {
    if (process->child) {
      process->child->kill(str(why, "; SIGTERM had not ended it after ", grace.count(), " ms"));
    }
  }
  wait_until(steady_clock::now() + milliseconds(10'000));
}

Supervisor::Process* Supervisor::find(const std::string& name) const {
  const auto found = processes_.find(name);
  return found == processes_.end() ? nullptr : found->second.get();
}

bool Supervisor::running(const std::string& name) const {
  const Process* process = find(name);
  return process && process->child;
}

bool Supervisor::alive(const std::string& name) const {
  const Process* process = find(name);
  return process && (process->child || process->due);
}

std::vector<std::string> Supervisor::names() const {
  std::vector<std::string> out;
  for (const auto& [name, process] : processes_) {
    if (process->child) out.push_back(name);
  }
  return out;
}

std::vector<std::string> Supervisor::all_names() const {
  std::vector<std::string> out;
  for (const auto& [name, process] : processes_) out.push_back(name);
  return out;
}

int64_t Supervisor::incarnation(const std::string& name) const {
  const Process* process = find(name);
  return process ? process->incarnation : 0;
}

}  // namespace praetor
