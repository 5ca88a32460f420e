#include "actors/cli/verify.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "actors/cli/commands.h"
#include "core/base/error.h"
#include "core/checkpoint/checkpoint.h"
#include "core/ledger/ledger.h"

namespace praetor::cli {

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

void append(Findings& findings, Findings more) {
  for (Finding& finding : more) findings.push_back(std::move(finding));
}

/// Fills the run's part of the report.
Findings verify_run(const fs::path& run, Json& report) {
  const auto ledger = Ledger::open_read_only(run);
  Findings findings = ledger->verify();
  report["stages"] = Json::array();
  int64_t checked = 0;
  for (const StageRecord& stage : ledger->stages()) {
    const Balance sum = ledger->balance(stage.stage);
    report["stages"].push_back({{"name", stage.name},
                                {"steps", ledger->last_step(stage.stage)},
                                {"issued", sum.issued},
                                {"trained", sum.trained},
                                {"dropped", sum.dropped},
                                {"pending", sum.pending()}});
    for (const fs::path& folder : list_checkpoints(run, stage.name)) {
      append(findings, verify_checkpoint(folder));
      ++checked;
    }
  }
  report["checkpoints"] = checked;
  for (const CheckpointRecord& checkpoint : ledger->checkpoints()) {
    const fs::path folder = run / checkpoint.path;
    if (checkpoint.durable && !fs::is_directory(folder)) {
      findings.push_back(
          {folder.string(), "the ledger says that it is durable, but it is not there"});
    }
  }
  const fs::path latest = run / "latest";
  if (fs::is_symlink(fs::symlink_status(latest)) && !fs::is_directory(latest)) {
    findings.push_back({latest.string(),
                        "leads to " + fs::read_symlink(latest).string() + ", which is not there"});
  }
  return findings;
}

}  // namespace

Json verify_path(const fs::path& path) {
  Json report;
  report["path"] = path.string();
  Findings findings;
  if (fs::exists(path / "ledger.db")) {
    report["kind"] = "run";
    report["ok"] = false;
    findings = verify_run(path, report);
  } else if (fs::is_directory(path) &&
             (fs::exists(path / "manifest.json") || fs::exists(path / "state.json"))) {
    report["kind"] = "checkpoint";
    report["ok"] = false;
    findings = verify_checkpoint(path);
  } else {
    throw MissingInput(path.string(),
                       ": neither a checkpoint (manifest.json) nor a run directory (ledger.db)");
  }
  report["ok"] = findings.empty();
  report["findings"] = Json::array();
  for (const Finding& finding : findings) {
    report["findings"].push_back({{"where", finding.where}, {"problem", finding.problem}});
  }
  return report;
}

void add_verify(CLI::App& app, int& status) {
  auto path = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "verify",
      "Check a checkpoint or a run directory: sizes, hashes, checksums, the ledger's account.");
  command->add_option("path", *path, "folder of a checkpoint, or of a run")->required();
  command->callback([path, &status] {
    const Json report = verify_path(*path);
    std::printf("%s\n", report.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
    if (!report["ok"].get<bool>()) status = kExitBadData;
  });
}

}  // namespace praetor::cli
