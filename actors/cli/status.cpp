#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "actors/cli/commands.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/ledger/ledger.h"

namespace praetor::cli {

namespace {

namespace fs = std::filesystem;

nlohmann::ordered_json balance_json(const Balance& balance) {
  nlohmann::ordered_json dropped = nlohmann::ordered_json::object();
  for (const auto& [reason, count] : balance.dropped) dropped[reason] = count;
  return {{"issued", balance.issued},
          {"trained", balance.trained},
          {"dropped", dropped},
          {"pending", balance.pending()},
          {"holds", balance.holds()}};
}

/// The last line that metrics.jsonl has of each stage.
nlohmann::ordered_json last_metrics(const fs::path& run) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  if (!fs::exists(run / "metrics.jsonl")) return out;
  std::istringstream lines(read_file(run / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto row = nlohmann::ordered_json::parse(line, nullptr, false);
    if (!row.is_discarded()) out[row.at("stage").get<std::string>()] = row;
  }
  return out;
}

nlohmann::ordered_json status_of(const fs::path& run) {
  if (!fs::exists(run / "resolved.yaml")) {
    throw MissingInput(run.string(), ": not a run directory (it has no resolved.yaml)");
  }
  nlohmann::ordered_json out = {{"run", run.string()}, {"metrics", last_metrics(run)}};
  try {
    const auto ledger = Ledger::open_read_only(run);
    out["running"] = false;
    for (const StageRecord& stage : ledger->stages()) {
      nlohmann::ordered_json checkpoints = nlohmann::ordered_json::array();
      for (const CheckpointRecord& checkpoint : ledger->checkpoints()) {
        if (checkpoint.stage == stage.stage && checkpoint.durable)
          checkpoints.push_back(checkpoint.path);
      }
      out["stages"].push_back({{"name", stage.name},
                               {"finished", stage.finished},
                               {"result", stage.result},
                               {"last_step", ledger->last_step(stage.stage)},
                               {"checkpoints", checkpoints},
                               {"samples", balance_json(ledger->balance(stage.stage))}});
    }
  } catch (const TemporaryError&) {
    // The ledger belongs to the process that trains; its metrics are readable all the same.
    out["running"] = true;
  }
  return out;
}

void print_table(const nlohmann::ordered_json& status) {
  std::fprintf(stderr,
               "%s: %s\n",
               status["run"].get<std::string>().c_str(),
               status["running"] ? "running" : "not running");
  if (status.contains("stages")) {
    std::fprintf(stderr,
                 "%-16s %-9s %6s %8s %8s %8s %8s\n",
                 "stage",
                 "state",
                 "step",
                 "issued",
                 "trained",
                 "dropped",
                 "pending");
    for (const auto& stage : status["stages"]) {
      const auto& samples = stage["samples"];
      int64_t dropped = 0;
      for (const auto& [reason, count] : samples["dropped"].items())
        dropped += count.get<int64_t>();
      std::fprintf(stderr,
                   "%-16s %-9s %6ld %8ld %8ld %8ld %8ld\n",
                   stage["name"].get<std::string>().c_str(),
                   stage["finished"] ? "finished" : "open",
                   stage["last_step"].get<long>(),
                   samples["issued"].get<long>(),
                   samples["trained"].get<long>(),
                   static_cast<long>(dropped),
                   samples["pending"].get<long>());
    }
  }
  for (const auto& [name, row] : status["metrics"].items()) {
    std::fprintf(stderr, "%s step %ld:", name.c_str(), row["step"].get<long>());
    for (const char* shown : {"sft/loss",
                              "rm/accuracy",
                              "reward/mean",
                              "objective/kl",
                              "eval/score",
                              "eval/loss",
                              "eval/accuracy"}) {
      if (row.contains(shown) && row[shown].is_number())
        std::fprintf(stderr, "  %s %.4g", shown, row[shown].get<double>());
    }
    std::fprintf(stderr, "\n");
  }
}

}  // namespace

void add_status(CLI::App& app, int&) {
  struct Options {
    fs::path run;
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "status", "Where a run stands: stages, samples, checkpoints, the last metrics");
  command->add_option("run", options->run, "A run directory")->required()->type_name("RUN_DIR");
  command->add_flag("--json", options->json, "The same as JSON on stdout");
  command->callback([options] {
    const auto status = status_of(options->run);
    if (options->json) {
      std::printf("%s\n", status.dump().c_str());
    } else {
      print_table(status);
    }
  });
}

}  // namespace praetor::cli
