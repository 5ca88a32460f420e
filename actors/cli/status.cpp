#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "actors/cli/commands.h"
#include "actors/job/job_config.h"
#include "actors/launch/slurm_jobs.h"
#include "actors/roles/member.h"
#include "actors/rpc/endpoint.h"
#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/base/text.h"
#include "core/ledger/ledger.h"

namespace praetor::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::chrono::milliseconds kPatience{2000};

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

/// What the controller of a run of separate roles answers; nothing when none does.
std::optional<RunStatus> ask_controller(const fs::path& run) {
  try {
    if (!read_endpoint(run)) return std::nullopt;
    RpcClientOptions options = RunAddress::of(run).options(kPatience, nullptr);
    options.call_time = kPatience;
    return SupervisorClient(options).status();
  } catch (const RpcError&) {
    return std::nullopt;
  } catch (const MissingInput&) {
    return std::nullopt;
  }
}

nlohmann::ordered_json roles_json(const RunStatus& status) {
  nlohmann::ordered_json members = nlohmann::ordered_json::array();
  for (const MemberStatus& member : status.members) {
    members.push_back({{"name", member.info.name},
                       {"role", to_string(member.info.role)},
                       {"host", member.info.host},
                       {"pid", member.info.pid},
                       {"threads", member.info.threads},
                       {"incarnation", member.info.incarnation},
                       {"state", member.lost ? "lost" : (member.busy ? "busy" : "idle")},
                       {"why", member.why},
                       {"heartbeat_seconds", member.seconds_since_heartbeat},
                       {"weight_step", member.weight_step},
                       // Versions that its weights are behind those wanted now.
                       {"staleness",
                        member.weight_step < 0
                            ? nlohmann::ordered_json(nullptr)
                            : nlohmann::ordered_json(status.weights.step - member.weight_step)},
                       {"leases", member.open_leases},
                       {"samples", member.samples}});
  }
  nlohmann::ordered_json broadcast;
  if (status.broadcast) {
    broadcast = {{"epoch", status.broadcast->epoch},
                 {"number", status.broadcast->number},
                 {"members", status.broadcast->members},
                 {"waiting", status.broadcast->waiting},
                 {"change", status.broadcast->change}};
  }
  return {{"run_id", status.run_id},
          {"stage", status.stage_name},
          {"step", status.step},
          {"total_steps", status.total_steps},
          {"weights",
           {{"step", status.weights.step},
            {"lineage", status.weights.lineage},
            {"digest", status.weights.digest}}},
          {"broadcast", broadcast},
          {"queues",
           {{"to_generate", status.to_generate},
            {"generating", status.generating},
            {"to_score", status.to_score},
            {"scoring", status.scoring},
            {"ready", status.ready}}},
          {"leases_reissued", status.leases_reissued},
          {"restarts", status.restarts},
          {"set_aside", status.set_aside},
          {"members", members}};
}

/// Those that were submitted for the run, if it was.
std::vector<SlurmJob> slurm_jobs(const fs::path& run) {
  try {
    return read_slurm_jobs(run);
  } catch (const MissingInput&) {
    return {};
  }
}

