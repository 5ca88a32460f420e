#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "actors/cli/commands.h"
#include "actors/roles/controller_process.h"

namespace praetor::cli {

void add_controller(CLI::App& app, int& status) {
  auto run_dir = std::make_shared<std::filesystem::path>();
  auto* command = app.add_subcommand(
      "controller",
      "A role that train starts: serves a run to its workers and learners, keeps its account");
  command->add_option("run", *run_dir, "A run directory with its resolved.yaml")
      ->required()
      ->type_name("RUN_DIR");
  command->callback([run_dir, &status] { status = run_controller(*run_dir); });
}

}  // namespace praetor::cli
