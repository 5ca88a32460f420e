#include "actors/job/check.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "actors/rpc/tls.h"
#include "core/base/error.h"
#include "core/base/str.h"
#include "core/base/text.h"
#include "core/data/dataset.h"
#include "core/data/labels.h"
#include "core/data/pair_question.h"
#include "core/model/peft_folder.h"
#include "core/tokenizer/tokenizer.h"

namespace praetor {

namespace {

namespace fs = std::filesystem;

/// Checks the stages one by one; loads each tokenizer and reads each file once.
class Checker {
 public:
  explicit Checker(const JobConfig& job) : job_(job) {}

  /// The user's own certificates, where this host has them.
  void check_network() {
    const NetworkConfig& network = job_.network;
    if (network.certificate.empty() || network.key.empty() || network.ca.empty()) return;
    YamlReader in = job_.document->root().child("network");
    const std::string& host = network.advertise.empty() ? network.bind : network.advertise;
    for (const TlsFault& fault : faults_of(network.own_files(), host))
      in.error_at(fault.file, fault.message);
  }

  void check(const StageConfig& stage) {
    if (!stage.usable || !stage.trains()) return;
    const auto algorithm = stage.make_algorithm();
    check_model(stage);
    check_lengths(stage);
    check_data(stage, *algorithm);
    if (const auto question = algorithm->sample_plan().question) check_answers(stage, *question);
    if (stage.checkpoint.keeps_best() && !stage.data.eval.given()) {
      YamlReader in = stage.in;
      in.child("checkpoint")
          .error_at(stage.checkpoint.keep == "best" ? "keep" : "keep_best",
                    "best is told by evaluations; data.eval is wanted");
    }
    if (stage.online()) check_online(stage, *algorithm);
  }

 private:
  /// What went wrong at `key`, when that is an error of the input.
  template <typename Load>
  auto attempt(YamlReader in, const std::string& key, const Load& load)
      -> std::optional<decltype(load())> {
    try {
      return load();
    } catch (const InternalError&) {
      throw;
    } catch (const Error& failure) {
      std::istringstream lines(failure.what());
      for (std::string line; std::getline(lines, line);) in.error_at(key, line);
    }
    return std::nullopt;
  }

  static bool is_folder(YamlReader in, const std::string& key, const fs::path& path) {
    std::error_code ignored;
    if (fs::is_directory(path, ignored)) return true;
    in.error_at(key,
                fs::exists(path, ignored) ? str(path.string(), " is a file; a folder is wanted")
                                          : str("no such folder: ", path.string()));
    return false;
  }

  /// Tokens of the folder's tokenizer; 0 when it cannot be loaded, which is then recorded at `key`.
  int64_t vocabulary(YamlReader in, const std::string& key, const fs::path& folder) {
    if (const auto known = vocabularies_.find(folder); known != vocabularies_.end())
      return known->second;
    const auto size = attempt(in, key, [&] { return Tokenizer::load(folder)->vocab_size(); });
    return vocabularies_[folder] = size.value_or(0);
  }

  static void check_weights(YamlReader in, const std::string& key, const fs::path& folder) {
    std::error_code ignored;
    for (const char* file : {"model.safetensors", "model.safetensors.index.json"}) {
      if (fs::exists(folder / file, ignored)) return;
    }
    in.error_at(
        key,
        str(folder.string(),
            " has no weights: model.safetensors, or model.safetensors.index.json, is wanted"));
  }

  void check_fit(YamlReader in,
                 const std::string& key,
                 int64_t tokens,
                 const fs::path& folder,
                 int64_t embeddings) {
    if (tokens > embeddings) {
      in.error_at(key,
                  str("the tokenizer in ",
                      folder.string(),
                      " has ",
                      tokens,
                      " tokens, more than the model's ",
                      embeddings,
                      " embeddings"));
    }
  }

