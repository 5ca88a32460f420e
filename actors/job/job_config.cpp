#include "actors/job/job_config.h"

#include <algorithm>
#include <set>
#include <sstream>

#include "core/base/str.h"
#include "core/base/text.h"

namespace praetor {

namespace {

constexpr size_t kMaxStages = 256;  // the random streams' key has one byte for the stage

void check_names(std::vector<StageConfig>& stages) {
  for (size_t i = 0; i < stages.size(); ++i) {
    for (size_t k = 0; k < i; ++k) {
      if (stages[i].name != stages[k].name) continue;
      stages[i].in.error_at(stages[i].in.has("name") ? "name" : "kind",
                            str("stage ",
                                k,
                                " is named \"",
                                printable(stages[i].name),
                                "\" already; give this one a name"));
      break;
    }
  }
}

void read_stages(JobConfig& job, YamlReader in, const CheckpointConfig& checkpoint) {
  std::vector<YamlReader> sections;
  if (in.has("stages")) {
    sections = in.list("stages");
    if (sections.empty() && job.document->errors().empty())
      in.error_at("stages", "is empty; at least one stage is wanted");
    if (sections.size() > kMaxStages) {
      in.error_at("stages",
                  str("has ", sections.size(), " stages; at most ", kMaxStages, " are possible"));
      sections.clear();
    }
  } else if (in.has("kind")) {
    sections.push_back(in);
  } else {
    in.error_at("",
                "missing key \"stages\"; a list of stages, or the keys of a single one (kind: "
                "...), is wanted");
  }
  for (const YamlReader& section : sections) {
    job.stages.push_back(StageConfig::identify(section, static_cast<uint32_t>(job.stages.size())));
  }
  check_names(job.stages);
  std::vector<std::string> names;
  for (const StageConfig& stage : job.stages) names.push_back(stage.name);
  for (size_t i = 0; i < job.stages.size(); ++i) {
    job.stages[i].read({job.stages.data(), i}, names, checkpoint);
  }
}

/// What the launcher cannot do for the rest of the job.
void check_launcher(const JobConfig& job, YamlReader in) {
  const LauncherConfig& launcher = job.launcher;
  YamlReader section = in.child("launcher");
  if (job.placement == "colocated" && launcher.kind == "mpirun") {
    section.error_at("kind",
                     "mpirun starts the processes of placement: separate; with placement: "
                     "colocated there is but one, and local is wanted");
  }
  if (job.placement == "colocated" && launcher.kind == "slurm" && launcher.spans_hosts()) {
    section.error_at("kind",
                     "with placement: colocated the job is one process, but slurm asks for several "
                     "nodes; leave placement out, or ask for one node");
  }
  if (launcher.kind != "mpirun") return;
  int64_t slots = 0;
  for (const HostSlots& host : launcher.hosts) slots += host.slots;
  if (slots > 0 && slots < job.roles.learner_ranks) {
    section.error_at("hosts",
                     str("have ",
                         slots,
                         slots == 1 ? " slot" : " slots",
                         ", fewer than the ",
                         job.roles.learner_ranks,
                         " ranks of roles.learner.ranks"));
  }
}

void check_publication(const JobConfig& job, YamlReader in) {
  if (!job.publish.broadcasts()) return;
  const bool on_gpu = std::ranges::any_of(job.stages, [](const StageConfig& stage) {
    return stage.online() && stage.engine.device == EngineDevice::kCuda;
  });
  YamlReader section = in.child("publish");
  if (!on_gpu) {
    section.error_at("via",
                     "nccl broadcasts weights to engines on GPUs, and no stage has engine: "
                     "{device: cuda}; auto, file or stream is wanted");
  } else if (job.placement == "colocated") {
    section.error_at("via",
                     "nccl broadcasts weights from the learner's process to the workers', and with "
                     "placement: colocated they are one; leave it out, or set placement: separate");
  }
}

/// One process is one learner rank.
void check_ranks(const JobConfig& job, YamlReader in) {
  if (job.placement != "colocated" || job.roles.learner_ranks == 1) return;
  YamlReader section = in.child("roles").child("learner");
  section.error_at("ranks",
                   str("with placement: colocated the learner is one rank, not ",
                       job.roles.learner_ranks,
                       "; leave it out, or set placement: separate"));
}

/// NCCL passes tensors between the GPUs of several ranks.
void check_collective(const JobConfig& job, YamlReader in) {
  if (job.roles.learner_collective != "nccl") return;
  YamlReader section = in.child("roles").child("learner");
  if (!job.learns_on_gpus()) {
    section.error_at("collective",
                     "nccl exchanges between learners on GPUs, and no stage that trains has "
                     "learner: {device: cuda}; auto or mpi is wanted");
  } else if (job.placement == "colocated") {
    section.error_at("collective",
                     "nccl exchanges between several learner ranks, and with placement: colocated "
                     "there is one; leave it out, or set placement: separate");
  } else if (job.roles.learner_ranks == 1) {
    section.error_at("collective",
                     "nccl exchanges between several learner ranks, and roles.learner.ranks is 1; "
                     "leave it out, or ask for more ranks");
  }
}

/// Layers are split over learner ranks that there are, and copies of a learner are all of the same
/// number of ranks.
void check_layout(const JobConfig& job) {
  const bool apart = job.placement == "separate";
  const int64_t ranks = apart ? job.roles.learner_ranks : 1;
  for (const StageConfig& stage : job.stages) {
    if (!stage.trains()) continue;
    const ShardingConfig& sharding = stage.learner.sharding;
    YamlReader in = stage.in;
    YamlReader section = in.child("learner").child("sharding");
    if (ranks % sharding.tensor != 0) {
      section.error_at(
          "tensor",
          apart ? str(sharding.tensor,
                      " does not divide the ",
                      ranks,
                      " ranks of roles.learner.ranks")
                : str("with placement: colocated the learner is one rank, which ",
                      sharding.tensor,
                      " does not divide; placement: separate has roles.learner.ranks of them"));
      continue;
    }
    const int64_t workers = ranks / sharding.tensor;
    const int64_t group = sharding.ranks_of_copy(workers);
    if (workers % group == 0) continue;
    const std::string of_tensor =
        sharding.tensor > 1 ? str(" / ", sharding.tensor, " (tensor)") : std::string();
    section.error_at(
        "group",
        str(group, " does not divide the ", workers, " ranks of roles.learner.ranks", of_tensor));
  }
}

}  // namespace

JobConfig JobConfig::read(std::shared_ptr<YamlDocument> document) {
  JobConfig job;
  job.document = std::move(document);
  YamlReader in = job.document->root();
  job.name = in.require_string("name");
  if (!job.name.empty() && !is_safe_name(job.name)) {
    in.error_at(
        "name",
        str("\"",
            printable(job.name),
            "\" may hold letters, digits, \"_\", \"-\" and \".\" only, and names a folder"));
  }
  job.seed = static_cast<uint64_t>(in.get("seed", static_cast<int64_t>(job.seed), at_least(0)));
  job.output = in.get("output", job.output.string());
  if (job.output.empty()) in.error_at("output", "is empty; a folder is wanted");
  job.launcher = LauncherConfig::from_yaml(in.child("launcher"));
  job.placement = in.get("placement",
                         job.launcher.kind == "local" ? "colocated" : "separate",
                         {"colocated", "separate"});
  job.threads =
      static_cast<int>(in.get("threads", static_cast<int64_t>(job.threads), closed(0, 4096)));
  job.digest = in.get("digest", job.digest);
  job.ledger = LedgerConfig::from_yaml(in.child("ledger"));
  job.roles = RolesConfig::from_yaml(in.child("roles"));
  job.network = NetworkConfig::from_yaml(in.child("network"), job.launcher);
  check_launcher(job, in);
  job.supervision = SupervisionConfig::from_yaml(in.child("supervision"));
  job.publish = PublishConfig::from_yaml(in.child("publish"));

  // With the keys of a single stage at the top level its checkpoint section is the job's.
  const bool single = !in.has("stages") && in.has("kind");
  const CheckpointConfig checkpoint =
      single ? CheckpointConfig{} : CheckpointConfig::from_yaml(in.child("checkpoint"), {});
  read_stages(job, in, checkpoint);
  check_ranks(job, in);
  check_layout(job);
  check_publication(job, in);
  check_collective(job, in);
  in.reject_unknown_keys();
  return job;
}

JobConfig JobConfig::read(const std::filesystem::path& file,
                          const std::vector<std::string>& overrides) {
  return read(YamlDocument::load(file, overrides));
}

JobConfig JobConfig::load(const std::filesystem::path& file,
                          const std::vector<std::string>& overrides) {
  JobConfig job = read(file, overrides);
  job.document->throw_if_errors();
  return job;
}

std::string JobConfig::resolved_arithmetic() const {
  static const std::set<std::string> kElsewhere = {"name",
                                                   "output",
                                                   "placement",
                                                   "launcher",
                                                   "roles",
                                                   "network",
                                                   "supervision",
                                                   "publish",
                                                   "ledger"};
  std::istringstream lines(resolved());
  std::string out;
  bool skip = false;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line[0] != ' ' && line[0] != '-')
      skip = kElsewhere.contains(line.substr(0, line.find(':')));
    if (!skip) out += line + "\n";
  }
  return out;
}

bool JobConfig::learns_on_gpus() const {
  return std::ranges::any_of(stages, [](const StageConfig& stage) {
    return stage.trains() && stage.learner.device.is_cuda();
  });
}

const StageConfig* JobConfig::find(const std::string& stage) const {
  const auto found = std::ranges::find(stages, stage, &StageConfig::name);
  return found == stages.end() ? nullptr : &*found;
}

}  // namespace praetor
