#include <CLI/CLI.hpp>
#include <memory>

#include "actors/cli/commands.h"
#include "actors/cli/options.h"
#include "actors/train/train_job.h"

namespace praetor::cli {

void add_train(CLI::App& app, int& status) {
  auto options = std::make_shared<TrainOptions>();
  auto* command = app.add_subcommand("train", "Run a job: every stage of a YAML file, in order");
  add_job(*command,
          options->job,
          options->overrides,
          "--set seed=2 --set stages.ppo.sampling.temperature=0.7");
  command
      ->add_option("--resume",
                   options->resume,
                   "never: a new run directory (default); auto: go on with the newest run of this "
                   "name; or the path of a run "
                   "directory or of a checkpoint in one")
      ->type_name("auto|never|PATH");
  command
      ->add_option("--until", options->until, "End after this stage; --resume auto does the rest")
      ->type_name("STAGE");
  command->footer(
      "Prints the run directory first and one line a step on stderr, and {\"run\",\"status\"} on "
      "stdout at the end.\n"
      "Ctrl-C or SIGTERM saves a checkpoint and leaves with 128 + signal; --resume goes on from "
      "it.");
  command->callback([options, &status] { status = train_job(*options); });
}

}  // namespace praetor::cli
