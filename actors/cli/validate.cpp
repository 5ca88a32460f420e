#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "actors/cli/commands.h"
#include "actors/cli/options.h"
#include "actors/job/check.h"
#include "actors/job/cluster.h"
#include "actors/job/plan.h"
#include "core/base/error.h"
#include "core/base/log.h"

namespace praetor::cli {

namespace {

struct Options {
  std::filesystem::path file;
  std::vector<std::string> overrides;
  bool plan = false;
  std::filesystem::path cluster;  ///< empty: none
  bool resolved = false;
};

void print_job(const JobConfig& job) {
  std::printf("job %s: seed %llu, %s, %zu stage%s, output %s/%s\n",
              job.name.c_str(),
              static_cast<unsigned long long>(job.seed),
              job.placement.c_str(),
              job.stages.size(),
              job.stages.size() == 1 ? "" : "s",
              job.output.c_str(),
              job.name.c_str());
  for (const StageConfig& stage : job.stages) {
    std::printf("  %u %s (%s)", stage.index, stage.name.c_str(), stage.kind.c_str());
    if (stage.trains()) {
      const Source& from = stage.model.source;
      const std::string model = stage.model.create  ? "new weights"
                                : from.from_stage() ? "the result of " + from.stage
                                                    : from.path.string();
      const Source& data = stage.data.train;
      const std::string train =
          data.from_stage() ? data.file + " of " + data.stage : data.path.string();
      std::printf(": from %s, on %s, ", model.c_str(), train.c_str());
      stage.steps ? std::printf("%lld steps", static_cast<long long>(*stage.steps))
                  : std::printf("%lld epoch%s",
                                static_cast<long long>(stage.epochs.value_or(1)),
                                stage.epochs.value_or(1) == 1 ? "" : "s");
    }
    std::printf("\n");
  }
}

int validate(const Options& options) {
  try {
    const JobConfig job = load_checked_job(options.file, options.overrides);
    if (options.resolved) {
      std::fputs(job.resolved().c_str(), stdout);
      return kExitDone;
    }
    print_job(job);
    for (const std::string& note : notes_on(job)) log::warn(note);
    if (!options.plan && options.cluster.empty()) return kExitDone;
    const std::vector<StagePlan> plan = plan_job(job);
    std::fputs(plan_text(plan).c_str(), stdout);
    if (!options.cluster.empty())
      std::fputs(cluster_text(plan, ClusterConfig::load(options.cluster)).c_str(), stdout);
    return kExitDone;
  } catch (const ConfigError& failure) {
    // Lines start with file:line:column, as editors and scripts expect, so main's prefix is left
    // out.
    std::fprintf(stderr, "%s\n", failure.what());
    return failure.exit_status();
  }
}

}  // namespace

void add_validate(CLI::App& app, int& status) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("validate", "Check a job file and all it names, without running anything");
  add_job(*command, options->file, options->overrides, "--set seed=2");
  command->add_flag(
      "--plan", options->plan, "also say what each stage takes: parameters, memory, steps, disk");
  command->add_option("--cluster",
                      options->cluster,
                      "--plan, and what a step would take on the GPUs that this YAML file "
                      "describes (configs/clusters/h100.yaml)");
  command->add_flag("--resolved",
                    options->resolved,
                    "print the job with every default filled in, and nothing else");
  command->callback([options, &status] { status = validate(*options); });
}

}  // namespace praetor::cli
