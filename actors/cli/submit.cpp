#include <CLI/CLI.hpp>
#include <memory>

#include "actors/cli/commands.h"
#include "actors/cli/options.h"
#include "actors/train/submit_job.h"

namespace praetor::cli {

void add_submit(CLI::App& app, int& status) {
  auto options = std::make_shared<SubmitOptions>();
  auto* command = app.add_subcommand(
      "submit", "Hand a job to Slurm, as launcher.slurm says; it resumes by itself when requeued");
  add_job(*command,
          options->job,
          options->overrides,
          "--set launcher.slurm.nodes=2 --set launcher.slurm.time=2:00:00");
  command
      ->add_option("--resume",
                   options->resume,
                   "never: a new run directory (default); auto: go on with the newest run of this "
                   "name; or the path of a run directory")
      ->type_name("auto|never|RUN_DIR");
  command->add_flag(
      "--dry-run", options->dry_run, "Print the batch script; make and submit nothing");
  command->footer(
      "Says on stderr how to watch the run; {\"run\",\"jobs\"} goes to stdout. praetor cancel "
      "RUN_DIR "
      "ends it.");
  command->callback([options, &status] { status = submit_job(*options); });
}

}  // namespace praetor::cli
