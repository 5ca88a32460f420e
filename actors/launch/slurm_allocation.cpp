#include "actors/launch/slurm_allocation.h"

#include <cstdlib>

#include "actors/launch/slurm_text.h"
#include "actors/launch/tool.h"
#include "core/base/error.h"
#include "core/base/log.h"

namespace praetor {

std::optional<SlurmAllocation> SlurmAllocation::current(
    const std::function<std::string(const std::string&)>& variable) {
  SlurmAllocation out;
  out.job_id = variable("SLURM_JOB_ID");
  if (out.job_id.empty()) return std::nullopt;
  out.node = variable("SLURMD_NODENAME");
  const std::string size = variable("SLURM_HET_SIZE");
  if (size.empty()) {
    out.components.push_back({out.job_id, expand_host_list(variable("SLURM_JOB_NODELIST"))});
    return out;
  }
  for (int i = 0; i < std::atoi(size.c_str()); ++i) {
    out.components.push_back({variable(str("SLURM_JOB_ID_HET_GROUP_", i)),
                              expand_host_list(variable(str("SLURM_JOB_NODELIST_HET_GROUP_", i)))});
  }
  return out;
}

std::optional<SlurmAllocation> SlurmAllocation::current() {
  return current([](const std::string& name) {
    const char* value = std::getenv(name.c_str());
    return std::string(value ? value : "");
  });
}

std::optional<std::chrono::seconds> slurm_time_left(const std::string& job_id) {
  try {
    const ToolResult said = run_tool({"squeue", "--noheader", "--jobs", job_id, "--format=%L"});
    // A heterogeneous job has a line for each component, all with one end.
    if (said.success()) return parse_slurm_time(said.out.substr(0, said.out.find('\n')));
    log::warn(str("squeue does not say how long the job has: ", said.err));
  } catch (const TemporaryError& failure) {
    log::warn(failure.what());
  }
  return std::nullopt;
}

std::string slurm_job_state(const std::string& job_id) {
  const ToolResult said = run_tool({"squeue", "--noheader", "--jobs", job_id, "--format=%T"});
  return said.success() ? said.out.substr(0, said.out.find('\n')) : "";
}

std::string slurm_requeue(const std::string& job_id) {
  const ToolResult said = run_tool({"scontrol", "requeue", job_id});
  if (said.success()) return "";
  return said.err.empty() ? str("scontrol ended with status ", said.status) : said.err;
}

}  // namespace praetor
