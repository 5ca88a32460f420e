#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "core/config/yaml_reader.h"
#include "core/data/example.h"
#include "core/model/model_config.h"

namespace praetor {

/// A file or folder: given as a path, or made by an earlier stage of the job ("stage:NAME/FILE").
struct Source {
  std::filesystem::path path;  ///< absolute; empty when `stage` is set
  std::string stage;           ///< name of the earlier stage
  std::string file;            ///< below that stage's result folder; empty: the folder itself

  bool given() const { return !path.empty() || !stage.empty(); }
  bool from_stage() const { return !stage.empty(); }
  /// Where it lies once `results` (RUN_DIR/stages) is known.
  std::filesystem::path in(const std::filesystem::path& results) const {
    return from_stage() ? results / stage / file : path;
  }
};

/// Section `checkpoint.keep_best`: which evaluated checkpoints are kept beside the newest.
struct KeepBestConfig {
  std::string metric;   ///< "eval/..."; empty: the stage's headline, and what is better for it
  bool highest = true;  ///< key mode: max, min; with `metric`
  int64_t count = 0;    ///< how many; 1 where the section is given
  static KeepBestConfig from_yaml(YamlReader in);
};

/// Section `checkpoint`, of the job (for all stages) or of one stage.
struct CheckpointConfig {
  int64_t every = 50;         ///< steps between checkpoints; 0: only at the end of a stage
  int64_t keep_last = 2;      ///< checkpoints of a stage that are kept, >= 1
  int64_t keep_every = 0;     ///< those whose step is a multiple are kept as well; 0: none
  std::string keep = "last";  ///< last, or best: the best evaluation's is kept, and is the result
  KeepBestConfig keep_best;
  bool background = false;  ///< written by a thread, from a copy, while training goes on
  /// Each evaluated state is saved, as it may be the best.
  bool keeps_best() const { return keep == "best" || keep_best.count > 0; }
  static CheckpointConfig from_yaml(YamlReader in, const CheckpointConfig& defaults);
};

/// Section `ledger` of the job.
struct LedgerConfig {
  /// all: the rollouts of every step stay, so that any step can be replayed; unsaved: those that a
  /// kept checkpoint covers are given up.
  std::string payload = "all";
  static LedgerConfig from_yaml(YamlReader in);
};

/// Section `model` of a stage: what training starts from. Exactly one of the three.
struct ModelSection {
  Source source;                  ///< keys path, stage: a Hugging Face folder
  std::filesystem::path adapter;  ///< a folder of peft's that is merged into it; empty: none
  std::optional<ModelConfig>
      create;  ///< random weights; vocab_size 0: as many as the tokenizer has
};

/// Section `data` of a stage.
struct DataConfig {
  Source train;  ///< JSON lines, plain or .gz
  Source eval;   ///< may be absent
  TextFormat
      format;  ///< keys template, wrap_prompt, max_length (of the prompt alone in ppo), append_eos
  bool shuffle = true;  ///< a new seeded order each epoch
  /// `longest`: the default of max_length.
  static DataConfig from_yaml(YamlReader in, int64_t longest);
};

/// Section `eval` of a stage.
struct EvalConfig {
  int64_t every =
      0;  ///< steps between evaluations; 0: only before the first step and after the last
  int64_t prompts = 0;  ///< rows of data.eval that are used, from the first; 0: all
  bool require_rise =
      false;  ///< the job misses its goal (exit code 3) unless the stage's score rises; ppo alone
  static EvalConfig from_yaml(YamlReader in);
};

/// `key` of `in` as a path, or "stage:NAME/FILE"; absent: not given.
Source source_from_yaml(YamlReader& in, const std::string& key);

/// Section `create`. The vocabulary and the special tokens are the tokenizer's.
ModelConfig created_model_from_yaml(YamlReader in);

/// True for names that are safe as one path component: letters, digits, "_", "-", ".", not first
/// "-" or ".", at most 100 bytes.
bool is_safe_name(const std::string& name);

}  // namespace praetor
