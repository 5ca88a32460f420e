#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "actors/cli/commands.h"
#include "actors/roles/learner_process.h"

namespace praetor::cli {

void add_learner(CLI::App& app, int& status) {
  auto options = std::make_shared<LearnerOptions>();
  auto* command = app.add_subcommand(
      "learner",
      "A role that train starts: one rank of the learner group (several: under mpirun or srun)");
  command->add_option("run", options->run_dir, "A run directory whose controller runs")
      ->required()
      ->type_name("RUN_DIR");
  command->add_option("--from", options->from, "Go on from this checkpoint, not from the newest")
      ->type_name("CHECKPOINT");
  command->add_option("--until", options->until, "The last stage to run")->type_name("STAGE");
  command
      ->add_option("--advertise",
                   options->advertise,
                   "Host that the workers reach this process under, in place of network.advertise")
      ->type_name("HOST");
  command->callback([options, &status] { status = run_learner(*options); });
}

}  // namespace praetor::cli
