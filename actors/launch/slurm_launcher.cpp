#include "actors/launch/slurm_launcher.h"

#include <signal.h>

#include <algorithm>
#include <sstream>

#include "actors/launch/launcher.h"
#include "actors/launch/slurm_allocation.h"
#include "actors/launch/slurm_text.h"
#include "actors/launch/tool.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/text.h"

namespace praetor {

namespace {

/// The nodes of a component that Slurm calls alive now.
std::vector<std::string> ask_living(const SlurmComponent& component) {
  try {
    const ToolResult said = run_tool(
        {"sinfo", "--noheader", "--Node", "--nodes", join(component.nodes, ","), "--format=%N %t"});
    if (said.success()) return living_nodes(component.nodes, said.out);
    log::warn(str("sinfo does not say which nodes are alive: ", said.err));
  } catch (const TemporaryError& failure) {
    log::warn(failure.what());
  }
  return component.nodes;
}

class SlurmLauncher final : public Launcher {
 public:
  SlurmLauncher(const JobConfig& job, SlurmAllocation allocation)
      : job_(job), allocation_(std::move(allocation)) {}

  ChildCommand learners(const std::vector<std::string>& words,
                        int64_t ranks,
                        int64_t attempt) override {
    if (attempt > 1) clear({kLearners});
    return command(learner_step(ask_living(allocation_.components.front()), ranks, heterogeneous()),
                   words);
  }

  ChildCommand worker(const std::string& name,
                      const std::vector<std::string>& words,
                      int64_t number,
                      int64_t attempt) override {
    if (attempt > 1) clear({name});
    return command(
        worker_step(
            name, ask_living(allocation_.components.back()), number, attempt, heterogeneous()),
        words);
  }

  int end_signal(const std::string& /*name*/) const override { return SIGUSR1; }

  /// srun ends its step when it can; one that was killed cannot.
  void clear(const std::vector<std::string>& names) override {
    std::vector<std::string> ids;
    for (const SlurmComponent& component : allocation_.components) ids.push_back(component.job_id);
    try {
      const ToolResult said =
          run_tool({"squeue", "--steps", "--noheader", "--jobs", join(ids, ","), "--format=%i %j"});
      const std::vector<std::string> steps = steps_named(said.out, names);
      if (steps.empty()) return;
      std::vector<std::string> words = {"scancel", "--signal=KILL"};
      words.insert(words.end(), steps.begin(), steps.end());
      run_tool(words);
    } catch (const TemporaryError& failure) {
      log::warn(str("a step may be left over: ", failure.what()));
    }
  }

  int64_t places() const override {
    return static_cast<int64_t>(allocation_.components.back().nodes.size());
  }

  std::string describe() const override {
    size_t nodes = 0;
    for (const SlurmComponent& component : allocation_.components) nodes += component.nodes.size();
    return str(nodes, nodes == 1 ? " node" : " nodes", " of Slurm job ", allocation_.job_id);
  }

 private:
  bool heterogeneous() const { return allocation_.components.size() > 1; }

  ChildCommand command(std::vector<std::string> step, std::vector<std::string> words) const {
    const SlurmConfig& slurm = job_.launcher.slurm;
    if (!slurm.container.empty() && !slurm.program.empty()) words.front() = slurm.program;
    step.insert(step.end(), slurm.container.begin(), slurm.container.end());
    step.insert(step.end(), words.begin(), words.end());
    return {.argv = std::move(step), .environment = role_environment(job_)};
  }

  const JobConfig& job_;
  const SlurmAllocation allocation_;
};

/// What all our steps ask of srun. Steps lie over one another: each may use every core of its node,
/// as `threads` plan, for cores dealt out by --exact would be the same ones for each of them.
std::vector<std::string> step_words(const std::string& name) {
  return {"srun",
          "--job-name=" + name,
          "--overlap",
          "--overcommit",
          "--cpu-bind=none",
          "--input=none",
          "--unbuffered",
          "--kill-on-bad-exit=1"};
}

}  // namespace

std::vector<std::string> learner_step(const std::vector<std::string>& nodes,
                                      int64_t ranks,
                                      bool heterogeneous) {
  const auto count = std::min<size_t>(nodes.size(), static_cast<size_t>(ranks));
  std::vector<std::string> out = step_words(kLearners);
  if (heterogeneous) out.emplace_back("--het-group=0");
  out.push_back(str("--nodes=", count));
  out.push_back(str("--ntasks=", ranks));
  // In place of the batch job's, which is in our environment.
  out.push_back(str("--ntasks-per-node=",
                    (ranks + static_cast<int64_t>(count) - 1) / static_cast<int64_t>(count)));
  out.push_back("--nodelist=" +
                join({nodes.begin(), nodes.begin() + static_cast<std::ptrdiff_t>(count)}, ","));
  out.emplace_back(ranks > 1 ? "--mpi=pmix" : "--mpi=none");
  return out;
}

std::vector<std::string> worker_step(const std::string& name,
                                     const std::vector<std::string>& nodes,
                                     int64_t number,
                                     int64_t attempt,
                                     bool heterogeneous) {
  std::vector<std::string> out = step_words(name);
  if (heterogeneous) out.emplace_back("--het-group=1");
  const auto turn = static_cast<size_t>(number + attempt - 1) % nodes.size();
  for (const std::string& word :
       {std::string("--nodes=1"), std::string("--ntasks=1"), "--nodelist=" + nodes[turn]})
    out.push_back(word);
  out.emplace_back("--mpi=none");
  return out;
}

std::vector<std::string> steps_named(const std::string& squeue_lines,
                                     const std::vector<std::string>& names) {
  std::vector<std::string> out;
  std::istringstream lines(squeue_lines);
  for (std::string id, name; lines >> id >> name;) {
    if (std::ranges::find(names, name) != names.end()) out.push_back(id);
  }
  return out;
}

std::unique_ptr<Launcher> make_slurm_launcher(const JobConfig& job) {
  auto allocation = SlurmAllocation::current();
  if (!allocation) {
    throw InvalidArgument(
        "launcher.kind: slurm: this is no Slurm allocation (SLURM_JOB_ID is not set); submit the "
        "job with: praetor submit JOB.yaml, or get an allocation with salloc first");
  }
  for (const SlurmComponent& component : allocation->components) {
    for (const std::string& node : component.nodes) {
      const bool here = node == allocation->node;
      if (here || !job.network.local_only()) continue;
      throw ConfigError("network.bind",
                        ": \"",
                        job.network.bind,
                        "\" is the loopback, which node ",
                        node,
                        " of this allocation cannot reach: give launcher.slurm.nodes, or "
                        "network.bind: 0.0.0.0");
    }
  }
  return std::make_unique<SlurmLauncher>(job, std::move(*allocation));
}

}  // namespace praetor