  void check_model(const StageConfig& stage) {
    YamlReader in = stage.in;
    const fs::path& folder = stage.model.source.path;
    bool good = true;
    if (!folder.empty()) {
      YamlReader section = in.child("model");
      good = is_folder(section, "path", folder) &&
             attempt(section, "path", [&] { return ModelConfig::load(folder); }).has_value();
      if (good) check_weights(section, "path", folder);
    }
    if (stage.shape && !stage.model.create && !stage.model.adapter.empty()) {
      ModelConfig shape = *stage.shape;
      shape.vocab_size = std::max<int64_t>(1, shape.vocab_size);  // the tokenizer's, later
      YamlReader section = in.child("model");
      if (is_folder(section, "adapter", stage.model.adapter))
        attempt(section, "adapter", [&] { return load_peft(stage.model.adapter, shape); });
    }
    if (stage.tokenizer.path.empty()) return;
    const bool own = in.has("tokenizer");
    YamlReader section = in.child(own ? "tokenizer" : "model");
    if (own ? !is_folder(section, "path", stage.tokenizer.path) : !good) return;
    const int64_t tokens = vocabulary(section, "path", stage.tokenizer.path);
    if (stage.shape && stage.shape->vocab_size > 0) {
      check_fit(section, "path", tokens, stage.tokenizer.path, stage.shape->vocab_size);
    }
  }

  /// The answers to a question are single tokens of the stage's tokenizer. That of an earlier stage
  /// is not there yet.
  void check_answers(const StageConfig& stage, const PairQuestion& question) {
    const fs::path& folder = stage.tokenizer.path;
    const auto known = vocabularies_.find(folder);
    if (known == vocabularies_.end() || known->second == 0) return;  // said already
    attempt(YamlReader(stage.in).child(stage.kind), "answers", [&] {
      return answer_tokens(question.answers, *Tokenizer::load(folder));
    });
  }

  static void check_lengths(const StageConfig& stage) {
    if (!stage.shape) return;
    YamlReader data = YamlReader(stage.in).child("data");
    const int64_t positions = stage.shape->max_positions;
    const int64_t longest = stage.data.format.max_length;
    if (!stage.online()) {
      if (longest > positions) {
        data.error_at("max_length",
                      str(longest, " is more than the model's ", positions, " positions"));
      }
      return;
    }
    const int64_t response = stage.sampling.max_new_tokens;
    if (longest + response > positions) {
      data.error_at("max_length",
                    str("prompts of ",
                        longest,
                        " tokens and responses of ",
                        response,
                        " (sampling.max_new_tokens) are more than the model's ",
                        positions,
                        " positions"));
    }
  }

  void check_data(const StageConfig& stage, const Algorithm& algorithm) {
    YamlReader in = stage.in;
    const SamplePlan plan = algorithm.sample_plan();
    const auto train = check_file(stage, "train", stage.data.train, plan.rows);
    check_file(stage, "eval", stage.data.eval, plan.rows);
    if (stage.eval.every > 0 && !stage.data.eval.given()) {
      in.child("eval").error_at("every", "there is nothing to evaluate on; data.eval is wanted");
    }
    if (stage.eval.require_rise && !stage.data.eval.given()) {
      in.child("eval").error_at("require_rise",
                                "a rise is told by evaluations; data.eval is wanted");
    } else if (stage.eval.require_rise && !stage.online()) {
      in.child("eval").error_at(
          "require_rise",
          str("only a stage of rollouts has a score that should rise; this one is ", stage.kind));
    }
    check_labels(stage, "train", stage.data.train, plan.labels);
    check_labels(stage, "eval", stage.data.eval, plan.labels);
    if (const auto gate = algorithm.models().gate; gate && !gate->verbosity.empty()) {
      const auto known = attributes_of(
          YamlReader(in).child("model"), stage.model.source.path, stage.model.source.stage);
      const auto wrong = known ? unknown_attribute(gate->verbosity, *known) : std::nullopt;
      if (wrong) in.child(stage.kind).error_at("verbosity", *wrong);
    }
    if (train && *train > 0 && !stage.steps &&
        stage.total_steps(*train, plan.prompts_per_step) == 0) {
      in.child("data").error_at("train",
                                str("has ",
                                    *train,
                                    " rows, ",
                                    *train * stage.epochs.value_or(1),
                                    " in ",
                                    stage.epochs.value_or(1),
                                    " epochs, but one step takes ",
                                    plan.prompts_per_step));
    }
  }