nlohmann::ordered_json status_of(const fs::path& run) {
  if (!fs::exists(run / "resolved.yaml")) {
    throw MissingInput(run.string(), ": not a run directory (it has no resolved.yaml)");
  }
  nlohmann::ordered_json out = {{"run", run.string()}, {"metrics", last_metrics(run)}};
  for (const SlurmJob& job : slurm_jobs(run))
    out["slurm"].push_back({{"id", job.id}, {"until", job.until}});
  if (!fs::exists(run / "ledger.db")) {
    out["running"] = false;
    out["stages"] = nlohmann::ordered_json::array();
    return out;
  }
  if (const auto live = ask_controller(run)) {
    out["running"] = !live->over;
    out["roles"] = roles_json(*live);
    const JobConfig job = JobConfig::load(run / "resolved.yaml");
    for (const auto& [stage, balance] : live->balances) {
      out["stages"].push_back(
          {{"name", job.stages.at(stage).name},
           {"finished", fs::exists(run / "stages" / job.stages[stage].name)},
           {"last_step", static_cast<int32_t>(stage) == live->stage ? live->step : int64_t{0}},
           {"samples", balance_json(balance)}});
    }
    return out;
  }
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

void print_roles(const nlohmann::ordered_json& roles) {
  const auto& queues = roles["queues"];
  std::string step = roles["step"].dump();
  if (roles["total_steps"] > 0) step += " of " + roles["total_steps"].dump();
  std::fprintf(stderr,
               "run %s: %s step %s, weights of step %ld\n"
               "samples: %ld to generate, %ld in generation, %ld to score, %ld in scoring, %ld "
               "ready; %ld leases reissued, %ld restarts\n",
               roles["run_id"].get<std::string>().c_str(),
               roles["stage"].get<std::string>().c_str(),
               step.c_str(),
               roles["weights"]["step"].get<long>(),
               queues["to_generate"].get<long>(),
               queues["generating"].get<long>(),
               queues["to_score"].get<long>(),
               queues["scoring"].get<long>(),
               queues["ready"].get<long>(),
               roles["leases_reissued"].get<long>(),
               roles["restarts"].get<long>());
  if (const auto& broadcast = roles["broadcast"]; !broadcast.is_null()) {
    const auto members = broadcast["members"].get<std::vector<std::string>>();
    const auto change = broadcast["change"].get<std::string>();
    std::fprintf(stderr,
                 "broadcasts of weights: epoch %ld, number %ld, of %s%s%s\n",
                 broadcast["epoch"].get<long>(),
                 broadcast["number"].get<long>(),
                 members.empty() ? "nobody" : join(members, ", ").c_str(),
                 change.empty() ? "" : "; the next one begins an epoch: ",
                 change.c_str());
  }
  for (const auto& prompt : roles["set_aside"])
    std::fprintf(stderr, "set aside: %s\n", prompt.get<std::string>().c_str());
  std::fprintf(stderr,
               "%-16s %-8s %-16s %8s %-6s %8s %8s %6s %7s %8s\n",
               "member",
               "role",
               "host",
               "process",
               "state",
               "seen",
               "weights",
               "behind",
               "leases",
               "samples");
  for (const auto& member : roles["members"]) {
    std::fprintf(stderr,
                 "%-16s %-8s %-16s %8ld %-6s %6.1f s %8s %6s %7ld %8ld  %s\n",
                 member["name"].get<std::string>().c_str(),
                 member["role"].get<std::string>().c_str(),
                 member["host"].get<std::string>().c_str(),
                 member["pid"].get<long>(),
                 member["state"].get<std::string>().c_str(),
                 member["heartbeat_seconds"].get<double>(),
                 member["weight_step"] < 0 ? "-" : member["weight_step"].dump().c_str(),
                 member["staleness"].is_null() ? "-" : member["staleness"].dump().c_str(),
                 member["leases"].get<long>(),
                 member["samples"].get<long>(),
                 member["why"].get<std::string>().c_str());
  }
}

/// What the last step says of waiting, where roles are processes.
void print_waits(const nlohmann::ordered_json& status) {
  const auto row = status["metrics"].find(status["roles"]["stage"].get<std::string>());
  if (row == status["metrics"].end() || !row->contains("idle/learner")) return;
  const auto figure = [&](const char* name) { return row->value(name, 0.0); };
  std::fprintf(
      stderr,
      "step %ld: samples %.2f updates old, at most %.0f; waited: learner %.2f s for samples, "
      "rollout workers %.2f s for prompts, reward workers %.2f s for responses\n",
      row->value("step", 0L),
      figure("staleness/mean"),
      figure("staleness/max"),
      figure("idle/learner"),
      figure("idle/rollout"),
      figure("idle/reward"));
}

void print_table(const nlohmann::ordered_json& status) {
  std::fprintf(stderr,
               "%s: %s\n",
               status["run"].get<std::string>().c_str(),
               status["running"]                                       ? "running"
               : status.contains("stages") && status["stages"].empty() ? "has not started"
                                                                       : "not running");
  if (status.contains("slurm")) {
    for (const auto& job : status["slurm"]) {
      const auto id = job["id"].get<std::string>();
      std::fprintf(stderr, "Slurm job %s (squeue -j %s)\n", id.c_str(), id.c_str());
    }
  }
  if (status.contains("roles")) {
    print_roles(status["roles"]);
    print_waits(status);
  }
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
      for (const auto& [reason, count] : samples["dropped"].items())
        std::fprintf(stderr, "  %ld dropped: %s\n", count.get<long>(), reason.c_str());
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
