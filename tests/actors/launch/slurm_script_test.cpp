#include "actors/launch/slurm_script.h"

#include "actors/launch/tool.h"
#include "core/base/text.h"
#include "tests/support/catch.h"

namespace praetor {

namespace {

const std::string kStages =
    "name: small\n"
    "stages:\n"
    "  - kind: toy_language\n"
    "    name: language\n";

std::string rendered(const std::string& launcher, SlurmScript script = {}) {
  const JobConfig job = JobConfig::read(YamlDocument::parse(kStages + launcher));
  CHECK(join(job.document->errors(), "\n") == "");
  script.run_dir = "/data/runs/small";
  script.program = "/opt/praetor/bin/praetor";
  script.folder = "/home/me/my jobs";
  return render_slurm_script(job, script);
}

}  // namespace

TEST_CASE("a job that asks for nothing gets Slurm's defaults", "[actors][cpu]") {
  CHECK(rendered("launcher: {kind: slurm}\n") ==
        "#!/bin/bash\n"
        "#SBATCH --job-name=small\n"
        "#SBATCH --output=\"/data/runs/small/logs/slurm-%j.log\"\n"
        "#SBATCH --open-mode=append\n"
        "#SBATCH --chdir=\"/home/me/my jobs\"\n"
        "#SBATCH --nodes=1\n"
        "#SBATCH --ntasks-per-node=1\n"
        "#SBATCH --no-kill\n"
        "#SBATCH --requeue\n"
        "#SBATCH --signal=B:USR1@120\n"
        "\n"
        "# Goes on where an earlier run of this job ended. In place of the shell, so that Slurm's "
        "signals reach it.\n"
        "exec /opt/praetor/bin/praetor train /data/runs/small/resolved.yaml --resume "
        "/data/runs/small\n");
}

TEST_CASE("everything that a job can ask Slurm for stands in the script", "[actors][cpu]") {
  const std::string text = rendered(
      "launcher:\n"
      "  kind: slurm\n"
      "  slurm:\n"
      "    nodes: 4\n"
      "    partition: gpu\n"
      "    constraint: a100&nvlink\n"
      "    memory: 200G\n"
      "    cpus_per_node: 32\n"
      "    gpus_per_node: 8\n"
      "    account: rlhf\n"
      "    qos: high\n"
      "    time: \"1-00:00:00\"\n"
      "    requeue: false\n"
      "    signal: 0\n"
      "    modules: [gcc/12, openmpi/4.1]\n"
      "    environment: {NCCL_DEBUG: WARN, OMP_NUM_THREADS: 8, MOTTO: it's here}\n"
      "    setup: [ulimit -l unlimited]\n"
      "    directives: [--exclusive, --mail-type=END]\n"
      "    workers: {nodes: 2, partition: cpu, cpus_per_node: 16}\n",
      {.until = "ppo", .after = "41"});
  CHECK(text ==
        "#!/bin/bash\n"
        "#SBATCH --job-name=small.ppo\n"
        "#SBATCH --output=\"/data/runs/small/logs/slurm-%j.log\"\n"
        "#SBATCH --open-mode=append\n"
        "#SBATCH --chdir=\"/home/me/my jobs\"\n"
        "#SBATCH --account=rlhf\n"
        "#SBATCH --qos=high\n"
        "#SBATCH --time=1-00:00:00\n"
        "#SBATCH --partition=gpu\n"
        "#SBATCH --constraint=a100&nvlink\n"
        "#SBATCH --nodes=4\n"
        "#SBATCH --ntasks-per-node=1\n"
        "#SBATCH --cpus-per-task=32\n"
        "#SBATCH --gpus-per-node=8\n"
        "#SBATCH --mem=200G\n"
        "#SBATCH --no-kill\n"
        "#SBATCH --no-requeue\n"
        "#SBATCH --dependency=afterok:41\n"
        "#SBATCH --kill-on-invalid-dep=yes\n"
        "#SBATCH --exclusive\n"
        "#SBATCH --mail-type=END\n"
        "#SBATCH hetjob\n"
        "#SBATCH --partition=cpu\n"
        "#SBATCH --nodes=2\n"
        "#SBATCH --ntasks-per-node=1\n"
        "#SBATCH --cpus-per-task=16\n"
        "#SBATCH --no-kill\n"
        "#SBATCH --no-requeue\n"
        "\n"
        "module load gcc/12\n"
        "module load openmpi/4.1\n"
        "export MOTTO='it'\\''s here'\n"
        "export NCCL_DEBUG=WARN\n"
        "export OMP_NUM_THREADS=8\n"
        "ulimit -l unlimited\n"
        "\n"
        "# Goes on where an earlier run of this job ended. In place of the shell, so that Slurm's "
        "signals reach it.\n"
        "exec /opt/praetor/bin/praetor train /data/runs/small/resolved.yaml --resume "
        "/data/runs/small --until ppo\n");
}

TEST_CASE("a quoted word is that word to a shell", "[actors][cpu]") {
  for (const char* word : {"", "plain", "two words", "it's", "$HOME `id` \"x\" \\n", "a\nb"}) {
    CAPTURE(word);
    CHECK(run_tool({"sh", "-c", "printf %s. " + shell_quoted(word)}).out ==
          std::string(word) + ".");
  }
}

}  // namespace praetor
