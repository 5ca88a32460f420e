#include "actors/train/submit_job.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "actors/job/check.h"
#include "actors/launch/slurm_jobs.h"
#include "actors/launch/slurm_script.h"
#include "actors/train/run_directory.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/log.h"
#include "core/base/text.h"
#include "core/base/program.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

/// The stages that the jobs of a chain end with: each that trains has a job, what lies between goes
/// with the next one. A single job has no such stage.
std::vector<std::string> last_stages(const JobConfig& job) {
  std::vector<std::string> out;
  if (job.launcher.slurm.stages == "chain") {
    for (const StageConfig& stage : job.stages) {
      if (stage.trains() || &stage == &job.stages.back()) out.push_back(stage.name);
    }
  }
  if (out.size() < 2) return {""};
  return out;
}

std::optional<fs::path> earlier_run(const SubmitOptions& options, const JobConfig& job) {
  if (options.resume == "never") return std::nullopt;
  if (options.resume == "auto") return RunDirectory::newest(job.output, job.name);
  if (!fs::exists(fs::path(options.resume) / "resolved.yaml")) {
    throw MissingInput(options.resume,
                       ": not a run directory (give auto, never, or the path of one; the job goes "
                       "on from its newest checkpoint)");
  }
  return fs::path(options.resume);
}

fs::path script_file(const fs::path& run_dir, const std::string& until) {
  return run_dir / (until.empty() ? "slurm.sbatch" : "slurm-" + until + ".sbatch");
}

SlurmScript script_of(const fs::path& run_dir, const std::string& until) {
  return {.run_dir = run_dir,
          .program = own_program(),
          .folder = fs::current_path(),
          .until = until};
}

/// All of a chain, or none.
std::vector<SlurmJob> submit_all(const JobConfig& job, const fs::path& run_dir) {
  std::vector<SlurmJob> jobs;
  try {
    for (const std::string& until : last_stages(job)) {
      SlurmScript script = script_of(run_dir, until);
      if (!jobs.empty()) script.after = jobs.back().id;
      const fs::path file = script_file(run_dir, until);
      write_file_atomic(file, render_slurm_script(job, script));
      jobs.push_back({.id = sbatch(file), .until = until, .script = file});
    }
  } catch (const Error&) {
    for (const SlurmJob& done : jobs) cancel_slurm_job(done.id);
    throw;
  }
  return jobs;
}

void say_where(const fs::path& run_dir, const std::vector<SlurmJob>& jobs) {
  std::string ids;
  for (const SlurmJob& job : jobs) {
    ids += (ids.empty() ? "" : ",") + job.id;
    std::fprintf(stderr,
                 "submitted Slurm job %s%s\n",
                 job.id.c_str(),
                 job.until.empty() ? "" : (": up to stage " + job.until).c_str());
  }
  std::fprintf(stderr,
               "run directory: %s\n"
               "watch: squeue -j %s | praetor status %s | tail -F %s/logs/slurm-%s.log\n"
               "end:   praetor cancel %s\n",
               run_dir.c_str(),
               ids.c_str(),
               run_dir.c_str(),
               run_dir.c_str(),
               jobs.front().id.c_str(),
               run_dir.c_str());
}

/// The jobs that `what` names, and the run directory if it names one.
std::vector<std::string> ids_of(const std::string& what) {
  if (!what.empty() && std::ranges::all_of(what, [](unsigned char c) { return std::isdigit(c); }))
    return {what};
  fs::path run_dir = what;
  if (!fs::exists(what)) {
    throw MissingInput(
        what, ": neither a job file nor a run directory, and no job id, which is a number");
  }
  if (!fs::is_directory(what)) {
    const JobConfig job = JobConfig::load(what);
    const auto newest = RunDirectory::newest(job.output, job.name);
    if (!newest) {
      throw MissingInput(what,
                         ": no run of this job lies in ",
                         fs::absolute(job.output).lexically_normal().string());
    }
    run_dir = *newest;
  }
  std::vector<std::string> out;
  // The last of a chain first, so that none becomes ready to start.
  const std::vector<SlurmJob> jobs = read_slurm_jobs(run_dir);
  for (auto job = jobs.rbegin(); job != jobs.rend(); ++job) out.push_back(job->id);
  return out;
}

}  // namespace

int submit_job(const SubmitOptions& options) {
  std::vector<std::string> overrides = options.overrides;
  overrides.emplace_back("launcher.kind=slurm");
  const JobConfig job = load_checked_job(options.job, overrides);
  const auto earlier = earlier_run(options, job);
  if (options.dry_run) {
    const fs::path run_dir =
        fs::absolute(earlier ? *earlier : RunDirectory::next(job.output, job.name))
            .lexically_normal();
    for (const std::string& until : last_stages(job)) {
      SlurmScript script = script_of(run_dir, until);
      if (until != last_stages(job).front()) script.after = "JOB_BEFORE";
      std::fputs(render_slurm_script(job, script).c_str(), stdout);
    }
    return kExitDone;
  }
  fs::path run_dir;
  {
    // Not locked any more when the job starts, which may be at once.
    const RunDirectory run = earlier ? RunDirectory::open(*earlier)
                                     : RunDirectory::create(job.output,
                                                            job.name,
                                                            {{"job.yaml", read_file(options.job)},
                                                             {"resolved.yaml", job.resolved()}});
    run_dir = fs::absolute(run.path()).lexically_normal();
    if (earlier) write_file_atomic(run_dir / "resolved.yaml", job.resolved());
  }
  std::vector<SlurmJob> jobs;
  try {
    jobs = submit_all(job, run_dir);
  } catch (const Error&) {
    if (!earlier) fs::remove_all(run_dir);
    throw;
  }
  write_slurm_jobs(run_dir, jobs);
  say_where(run_dir, jobs);
  nlohmann::ordered_json ids = nlohmann::ordered_json::array();
  for (const SlurmJob& submitted : jobs) ids.push_back(submitted.id);
  std::printf("%s\n",
              nlohmann::ordered_json{{"run", run_dir.string()}, {"jobs", ids}}.dump().c_str());
  return kExitDone;
}

int cancel_job(const std::string& what) {
  nlohmann::ordered_json out = {{"cancelled", nlohmann::ordered_json::array()},
                                {"ended", nlohmann::ordered_json::array()}};
  for (const std::string& id : ids_of(what))
    out[cancel_slurm_job(id) ? "cancelled" : "ended"].push_back(id);
  std::printf("%s\n", out.dump().c_str());
  return kExitDone;
}

}  // namespace praetor
