#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/config/yaml_reader.h"
#include "core/data/sample.h"
#include "reward/models/model_folder.h"
#include "reward/models/sample_reader.h"

namespace praetor {

/// Raw scores r become (r - mean) / std.
struct ScoreNormaliser {
  bool from_model = false;  ///< mean and std from praetor_reward.json of the model's folder
  double mean = 0.0;
  double std = 1.0;  ///< > 0
  /// The section `key` of a part; nothing without it.
  static std::optional<ScoreNormaliser> from_yaml(YamlReader& in, const std::string& key);
};

struct RewardModelConfig : ReaderConfig {
  std::filesystem::path path;  ///< folder; empty when `stage` names where it comes from
  std::string stage;           ///< an earlier stage of the job, whose result is loaded
  std::optional<ScoreNormaliser> normalise;

  ModelFolder folder() const { return {.path = path, .stage = stage, .max_length = max_length}; }
  /// Reads and checks the keys of a part of kind "model". Unknown keys are the caller's to reject.
  static RewardModelConfig from_yaml(YamlReader& in);
};

/// A Bradley-Terry reward model r(x, y): a transformer whose scalar head is read at the last token
/// (Christiano et al. 2017, arXiv:1706.03741; Ouyang et al. 2022, arXiv:2203.02155).
///
/// It sees text (SampleReader). Hugging Face sequence-classification folders (num_labels 1) load as
/// they are. One thread at a time.
class RewardModel {
 public:
  /// @throws MissingInput; DataError when the folder is not a reward model, its tokenizer does not
  /// fit, or praetor_reward.json is missing where the normaliser wants it
  static std::unique_ptr<RewardModel> load(const std::filesystem::path& folder,
                                           const RewardModelConfig& config);

  struct Result {
    std::optional<double> score;  ///< absent exactly when `error` is set
    std::string error;            ///< "512 tokens, more than max_length 256"
  };
  /// Scores in the order of `samples`, packed without padding into forwards of at most
  /// `batch_tokens` (a longer sample alone). In float32 on CPU a score has the same bits in any
  /// batch.
  std::vector<Result> score(std::span<const Sample> samples) const;

  /// What the model reads of a sample.
  std::vector<int64_t> tokens(const Sample& sample) const { return reader_.tokens(sample); }

 private:
  explicit RewardModel(SampleReader reader) : reader_(std::move(reader)) {}
  SampleReader reader_;
  double mean_ = 0.0;
  double std_ = 1.0;
};

}  // namespace praetor
