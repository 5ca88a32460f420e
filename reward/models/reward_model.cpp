#include "reward/models/reward_model.h"

#include <ATen/core/Tensor.h>

#include <utility>

#include "core/base/error.h"
#include "core/model/model_config.h"
#include "reward/models/reward_file.h"

namespace praetor {

std::unique_ptr<RewardModel> RewardModel::load(const std::filesystem::path& folder,
                                               const RewardModelConfig& config) {
  const ModelConfig described = ModelConfig::load(folder);
  if (described.num_labels != 1) {
    throw DataError(
        folder.string(),
        ": not a reward model: config.json has no sequence-classification head with one label (",
        described.num_labels,
        described.num_labels > 1 ? " labels, which a part of kind attributes reads)" : " labels)");
  }
  std::unique_ptr<RewardModel> out(new RewardModel(SampleReader(folder, config, 1)));
  if (!config.normalise) return out;
  out->mean_ = config.normalise->mean;
  out->std_ = config.normalise->std;
  if (config.normalise->from_model) {
    const RewardFile file = RewardFile::read(folder);
    out->mean_ = file.mean;
    out->std_ = file.std;
  }
  return out;
}

std::vector<RewardModel::Result> RewardModel::score(std::span<const Sample> samples) const {
  const auto numbers = [&](const SampleReader::Hidden& hidden) {
    return reader_.head()(hidden.response);
  };
  std::vector<Result> out;
  for (SampleReader::Result& read : reader_.read(samples, numbers)) {
    Result& result = out.emplace_back(Result{.score = {}, .error = std::move(read.error)});
    if (result.error.empty()) result.score = (read.values[0] - mean_) / std_;
  }
  return out;
}

}  // namespace praetor
