#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "actors/cli/commands.h"
#include "actors/roles/relay_process.h"

namespace praetor::cli {

void add_relay(CLI::App& app, int& status) {
  auto options = std::make_shared<RelayOptions>();
  auto* command = app.add_subcommand(
      "relay",
      "A role that train starts: passes on the calls of many workers to the controller, as few");
  command->add_option("run", options->run_dir, "The directory of a run whose controller runs")
      ->required()
      ->check(CLI::ExistingDirectory)
      ->type_name("RUN_DIR");
  command->add_option("--name", options->name, "Unique in the run; workers join it by --relay NAME")
      ->required();
  command
      ->add_option("--advertise",
                   options->advertise,
                   "Host that workers reach this process under, in place of network.advertise")
      ->type_name("HOST");
  command->callback([options, &status] { status = run_relay(*options); });
}

}  // namespace praetor::cli