  /// Labels are numbers, and each that is wanted stands in some row.
  static void check_labels(const StageConfig& stage,
                           const std::string& key,
                           const Source& source,
                           const std::vector<std::string>& labels) {
    if (labels.empty() || !source.given()) return;
    YamlReader section = YamlReader(stage.in).child("data");
    std::vector<std::string> known;
    if (source.from_stage()) {
      known = {"kindness", "verbosity"};  // actors/toy/toy_language.h
      if (!source.file.starts_with("attributes"))
        section.error_at(key, str(source.file, " has no labels; attributes.jsonl has"));
    } else {
      std::vector<Row> rows;
      try {
        rows = read_rows(source.path, RowForm::kCompletion);
      } catch (const Error&) {
        return;  // said already
      }
      std::set<std::string> found;
      for (const Row& row : rows) {
        try {
          const auto values = row_labels(row.metadata, labels);
          for (size_t i = 0; i < labels.size(); ++i) {
            if (!std::isnan(values[i])) found.insert(labels[i]);
          }
        } catch (const DataError& failure) {
          section.error_at(key, str(source.path.string(), ":", row.line, ": ", failure.what()));
          return;  // one row is enough to see what is wrong
        }
      }
      known.assign(found.begin(), found.end());
    }
    YamlReader attributes = YamlReader(stage.in).child(stage.kind).child("attributes");
    for (const std::string& label : labels) {
      if (std::ranges::find(known, label) != known.end()) continue;
      attributes.error_at(label, str("no row of data.", key, " is labelled with it"));
    }
  }

  /// Rows of the file, when it can be read.
  std::optional<int64_t> check_file(const StageConfig& stage,
                                    const std::string& key,
                                    const Source& source,
                                    RowForm form) {
    if (!source.given()) return std::nullopt;
    if (source.from_stage()) return count_rows(job_, source, form);
    YamlReader section = YamlReader(stage.in).child("data");
    std::error_code ignored;
    if (!fs::exists(source.path, ignored)) {
      section.error_at(key, str("no such file: ", source.path.string()));
      return std::nullopt;
    }
    const auto rows = attempt(
        section, key, [&] { return static_cast<int64_t>(read_rows(source.path, form).size()); });
    if (rows && *rows == 0) section.error_at(key, str(source.path.string(), " has no rows"));
    return rows;
  }

  void check_online(const StageConfig& stage, const Algorithm& algorithm) {
    YamlReader in = stage.in;
    const SamplePlan plan = algorithm.sample_plan();
    int64_t trained = plan.samples_per_prompt;
    for (const VoicePlan& other : plan.others) trained += other.trained ? other.samples : 0;
    const int64_t sequences = plan.prompts_per_step * trained;
    const int64_t minibatches = algorithm.update_plan().minibatches;
    if (minibatches > sequences) {
      in.child(stage.kind)
          .error_at("minibatches",
                    str(minibatches, " is more than the ", sequences, " responses of a step"));
    }
    const auto parts = list_parts(stage.rewards);
    const bool has_model = std::ranges::any_of(
        parts, [](const ListedPart& part) { return part.config->model.has_value(); });
    if (algorithm.models().critic_init == "reward" &&
        algorithm.models().critic != CriticKind::kNone && !has_model) {
      in.child(stage.kind)
          .child("critic")
          .error_at("init",
                    "reward starts from the reward model, but no part of rewards is of kind model");
    }
    for (const ListedPart& part : parts) {
      check_reward_model(*part.config);
      check_question(*part.config);
      check_attributes(*part.config);
    }
    check_direction(stage, algorithm, parts);
    check_preferences(stage, algorithm, parts);
    check_tasks(stage, "train", stage.data.train);
    check_tasks(stage, "eval", stage.data.eval);
  }

  /// Responses are compared where the algorithm asks for it, and only there.
  static void check_preferences(const StageConfig& stage,
                                const Algorithm& algorithm,
                                const std::vector<ListedPart>& parts) {
    const ScorePlan plan = algorithm.score_plan();
    const bool wanted = plan == ScorePlan::kPairs || plan == ScorePlan::kRivals;
    YamlReader in = stage.in;
    std::set<std::optional<size_t>> covered;
    for (const ListedPart& part : parts) {
      if (!part.config->preference) continue;
      covered.insert(part.task);
      if (wanted) continue;
      YamlReader at = *part.config->place;
      at.error_at("kind",
                  str(stage.kind, " compares no responses, so that there is nothing to prefer"));
    }
    if (!wanted || covered.contains(std::nullopt)) return;
    YamlReader rewards = in.child("rewards");
    const auto& tasks = stage.rewards.tasks;
    const std::string need =
        str(stage.kind, " learns from preferences; a part of kind preference is wanted");
    if (tasks.empty()) rewards.error_at("parts", need);
    for (size_t i = 0; i < tasks.size(); ++i) {
      if (!covered.contains(i)) rewards.child("tasks").child(tasks[i].name).error_at("parts", need);
    }
  }

