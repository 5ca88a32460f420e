#include "reward/models/reward_model.h"

#include <ATen/core/grad_mode.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/error.h"
#include "core/base/fs.h"
#include "core/model/model_config.h"
#include "reward/models/fit.h"
#include "reward/models/packed_batches.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr const char* kNormaliserFile = "praetor_reward.json";

ScoreNormaliser read_normaliser(const fs::path& folder) {
  const fs::path file = folder / kNormaliserFile;
  const nlohmann::json json = nlohmann::json::parse(read_file(file), nullptr, false);
  ScoreNormaliser out{.from_model = true};
  for (const auto& [key, value] : {std::pair{"mean", &out.mean}, {"std", &out.std}}) {
    if (!json.is_object() || !json.contains(key) || !json[key].is_number()) {
      throw DataError(file.string(), ": ", key, ": a number is wanted");
    }
    *value = json[key].get<double>();
  }
  if (!(out.std > 0)) throw DataError(file.string(), ": std: ", out.std, " is not above 0");
  return out;
}

}  // namespace

RewardModel::RewardModel(ScalarModel model,
                         std::unique_ptr<Tokenizer> tokenizer,
                         const RewardModelConfig& config)
    : model_(std::move(model)),
      tokenizer_(std::move(tokenizer)),
      batch_tokens_(config.batch_tokens) {
  const ModelConfig& described = model_.backbone.config();
  format_.chat_template = config.chat_template;
  format_.wrap_prompt = config.chat_template != "plain";
  format_.append_eos = config.append_eos;
  format_.max_length = config.max_length > 0 ? config.max_length : described.max_positions;
  if (!described.eos_tokens.empty()) {
    eos_ = described.eos_tokens.front();
  } else {
    eos_ = tokenizer_->eos();
  }
}

std::unique_ptr<RewardModel> RewardModel::load(const fs::path& folder,
                                               const RewardModelConfig& config) {
  const ModelConfig described = ModelConfig::load(folder);
  if (described.num_labels != 1) {
    throw DataError(
        folder.string(),
        ": not a reward model: config.json has no sequence-classification head with one label (",
        described.num_labels,
        " labels)");
  }
  auto tokenizer = fitting_tokenizer(folder, described, config.max_length);
  // The folder has its head, so that the stream draws nothing.
  ScalarModel model =
      ScalarModel::load(folder, RandomStream(SampleKey{.purpose = Purpose::kInitialise}));
  model.backbone.set_requires_grad(false);
  std::unique_ptr<RewardModel> out(new RewardModel(std::move(model), std::move(tokenizer), config));
  if (config.append_eos && !out->eos_) {
    throw DataError(folder.string(),
                    ": append_eos is on, but neither model nor tokenizer names an end token");
  }
  if (config.normalise) {
    const ScoreNormaliser used =
        config.normalise->from_model ? read_normaliser(folder) : *config.normalise;
    out->mean_ = used.mean;
    out->std_ = used.std;
  }
  return out;
}

std::vector<int64_t> RewardModel::tokens(const Sample& sample) const {
  Row row;
  row.prompt = sample.prompt;
  row.completion = sample.response;
  return completion_example(row, *tokenizer_, format_, eos_.value_or(0)).tokens;
}

std::vector<RewardModel::Result> RewardModel::score(std::span<const Sample> samples) const {
  const at::NoGradGuard no_grad;
  std::vector<Result> results(samples.size());
  std::vector<std::vector<int64_t>> sequences(samples.size());
  for (size_t i = 0; i < samples.size(); ++i) {
    std::vector<int64_t> ids = tokens(samples[i]);
    results[i].error =
        length_error(ids.size(), format_.max_length, "prompt and response are empty");
    if (results[i].error.empty()) sequences[i] = std::move(ids);
  }
  const auto forward = [&](const SharedPack& batch, const std::vector<size_t>& places) {
    const at::Tensor scores =
        model_.head(model_.backbone.hidden(batch.packed).index_select(0, batch.last()))
            .to(at::kCPU, at::kDouble)
            .contiguous();
    for (size_t i = 0; i < places.size(); ++i) {
      const double raw = scores.const_data_ptr<double>()[i];
      Result& result = results[places[i]];
      if (std::isfinite(raw)) {
        result.score = (raw - mean_) / std_;
      } else {
        result.error = str("the model's score is ", raw);
      }
    }
  };
  for_each_packed_batch(
      sequences, batch_tokens_, model_.backbone.config().switch_length(), forward);
  return results;
}

void write_normaliser(const fs::path& folder, double mean, double std) {
  write_file_atomic(folder / kNormaliserFile,
                    nlohmann::json{{"mean", mean}, {"std", std}}.dump() + "\n");
}

}  // namespace praetor
