#include "reward/models/answer_model.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <array>
#include <cmath>
#include <utility>

#include "core/base/error.h"
#include "core/base/sigmoid.h"
#include "core/data/pair_question.h"
#include "core/model/ops.h"
#include "reward/models/fit.h"
#include "reward/models/packed_batches.h"

namespace praetor {

namespace fs = std::filesystem;

AnswerModelConfig AnswerModelConfig::from_yaml(YamlReader& in) {
  AnswerModelConfig config;
  config.folder = ModelFolder::from_yaml(in);
  config.folder.scalar = false;
  config.chat_template = in.get("template", config.chat_template, chat_template_names());
  config.max_length = in.get("max_length", config.max_length, at_least(0));
  config.folder.max_length = config.max_length;
  config.batch_tokens = in.get("batch_tokens", config.batch_tokens, at_least(1));
  return config;
}

AnswerModel::AnswerModel(Transformer model,
                         std::unique_ptr<Tokenizer> tokenizer,
                         const AnswerModelConfig& config)
    : model_(std::move(model)),
      tokenizer_(std::move(tokenizer)),
      batch_tokens_(config.batch_tokens) {
  format_.chat_template = config.chat_template;
  format_.wrap_prompt = config.chat_template != "plain";
  format_.append_eos = false;
  format_.max_length = config.max_length > 0 ? config.max_length : model_.config().max_positions;
}

std::unique_ptr<AnswerModel> AnswerModel::load(const fs::path& folder,
                                               const AnswerModelConfig& config) {
  const ModelConfig described = ModelConfig::load(folder);
  if (described.num_labels > 0) {
    throw DataError(folder.string(),
                    ": not a language model: config.json has a sequence-classification head");
  }
  auto tokenizer = fitting_tokenizer(folder, described, config.max_length);
  Transformer model = Transformer::load(folder);
  model.set_requires_grad(false);
  std::unique_ptr<AnswerModel> out(new AnswerModel(std::move(model), std::move(tokenizer), config));
  std::array<int64_t, 2> rows{};
  try {
    rows = answer_tokens({config.positive, config.negative}, *out->tokenizer_);
  } catch (const DataError& failure) {
    throw DataError(folder.string(), ": ", failure.what());
  }
  const ops::LanguageHead& head = out->model_.head();
  const at::Tensor index = at::tensor(at::IntArrayRef(rows), at::dtype(at::kLong));
  out->answers_ = {head.weight.index_select(0, index), head.softcap};
  return out;
}

std::vector<int64_t> AnswerModel::tokens(const std::string& question) const {
  return question_tokens(question, *tokenizer_, format_);
}

std::vector<AnswerModel::Result> AnswerModel::ask(std::span<const std::string> questions) const {
  const at::NoGradGuard no_grad;
  std::vector<Result> results(questions.size());
  std::vector<std::vector<int64_t>> sequences(questions.size());
  for (size_t i = 0; i < questions.size(); ++i) {
    std::vector<int64_t> ids = tokens(questions[i]);
    results[i].error = length_error(ids.size(), format_.max_length, "the question is empty");
    if (results[i].error.empty()) sequences[i] = std::move(ids);
  }
  const auto forward = [&](const SharedPack& batch, const std::vector<size_t>& places) {
    const at::Tensor hidden = model_.hidden(batch.packed, batch.last());
    const at::Tensor logits = ops::logits(hidden, answers_).to(at::kCPU, at::kDouble).contiguous();
    for (size_t i = 0; i < places.size(); ++i) {
      const double* z = logits.const_data_ptr<double>() + 2 * i;
      Result& result = results[places[i]];
      if (std::isfinite(z[0]) && std::isfinite(z[1])) {
        // Among the two: e^{z_0} / (e^{z_0} + e^{z_1}).
        result.probability = sigmoid(z[0] - z[1]);
      } else {
        result.error = str("the answers' logits are ", z[0], " and ", z[1]);
      }
    }
  };
  for_each_packed_batch(sequences, batch_tokens_, model_.config().switch_length(), forward);
  return results;
}

}  // namespace praetor
