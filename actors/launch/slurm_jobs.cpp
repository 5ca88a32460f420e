#include "actors/launch/slurm_jobs.h"

#include <nlohmann/json.hpp>

#include "actors/launch/slurm_allocation.h"
#include "actors/launch/tool.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

/// Runs one of Slurm's programs.
ToolResult ask_slurm(const std::vector<std::string>& argv) {
  try {
    return run_tool(argv);
  } catch (const MissingInput&) {
    throw MissingInput(argv[0],
                       ": no such program in PATH; this is done on a machine that belongs to a "
                       "Slurm cluster, such as its login node (praetor submit --dry-run prints the "
                       "batch script anywhere)");
  }
}

fs::path jobs_file(const fs::path& run_dir) {
  return run_dir / "slurm.json";
}

}  // namespace

std::string sbatch(const fs::path& script) {
  const ToolResult said = ask_slurm({"sbatch", "--parsable", script.string()});
  // "ID" or "ID;CLUSTER"
  std::string id = said.out.substr(0, said.out.find(';'));
  if (said.success() && !id.empty()) return id;
  throw ConfigError(
      "Slurm does not take the job:\n",
      said.err.empty() ? str("sbatch ended with status ", said.status) : said.err,
      "\nlauncher.slurm says what was asked for (praetor submit --dry-run prints it); "
      "sinfo lists partitions and nodes, sacctmgr show assoc user=$USER accounts");
}

void write_slurm_jobs(const fs::path& run_dir, const std::vector<SlurmJob>& jobs) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const SlurmJob& job : jobs)
    list.push_back({{"id", job.id}, {"until", job.until}, {"script", job.script.string()}});
  write_file_atomic(jobs_file(run_dir), nlohmann::ordered_json{{"jobs", list}}.dump(1) + "\n");
}

std::vector<SlurmJob> read_slurm_jobs(const fs::path& run_dir) {
  const fs::path file = jobs_file(run_dir);
  if (!fs::exists(file)) {
    throw MissingInput(run_dir.string(),
                       ": no Slurm job of this run is known (no slurm.json); praetor submit makes "
                       "one");
  }
  try {
    const auto json = nlohmann::json::parse(read_file(file, 1 << 20));
    std::vector<SlurmJob> out;
    for (const auto& job : json.at("jobs")) {
      out.push_back({job.at("id").get<std::string>(),
                     job.at("until").get<std::string>(),
                     job.at("script").get<std::string>()});
    }
    return out;
  } catch (const nlohmann::json::exception& error) {
    throw DataError(file.string(), ": ", printable(error.what(), 200));
  }
}

bool cancel_slurm_job(const std::string& id) {
  ask_slurm({"squeue", "--version"});
  if (slurm_job_state(id).empty()) return false;
  const ToolResult said = ask_slurm({"scancel", id});
  if (!said.success()) throw TemporaryError("scancel ", id, ": ", said.err);
  return true;
}

}  // namespace praetor
