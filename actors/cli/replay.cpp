#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "actors/cli/commands.h"
#include "actors/train/train_job.h"
#include "core/base/error.h"

namespace praetor::cli {

namespace {

struct Options {
  std::filesystem::path run;
  std::string stage;
  int64_t step = 0;
};

}  // namespace

void add_replay(CLI::App& app, int& status) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "replay",
      "Train one recorded step again and compare the digests of its losses and gradients");
  command->add_option("run", options->run, "A run directory")->required()->type_name("RUN_DIR");
  command->add_option("--step", options->step, "The step, counted from 1")
      ->required()
      ->check(CLI::PositiveNumber);
  command->add_option(
      "--stage", options->stage, "Name of the stage (default: the last one that has steps)");
  command->footer("Nothing of the run is changed. Status 0: the same digests; 3: others.");
  command->callback([options, &status] {
    const Replayed replayed = replay_job(options->run, options->stage, options->step);
    const nlohmann::ordered_json out = {
        {"stage", replayed.stage},
        {"step", replayed.step},
        {"identical", replayed.identical()},
        {"loss_digest", replayed.loss_digest},
        {"gradient_digest", replayed.gradient_digest},
        {"recorded_loss_digest", replayed.recorded_loss_digest},
        {"recorded_gradient_digest", replayed.recorded_gradient_digest}};
    std::printf("%s\n", out.dump().c_str());
    if (!replayed.identical()) status = kExitGoalMissed;
  });
}

}  // namespace praetor::cli