  /// A preference model of the job is asked what it was taught.
  void check_question(const PartConfig& part) const {
    if (!part.preference || !part.preference->generative) return;
    const StageConfig* maker = job_.find(part.preference->folder().stage);
    if (!maker || maker->result != StageResult::kPreferenceModel) return;
    const auto taught = maker->make_algorithm()->sample_plan().question;
    const PairQuestion& asked = part.preference->question;
    const auto text = [](const PairQuestion& q) { return q.fill("{prompt}", "{a}", "{b}"); };
    YamlReader at = *part.place;
    if (text(asked) != text(*taught)) {
      at.error_at("text",
                  str("is not what stage \"",
                      maker->name,
                      "\" was trained on: \"",
                      printable(text(*taught)),
                      "\""));
    }
    if (asked.answers != taught->answers) {
      at.error_at("answers",
                  str("stage \"",
                      maker->name,
                      "\" was trained to answer ",
                      printable(taught->answers[0]),
                      " or ",
                      printable(taught->answers[1])));
    }
  }

  /// Attributes that a part, or a gate's section, names are those of the model.
  void check_attributes(const PartConfig& part) {
    if (!part.attributes) return;
    const auto known = attributes_of(*part.place, part.attributes->path, part.attributes->stage);
    if (!known) return;
    YamlReader at = *part.place;
    if (const auto misfit = part.attributes->misfit(*known))
      at.error_at(misfit->first, misfit->second);
  }

  /// What a model gives, where that can be known before the job runs.
  std::optional<std::vector<std::string>> attributes_of(YamlReader at,
                                                        const fs::path& path,
                                                        const std::string& stage) {
    std::error_code ignored;
    if (!path.empty()) {
      if (!fs::exists(path / "config.json", ignored)) return std::nullopt;  // said already
      return attempt(at, "path", [&] { return names_of(attributes_in(path)); });
    }
    const StageConfig* maker = job_.find(stage);
    if (!maker || maker->result != StageResult::kAttributeModel) return std::nullopt;
    const SamplePlan plan = maker->make_algorithm()->sample_plan();
    if (!plan.labels.empty()) return plan.labels;
    return attributes_of(
        YamlReader(maker->in).child("model"), maker->model.source.path, maker->model.source.stage);
  }

  /// A method that asks in directions learns from one part that scores by them.
  static void check_direction(const StageConfig& stage,
                              const Algorithm& algorithm,
                              const std::vector<ListedPart>& parts) {
    if (!algorithm.sample_plan().direction) return;
    YamlReader rewards = YamlReader(stage.in).child("rewards");
    int64_t directed = 0;
    for (const ListedPart& part : parts) {
      if (!part.config->attributes) continue;
      YamlReader at = *part.config->place;
      const size_t objectives = part.config->attributes->direction.size();
      if (objectives == 0) continue;
      directed += part.top && !part.task && part.use == PartUse::kReward ? 1 : 0;
      if (objectives != 2) {
        at.error_at("direction",
                    str("names ",
                        objectives,
                        " attributes, but ",
                        stage.kind,
                        " draws directions of two objectives"));
      }
    }
    if (directed != 1) {
      rewards.error_at("parts",
                       str(stage.kind,
                           " learns from one part of kind attributes with a direction, for every "
                           "sample and with use: reward; there ",
                           directed == 0 ? "is none" : "are several"));
    }
  }

  /// Every row names one of the tasks.
  void check_tasks(const StageConfig& stage, const std::string& key, const Source& source) {
    std::error_code ignored;
    if (stage.rewards.tasks.empty() || !source.given()) return;
    YamlReader section = YamlReader(stage.in).child("data");
    if (source.from_stage()) {
      section.error_at(key,
                       "the rows of a toy_language stage name no task, but rewards.tasks is given");
      return;
    }
    if (!fs::exists(source.path, ignored)) return;  // said already
    std::vector<Row> rows;
    try {
      rows = read_rows(source.path, RowForm::kPrompt);
    } catch (const Error&) {
      return;  // said already
    }
    for (const Row& row : rows) {
      try {
        stage.rewards.task_of(row.metadata);
      } catch (const DataError& failure) {
        section.error_at(key, str(source.path.string(), ":", row.line, ": ", failure.what()));
        return;  // one row is enough to see what is wrong
      }
    }
  }

