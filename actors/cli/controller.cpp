#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "actors/cli/commands.h"
#include "actors/roles/controller_process.h"

namespace praetor::cli {

void add_controller(CLI::App& app, int& status) {
  struct Options {
    std::filesystem::path run;
    std::string advertise;
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "controller",
      "A role that train starts: serves a run to its workers and learners, keeps its account");
  command->add_option("run", options->run, "A run directory with its resolved.yaml")
      ->required()
      ->type_name("RUN_DIR");
  command
      ->add_option("--advertise",
                   options->advertise,
                   "Host that the others reach this process under, in place of network.advertise")
      ->type_name("HOST");
  command->callback(
      [options, &status] { status = run_controller(options->run, options->advertise); });
}

}  // namespace praetor::cli
