#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "actors/cli/commands.h"
#include "actors/train/submit_job.h"

namespace praetor::cli {

void add_cancel(CLI::App& app, int& status) {
  auto what = std::make_shared<std::string>();
  auto* command = app.add_subcommand("cancel", "End a job that was handed to Slurm");
  command
      ->add_option("what",
                   *what,
                   "A run directory, a job file (its newest run is meant), or a Slurm job's id")
      ->required()
      ->type_name("RUN_DIR|JOB.yaml|JOBID");
  command->footer(
      "Prints {\"cancelled\",\"ended\"}: the jobs ended now, and those that had ended. What was "
      "trained stays; praetor submit --resume RUN_DIR goes on.");
  command->callback([what, &status] { status = cancel_job(*what); });
}

}  // namespace praetor::cli