  void check_reward_model(const PartConfig& part) {
    const auto source = part.folder();
    if (!source || source->path.empty()) return;
    const fs::path& folder = source->path;
    YamlReader in = *part.place;
    std::error_code ignored;
    if (!fs::exists(folder / "config.json", ignored)) return;  // said when the section was read
    const auto shape = attempt(in, "path", [&] { return ModelConfig::load(folder); });
    if (!shape) return;
    check_weights(in, "path", folder);
    check_fit(in, "path", vocabulary(in, "path", folder), folder, shape->vocab_size);
    if (source->max_length > shape->max_positions) {
      in.error_at("max_length",
                  str(source->max_length,
                      " is more than the model's ",
                      shape->max_positions,
                      " positions"));
    }
  }

  const JobConfig& job_;
  std::map<fs::path, int64_t> vocabularies_;
};

}  // namespace

std::vector<std::string> check_job(const JobConfig& job) {
  Checker checker(job);
  checker.check_network();
  for (const StageConfig& stage : job.stages) checker.check(stage);
  return job.document->errors();
}

std::vector<std::string> notes_on(const JobConfig& job) {
  std::vector<std::string> out;
  if (job.placement != "separate") return out;
  for (const StageConfig& stage : job.stages) {
    if (!stage.trains()) continue;
    const auto algorithm = stage.make_algorithm();
    const SamplePlan samples = algorithm->sample_plan();
    if (samples.prompts_per_step == 0) continue;  // every row at once
    int64_t of_prompt = algorithm->online() ? samples.samples_per_prompt : 1;
    for (const VoicePlan& other : samples.others) of_prompt += other.trained ? other.samples : 0;
    for (const auto& [task, count] : samples.samples_by_task)
      of_prompt = std::max(of_prompt, count);
    const int64_t minibatches = algorithm->update_plan().minibatches;
    const int64_t all = samples.prompts_per_step * of_prompt;
    const int64_t most = (all + minibatches - 1) / minibatches;
    const int64_t tensor = stage.learner.sharding.tensor;
    const int64_t idle = job.roles.learner_ranks - tensor * most;
    if (idle <= 0) continue;
    const char* const what = algorithm->online()                    ? "responses"
                             : samples.rows == RowForm::kPreference ? "pairs"
                                                                    : "rows";
    out.push_back(str("stage ",
                      stage.name,
                      ": an optimizer step has at most ",
                      most,
                      " ",
                      what,
                      ", so that ",
                      idle,
                      " of the ",
                      job.roles.learner_ranks,
                      " ranks of roles.learner.ranks have nothing to do in it; at most ",
                      tensor * most,
                      " ranks, or more ",
                      what,
                      " a step, are wanted"));
  }
  return out;
}

JobConfig load_checked_job(const fs::path& file, const std::vector<std::string>& overrides) {
  JobConfig job = JobConfig::read(file, overrides);
  const auto errors = check_job(job);
  if (!errors.empty()) throw ConfigError(join(errors, "\n"));
  return job;
}

std::optional<int64_t> count_rows(const JobConfig& job, const Source& source, RowForm form) {
  if (!source.from_stage()) {
    try {
      return static_cast<int64_t>(read_rows(source.path, form).size());
    } catch (const Error&) {
      return std::nullopt;
    }
  }
  const StageConfig* stage = job.find(source.stage);
  if (!stage || stage->trains()) return std::nullopt;
  if (source.file == "sft.jsonl") return stage->toy.sft_rows;
  if (source.file == "pairs.jsonl") return stage->toy.pair_rows;
  if (source.file == "pairs_eval.jsonl") return stage->toy.eval_rows;
  if (source.file == "attributes.jsonl") return stage->toy.attribute_rows;
  if (source.file == "attributes_eval.jsonl") return 2 * stage->toy.eval_rows;
  if (source.file == "prompts_train.jsonl") return stage->toy.prompt_rows;
  if (source.file == "prompts_eval.jsonl") return stage->toy.eval_rows;
  return std::nullopt;
}

}  // namespace praetor
