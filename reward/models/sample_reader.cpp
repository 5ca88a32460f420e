#include "reward/models/sample_reader.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/error.h"
#include "core/model/model_config.h"
#include "reward/models/fit.h"
#include "reward/models/packed_batches.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

at::Tensor rows(const std::vector<int64_t>& index) {
  return at::tensor(index, at::kLong);
}

}  // namespace

void ReaderConfig::read(YamlReader& in) {
  chat_template = in.get("template", chat_template, chat_template_names());
  max_length = in.get("max_length", max_length, at_least(0));
  append_eos = in.get("append_eos", append_eos);
  batch_tokens = in.get("batch_tokens", batch_tokens, at_least(1));
}

// The folder has its head, so that the stream draws nothing.
SampleReader::SampleReader(const fs::path& folder, const ReaderConfig& config, int64_t labels)
    : tokenizer_(fitting_tokenizer(folder, ModelConfig::load(folder), config.max_length)),
      model_(ScalarModel::load(
          folder, RandomStream(SampleKey{.purpose = Purpose::kInitialise}), at::kFloat, labels)),
      batch_tokens_(config.batch_tokens) {
  model_.backbone.set_requires_grad(false);
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
  if (config.append_eos && !eos_) {
    throw DataError(folder.string(),
                    ": append_eos is on, but neither model nor tokenizer names an end token");
  }
}

Example SampleReader::example(const Sample& sample) const {
  Row row;
  row.prompt = sample.prompt;
  row.completion = sample.response;
  return completion_example(row, *tokenizer_, format_, eos_.value_or(0));
}

std::vector<SampleReader::Result> SampleReader::read(
    std::span<const Sample> samples,
    const std::function<at::Tensor(const Hidden&)>& numbers) const {
  const at::NoGradGuard no_grad;
  std::vector<Result> results(samples.size());
  std::vector<std::vector<int64_t>> sequences(samples.size());
  std::vector<int64_t> prompt(samples.size());  // its last token
  for (size_t i = 0; i < samples.size(); ++i) {
    Example read = example(samples[i]);
    results[i].error =
        length_error(read.tokens.size(), format_.max_length, "prompt and response are empty");
    if (!results[i].error.empty()) continue;
    const auto first = std::ranges::find(read.target, uint8_t{1}) - read.target.begin();
    prompt[i] = std::max<int64_t>(first - 1, 0);
    sequences[i] = std::move(read.tokens);
  }
  const auto forward = [&](const SharedPack& batch, const std::vector<size_t>& places) {
    const auto count_asked = static_cast<int64_t>(places.size());
    std::vector<int64_t> asked;
    for (int64_t i = 0; i < count_asked; ++i)
      asked.push_back(batch.row(i, prompt[places[static_cast<size_t>(i)]]));
    const at::Tensor hidden =
        model_.backbone.hidden(batch.packed, at::cat({batch.last(), rows(asked)}));
    const at::Tensor said =
        numbers({hidden.narrow(0, 0, count_asked), hidden.narrow(0, count_asked, count_asked)})
            .to(at::kCPU, at::kDouble)
            .view({static_cast<int64_t>(places.size()), -1})
            .contiguous();
    const int64_t count = said.size(1);
    for (size_t i = 0; i < places.size(); ++i) {
      const double* own = said.const_data_ptr<double>() + static_cast<int64_t>(i) * count;
      Result& result = results[places[i]];
      const double* broken =
          std::find_if_not(own, own + count, [](double value) { return std::isfinite(value); });
      if (broken == own + count) {
        result.values.assign(own, own + count);
      } else {
        result.error = str("the model's score is ", *broken);
      }
    }
  };
  for_each_packed_batch(
      sequences, batch_tokens_, model_.backbone.config().switch_length(), forward);
  return results;
}

}  // namespace praetor
