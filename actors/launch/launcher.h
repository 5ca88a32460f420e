#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "actors/job/job_config.h"
#include "actors/launch/child_process.h"

namespace praetor {

/// Where and how the learner group and the workers of a run are started: on this machine, on hosts
/// through mpirun, or as steps of a Slurm allocation. It makes commands; the Supervisor runs them,
/// so that everything that is started has a child of ours which stands for it and ends with it.
/// `attempt` counts the starts of one process from 1. One thread.
class Launcher {
 public:
  virtual ~Launcher() = default;

  /// `ranks` processes of `words` as one MPI job (a single one: without MPI).
  virtual ChildCommand learners(const std::vector<std::string>& words,
                                int64_t ranks,
                                int64_t attempt) = 0;
  /// The worker `name`; `number` counts all processes of the run, the learner ranks before it, and
  /// says whose turn it is among the hosts. Another attempt may be on another host.
  virtual ChildCommand worker(const std::string& name,
                              const std::vector<std::string>& words,
                              int64_t number,
                              int64_t attempt) = 0;
  /// Sent to such a child, asks all its processes to save and leave: mpirun passes SIGUSR1 on to
  /// its ranks and srun to its tasks, but both end them at a SIGTERM.
  virtual int end_signal(const std::string& name) const = 0;
  /// Ends what is left, elsewhere, of processes whose child here has ended.
  virtual void clear(const std::vector<std::string>& names) = 0;
  /// Places among which processes take turns, at least 1.
  virtual int64_t places() const = 0;
  /// For the user, at the start: "4 nodes of Slurm job 17".
  virtual std::string describe() const = 0;

  /// That of `launcher.kind`. @throws InvalidArgument for slurm outside of an allocation;
  /// ConfigError when the allocation does not fit the job; MissingInput, TemporaryError of the
  /// tools it needs
  static std::unique_ptr<Launcher> make(const JobConfig& job);
};

/// Names of the learner group, as Launcher and Supervisor call it.
inline constexpr const char* kLearners = "learners";

std::unique_ptr<Launcher> make_local_launcher(const JobConfig& job);
std::unique_ptr<Launcher> make_mpirun_launcher(const JobConfig& job);
std::unique_ptr<Launcher> make_slurm_launcher(const JobConfig& job);

/// What every process of a run has in its environment: idle threads and ranks leave the cores to
/// those that work, and collectives keep to `network.interface`.
std::map<std::string, std::string> role_environment(const JobConfig& job);

/// The words of mpirun that hold for every use: `-n`, and what root and few cores ask for.
std::vector<std::string> mpirun_words(int64_t ranks);

}  // namespace praetor
