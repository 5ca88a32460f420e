#include "actors/controller/prompts.h"

#include "core/base/error.h"
#include "core/data/dataset.h"

namespace praetor {

std::vector<int64_t> end_tokens(const StageConfig& stage,
                                const Tokenizer& tokenizer,
                                const std::filesystem::path& results) {
  if (!stage.model.create) {
    auto tokens = ModelConfig::load(stage.model.source.in(results)).eos_tokens;
    if (!tokens.empty()) return tokens;
  }
  if (const auto eos = tokenizer.eos()) return {*eos};
  throw DataError(stage.tokenizer.in(results).string(),
                  ": neither the model's config.json nor the tokenizer names an end-of-sequence "
                  "token (eos_token_id, eos_token)");
}

int32_t OnlinePlan::total_samples() const {
  int64_t out = samples_per_prompt;
  for (const VoicePlan& other : others) out += other.samples;
  return static_cast<int32_t>(out);
}

int32_t OnlinePlan::voice_of(int32_t sample) const {
  int64_t first = samples_per_prompt;
  if (sample < first) return 0;
  for (size_t i = 0; i < others.size(); ++i) {
    first += others[i].samples;
    if (sample < first) return static_cast<int32_t>(i + 1);
  }
  throw InternalError("sample ", sample, " of a prompt with ", total_samples());
}

bool OnlinePlan::rivals(int32_t sample, int32_t other) const {
  if (scores == ScorePlan::kPairs) return sample < other;
  return scores == ScorePlan::kRivals && voice_of(sample) == 0 && voice_of(other) != 0;
}

OnlinePlan online_plan(const StageConfig& stage,
                       uint64_t job_seed,
                       const std::filesystem::path& results) {
  const auto algorithm = stage.make_algorithm();
  const SamplePlan samples = algorithm->sample_plan();
  OnlinePlan plan{.stage = stage.index,
                  .job_seed = job_seed,
                  .prompts_per_step = samples.prompts_per_step,
                  .samples_per_prompt = static_cast<int32_t>(samples.samples_per_prompt),
                  .others = samples.others,
                  .scores = algorithm->score_plan(),
                  .shuffle = stage.data.shuffle,
                  .params = stage.sampling,
                  .parts = empty_counters(stage.rewards)};
  const auto tokenizer = Tokenizer::load(stage.tokenizer.in(results));
  for (const int64_t token : end_tokens(stage, *tokenizer, results))
    plan.params.stop_tokens.push_back(token);
  return plan;
}

std::vector<Prompt> read_prompts(const std::filesystem::path& file,
                                 const Tokenizer& tokenizer,
                                 const TextFormat& format) {
  std::vector<Prompt> prompts;
  for (const Row& row : read_rows(file, RowForm::kPrompt)) {
    prompts.push_back(
        {prompt_tokens(row, tokenizer, format), prompt_text(row, format), row.metadata});
  }
  return prompts;
}

}  // namespace praetor
