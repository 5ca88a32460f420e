#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "actors/job/launcher_config.h"
#include "actors/job/roles_config.h"
#include "actors/job/stage_config.h"
#include "core/config/yaml_reader.h"

namespace praetor {

/// A job file: what `praetor train` runs. configs/reference.yaml documents every key.
struct JobConfig {
  std::string name;   ///< names the run directory
  uint64_t seed = 1;  ///< of every random number of the job
  std::filesystem::path output =
      "runs";  ///< parent of the run directory, relative to the working directory
  std::string placement = "colocated";  ///< one process holds every role; separate: one each
  int threads = 0;                      ///< of tensor work; 0: all cores
  bool digest = true;                   ///< record digests of loss and gradient of every step
  LedgerConfig ledger;
  LauncherConfig launcher;
  RolesConfig roles;  ///< this and the three below: of `placement: separate` alone
  NetworkConfig network;
  SupervisionConfig supervision;
  PublishConfig publish;
  std::vector<StageConfig> stages;  ///< in order; never empty when there are no errors

  std::shared_ptr<YamlDocument> document;  ///< what was read; keeps the stages' readers alive

  /// Reads a job file, or a resolved.yaml. `overrides`: "a.b[2].c=value" of --set.
  /// @throws ConfigError with all errors of keys, types, ranges and references, a line each;
  /// MissingInput when there is no such file. Files and data that the job names are checked by
  /// check_job.
  static JobConfig load(const std::filesystem::path& file,
                        const std::vector<std::string>& overrides = {});
  /// As load, but the errors stay in document->errors(), so that check_job can report them with its
  /// own.
  static JobConfig read(const std::filesystem::path& file,
                        const std::vector<std::string>& overrides = {});
  static JobConfig read(std::shared_ptr<YamlDocument> document);

  /// The job with every default filled in, and paths made absolute.
  std::string resolved() const { return document->resolved(); }
  /// The same without what does not touch a single number of the run: where its roles run and how
  /// they are watched.
  std::string resolved_arithmetic() const;
  /// The stage of that name, or null.
  const StageConfig* find(const std::string& stage) const;
  /// A stage that trains has `learner.device: cuda`.
  bool learns_on_gpus() const;
};

}  // namespace praetor
