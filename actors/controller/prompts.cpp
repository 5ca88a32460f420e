#include "actors/controller/prompts.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

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

int32_t OnlinePlan::policy_samples(const Prompt& prompt) const {
  const auto found = samples_by_task.find(prompt.task);
  return found == samples_by_task.end() ? samples_per_prompt : static_cast<int32_t>(found->second);
}

int32_t OnlinePlan::total_samples(const Prompt& prompt) const {
  return most_samples() - samples_per_prompt + policy_samples(prompt);
}

int32_t OnlinePlan::most_samples() const {
  int64_t out = samples_per_prompt;
  for (const VoicePlan& other : others) out += other.samples;
  return static_cast<int32_t>(out);
}

int32_t OnlinePlan::voice_of(const Prompt& prompt, int32_t sample) const {
  int64_t first = policy_samples(prompt);
  if (sample < first) return 0;
  for (size_t i = 0; i < others.size(); ++i) {
    first += others[i].samples;
    if (sample < first) return static_cast<int32_t>(i + 1);
  }
  throw InternalError("sample ", sample, " of a prompt with ", total_samples(prompt));
}

bool OnlinePlan::rivals(const Prompt& prompt, int32_t sample, int32_t other) const {
  if (scores == ScorePlan::kPairs) return sample < other;
  return scores == ScorePlan::kRivals && voice_of(prompt, sample) == 0 &&
         voice_of(prompt, other) != 0;
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
                  .samples_by_task = samples.samples_by_task,
                  .others = samples.others,
                  .scores = algorithm->score_plan(),
                  .max_staleness = stage.max_staleness,
                  .shuffle = stage.data.shuffle,
                  .params = stage.sampling,
                  .parts = empty_counters(stage.rewards)};
  const auto tokenizer = Tokenizer::load(stage.tokenizer.in(results));
  for (const int64_t token : end_tokens(stage, *tokenizer, results))
    plan.params.stop_tokens.push_back(token);
  return plan;
}

bool OnlinePlan::wants_answers() const {
  return std::ranges::any_of(others, &VoicePlan::from_data);
}

std::function<Prompt(const Prompt&, int64_t ordinal, Purpose purpose)> asked_in_directions(
    DirectionPlan plan,
    TextFormat format,
    std::shared_ptr<const Tokenizer> tokenizer,
    SampleKey key) {
  return
      [plan = std::move(plan), format = std::move(format), tokenizer = std::move(tokenizer), key](
          const Prompt& prompt, int64_t ordinal, Purpose purpose) {
        SampleKey own = key;
        own.prompt_ordinal = static_cast<uint64_t>(ordinal);
        own.sample_index = purpose == Purpose::kEvaluation ? 1 : 0;
        const Direction direction = plan.draw(own);
        Prompt out = prompt;
        out.tokens = prompt_tokens(plan.ask(prompt.row, format, direction), *tokenizer, format);
        out.metadata = with_direction(prompt.metadata, direction);
        return out;
      };
}

std::vector<Prompt> read_prompts(const std::filesystem::path& file,
                                 const Tokenizer& tokenizer,
                                 const TextFormat& format,
                                 const std::string& task_field,
                                 std::optional<WantedAnswers> answers) {
  std::vector<Prompt> prompts;
  for (Row& row : read_rows(file, RowForm::kPrompt)) {
    prompts.push_back(
        {prompt_tokens(row, tokenizer, format), prompt_text(row, tokenizer, format), row.metadata});
    prompts.back().row = row;
    const auto fields = nlohmann::json::parse(row.metadata);
    if (const auto task = fields.find(task_field); task != fields.end() && task->is_string())
      prompts.back().task = task->get<std::string>();
    if (!answers) continue;
    const auto answer = fields.find("baseline");
    if (answer == fields.end() || !answer->is_string() || !row.messages.empty()) {
      throw DataError(
          file.string(),
          ":",
          row.line,
          ": a row with \"prompt\" and a string \"baseline\", its own answer, is wanted "
          "(the stage compares responses with it)");
    }
    row.completion = prompts.back().answer = answer->get<std::string>();
    prompts.back().answered = completion_example(row, tokenizer, format, answers->end);
    const auto length =
        static_cast<int64_t>(prompts.back().answered.tokens.size() - prompts.back().tokens.size());
    if (length > answers->longest) {
      throw DataError(file.string(),
                      ":",
                      row.line,
                      ": \"baseline\" has ",
                      length,
                      " tokens, its end included; a response has at most ",
                      answers->longest,
                      " (sampling.max_new_tokens)");
    }
  }
  return prompts;
}

}  // namespace praetor
