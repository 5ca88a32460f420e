#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "actors/cli/commands.h"
#include "actors/roles/learner_process.h"

namespace praetor::cli {

void add_learner(CLI::App& app, int& status) {
  struct Options {
    std::filesystem::path run, from;
    std::string advertise;
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "learner", "A role that train starts: one rank of the learner group (several: under mpirun)");
  command->add_option("run", options->run, "A run directory whose controller runs")
      ->required()
      ->type_name("RUN_DIR");
  command->add_option("--from", options->from, "Go on from this checkpoint, not from the newest")
      ->type_name("CHECKPOINT");
  command
      ->add_option("--advertise",
                   options->advertise,
                   "Host that the workers reach this process under, in place of network.advertise")
      ->type_name("HOST");
  command->callback([options, &status] {
    status = run_learner(options->run, options->from, options->advertise);
  });
}

}  // namespace praetor::cli
