#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "actors/cli/commands.h"
#include "actors/train/checkpointing.h"

namespace praetor::cli {

void add_export(CLI::App& app, int&) {
  struct Options {
    std::filesystem::path checkpoint, to;
    bool best = false, adapter = false;
  };
  auto options = std::make_shared<Options>();
  auto* command =
      app.add_subcommand("export", "Write the model of a checkpoint as a Hugging Face folder");
  command
      ->add_option("checkpoint",
                   options->checkpoint,
                   "RUN_DIR/checkpoints/STAGE/step-N, or RUN_DIR: its latest")
      ->required();
  command->add_flag("--best", options->best, "Of RUN_DIR the best one, where the job keeps it");
  command->add_option("--to", options->to, "The folder to make")->required()->type_name("DIR");
  command->add_flag("--adapter",
                    options->adapter,
                    "Only the low-rank adapter, as a folder for Hugging Face's peft");
  command->callback([options] {
    const auto checkpoint = chosen_checkpoint(options->checkpoint, options->best);
    (options->adapter ? export_adapter : export_checkpoint)(checkpoint, options->to);
    std::printf("%s\n", nlohmann::ordered_json{{"folder", options->to.string()}}.dump().c_str());
  });
}

}  // namespace praetor::cli
