#include "actors/launch/slurm_script.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "core/base/str.h"

namespace praetor {

namespace {

/// Lines of "#SBATCH --key=value"; without a value there is no line.
class Directives {
 public:
  void add(const std::string& line) { text_ += "#SBATCH " + line + "\n"; }
  void add(const std::string& option, const std::string& value) {
    if (!value.empty()) add(str("--", option, "=", value));
  }
  void add(const std::string& option, int64_t value) {
    if (value > 0) add(option, std::to_string(value));
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

/// sbatch takes words in double quotes as a shell does.
std::string directive_quoted(const std::string& word) {
  std::string out = "\"";
  for (const char c : word) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

void add_nodes(Directives& out, const SlurmNodes& nodes) {
  out.add("partition", nodes.partition);
  out.add("constraint", nodes.constraint);
  out.add("nodes", nodes.nodes);
  out.add("ntasks-per-node", 1);  // one batch step and any number of steps that overlap
  out.add("cpus-per-task", nodes.cpus_per_node);
  out.add("gpus-per-node", nodes.gpus_per_node);
  out.add("mem", nodes.memory);
}

std::string directives(const JobConfig& job, const SlurmScript& script) {
  const SlurmConfig& slurm = job.launcher.slurm;
  Directives out;
  out.add("job-name", script.until.empty() ? job.name : job.name + "." + script.until);
  out.add("output", directive_quoted((script.run_dir / "logs" / "slurm-%j.log").string()));
  out.add("open-mode", "append");
  out.add("chdir", directive_quoted(script.folder.string()));
  out.add("account", slurm.account);
  out.add("qos", slurm.qos);
  out.add("time", slurm.time);
  add_nodes(out, slurm.all);
  // A node that is lost takes its steps with it, not the job; without its first node Slurm starts
  // the job again.
  out.add("--no-kill");
  out.add(slurm.requeue ? "--requeue" : "--no-requeue");
  if (slurm.signal > 0) out.add("signal", str("B:USR1@", slurm.signal));
  if (!script.after.empty()) {
    out.add("dependency", "afterok:" + script.after);
    out.add("kill-on-invalid-dep", "yes");
  }
  for (const std::string& directive : slurm.directives) out.add(directive);
  if (slurm.heterogeneous()) {
    out.add("hetjob");
    add_nodes(out, slurm.workers);
    out.add("--no-kill");
    out.add(slurm.requeue ? "--requeue" : "--no-requeue");
  }
  return out.text();
}

}  // namespace

std::string shell_quoted(const std::string& word) {
  const bool plain = !word.empty() && std::ranges::all_of(word, [](unsigned char c) {
    return std::isalnum(c) ||
           std::string_view("_-+=./:,@%").find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (plain) return word;
  std::string out = "'";
  for (const char c : word) {
    c == '\'' ? out += "'\\''" : out += c;
  }
  return out + "'";
}

std::string render_slurm_script(const JobConfig& job, const SlurmScript& script) {
  const SlurmConfig& slurm = job.launcher.slurm;
  std::string out = "#!/bin/bash\n" + directives(job, script) + "\n";
  for (const std::string& module : slurm.modules) out += "module load " + module + "\n";
  for (const auto& [name, value] : slurm.environment)
    out += str("export ", name, "=", shell_quoted(value), "\n");
  for (const std::string& line : slurm.setup) out += line + "\n";
  if (!slurm.modules.empty() || !slurm.environment.empty() || !slurm.setup.empty()) out += "\n";
  out +=
      "# Goes on where an earlier run of this job ended. In place of the shell, so that Slurm's "
      "signals reach it.\n";
  out += str("exec ",
             shell_quoted(script.program.string()),
             " train ",
             shell_quoted((script.run_dir / "resolved.yaml").string()),
             " --resume ",
             shell_quoted(script.run_dir.string()));
  if (!script.until.empty()) out += " --until " + shell_quoted(script.until);
  return out + "\n";
}

}  // namespace praetor
