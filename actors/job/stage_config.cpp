#include "actors/job/stage_config.h"

#include <algorithm>
#include <mutex>

#include "core/base/error.h"
#include "core/base/str.h"
#include "core/base/text.h"
#include "core/cuda/decoder.h"
#include "core/model/families.h"
#include "core/model/tensor_split.h"
#include "rollout/sampling_config.h"

namespace praetor {

namespace {

constexpr int64_t kLongest = 1024;  // default of data.max_length where the model allows it

/// What a toy_language stage writes (actors/toy/toy_language.h), by the form of its rows.
const std::vector<std::pair<std::string, RowForm>> kToyFiles = {
    {"sft.jsonl", RowForm::kCompletion},
    {"pairs.jsonl", RowForm::kPreference},
    {"pairs_eval.jsonl", RowForm::kPreference},
    {"attributes.jsonl", RowForm::kCompletion},
    {"attributes_eval.jsonl", RowForm::kCompletion},
    {"prompts_train.jsonl", RowForm::kPrompt},
    {"prompts_eval.jsonl", RowForm::kPrompt}};

/// Records an error for each of learner.optimizer.groups that no parameter is left for.
void require_groups(YamlReader& learner,
                    const OptimizerConfig& optimizer,
                    ModelConfig shape,
                    bool language_head) {
  if (optimizer.groups.empty()) return;
  shape.vocab_size = std::max<int64_t>(shape.vocab_size, 1);  // perhaps not known yet
  std::vector<std::string> names{"score.weight"};             // of a scalar head
  try {
    for (const ParameterSpec& spec : parameter_layout(shape, language_head))
      names.push_back(spec.name);
  } catch (const InvalidArgument&) {
    return;  // sizes that are an error of their own
  }
  std::vector<YamlReader> items = learner.child("optimizer").list("groups");
  for (size_t i = 0; i < std::min(items.size(), optimizer.groups.size()); ++i) {
    const OptimizerGroup* group = &optimizer.groups[i];
    const bool used = std::ranges::any_of(
        names, [&](const std::string& name) { return optimizer.group_of(name) == group; });
    if (used || group->match.empty()) continue;
    items[i].error_at("match",
                      str("no parameter is left for \"",
                          printable(group->match),
                          "\"; they have names such as ",
                          names.back(),
                          ", and belong to the first group that matches"));
  }
}

/// The earlier stage that `key` of `in` names, when it is one and leaves one of `wanted`; else an
/// error is recorded.
const StageConfig* resolve_stage(YamlReader& in,
                                 const std::string& key,
                                 const std::string& name,
                                 std::span<const StageConfig> earlier,
                                 const std::vector<std::string>& names,
                                 const std::vector<StageResult>& wanted) {
  // From the back: where a name is given twice, which is an error of its own, the later one is more
  // likely meant.
  const StageConfig* found = nullptr;
  for (const StageConfig& candidate : earlier) {
    if (candidate.name == name) found = &candidate;
  }
  if (!found) {
    const size_t self = earlier.size();
    if (self < names.size() && names[self] == name) {
      in.error_at(key,
                  str("stage \"", printable(name), "\" is this stage; an earlier one is wanted"));
    } else if (std::ranges::find(names, name) != names.end()) {
      in.error_at(
          key,
          str("stage \"", printable(name), "\" comes later; only earlier stages have a result"));
    } else {
      std::vector<std::string> before(names.begin(),
                                      names.begin() + static_cast<std::ptrdiff_t>(self));
      const auto near = nearest(name, before);
      in.error_at(key,
                  str("no stage is named \"",
                      printable(name),
                      "\"",
                      near             ? str(", did you mean \"", *near, "\"?")
                      : before.empty() ? "; this is the first stage"
                                       : str("; earlier stages: ", join(before, ", "))));
    }
    return nullptr;
  }
  if (!found->usable) return nullptr;
  if (std::ranges::find(wanted, found->result) == wanted.end()) {
    std::vector<std::string> texts;
    for (const StageResult result : wanted) texts.emplace_back(to_string(result));
    in.error_at(key,
                str("stage \"",
                    printable(name),
                    "\" makes ",
                    to_string(found->result),
                    ", but ",
                    join(texts, " or "),
                    " is wanted"));
    return nullptr;
  }
  return found;
}

/// The last earlier stage with that result, or null.
const StageConfig* last_with(std::span<const StageConfig> earlier, StageResult result) {
  for (size_t i = earlier.size(); i-- > 0;) {
    if (earlier[i].usable && earlier[i].result == result) return &earlier[i];
  }
  return nullptr;
}

/// False when the kind of an earlier stage is not known: what it would have made cannot be missed
/// then.
bool all_usable(std::span<const StageConfig> earlier) {
  return std::ranges::all_of(earlier, &StageConfig::usable);
}

}  // namespace

const std::vector<std::string>& stage_kind_names() {
  static const std::vector<std::string> kNames = [] {
    std::vector<std::string> names = algorithm_names();
    names.insert(names.begin(), kToyLanguage);
    return names;
  }();
  return kNames;
}

const char* to_string(StageResult result) {
  switch (result) {
    case StageResult::kLanguage:
      return "a tokenizer and data";
    case StageResult::kPolicy:
      return "a policy";
    case StageResult::kRewardModel:
      return "a reward model";
    case StageResult::kPreferenceModel:
      return "a preference model";
    case StageResult::kAttributeModel:
      return "an attribute model";
  }
  throw InternalError("stage result ", static_cast<int>(result));
}

std::unique_ptr<Algorithm> StageConfig::make_algorithm() const {
  // The document remembers which keys were asked for, and ranks may be threads.
  static std::mutex reading;
  const std::lock_guard lock(reading);
  YamlReader stage = in;
  return praetor::make_algorithm(kind, AlgorithmContext{stage.child(kind)});
}

int64_t StageConfig::total_steps(int64_t row_count, int64_t per_step) const {
  if (per_step == 0) return 1;
  if (steps) return *steps;
  PRAETOR_CHECK(row_count >= 0 && per_step >= 1, row_count, " rows, ", per_step, " a step");
  return row_count * epochs.value_or(1) / per_step;
}

StageConfig StageConfig::identify(YamlReader in, uint32_t index) {
  StageConfig stage(in);
  stage.index = index;
  const std::string kind = in.require_string("kind", stage_kind_names());
  const auto& kinds = stage_kind_names();
  stage.usable = std::ranges::find(kinds, kind) != kinds.end();
  if (stage.usable) stage.kind = kind;
  // At the top level of a single-stage job `name` is the job's.
  stage.name = in.path().empty() ? kind : in.get("name", kind);
  if (!in.path().empty() && in.has("name") && !stage.name.empty() && !is_safe_name(stage.name)) {
    in.error_at(
        "name",
        str("\"",
            printable(stage.name),
            "\" may hold letters, digits, \"_\", \"-\" and \".\" only, and names a folder"));
  }
  return stage;
}

void StageConfig::read(std::span<const StageConfig> earlier,
                       const std::vector<std::string>& names,
                       const CheckpointConfig& defaults) {
  if (!usable) return;  // without a kind there is no telling which keys are known
  if (!trains()) {
    result = StageResult::kLanguage;
    read_toy_language();
  } else {
    const auto algorithm = make_algorithm();
    const SamplePlan samples = algorithm->sample_plan();
    rows = samples.rows;
    const ModelPlan plan = algorithm->models();
    result = !samples.labels.empty() || plan.gate ? StageResult::kAttributeModel
             : plan.reward_model                  ? StageResult::kRewardModel
             : samples.question                   ? StageResult::kPreferenceModel
                                                  : StageResult::kPolicy;
    start = plan.gate ? StageResult::kAttributeModel : StageResult::kPolicy;
    probes = plan.probe.has_value();
    read_model(earlier, names);
    read_tokenizer(earlier, names);
    if (online()) read_online(earlier, names);
    read_staleness(*algorithm);
    read_data(earlier, names);
    read_length();
    if (samples.prompts_per_step == 0 && (steps.value_or(1) != 1 || epochs.value_or(1) != 1)) {
      in.error_at(steps ? "steps" : "epochs",
                  str(kind, " takes every row at once, in its only step; leave it out"));
    }
    eval = EvalConfig::from_yaml(in.child("eval"));
    checkpoint = CheckpointConfig::from_yaml(in.child("checkpoint"), defaults);
    read_learner(*algorithm);
  }
  if (!in.path().empty()) in.reject_unknown_keys();
}

void StageConfig::read_toy_language() {
  YamlReader section = in.child("toy_language");
  toy.sft_rows = section.get("sft_rows", toy.sft_rows, closed(1, 1e6));
  toy.pair_rows = section.get("pair_rows", toy.pair_rows, closed(1, 1e6));
  toy.prompt_rows = section.get("prompt_rows", toy.prompt_rows, closed(1, 1e6));
  toy.eval_rows = section.get("eval_rows", toy.eval_rows, closed(1, 1e6));
  toy.attribute_rows = section.get("attribute_rows", toy.attribute_rows, closed(1, 1e6));
  section.reject_unknown_keys();
}

void StageConfig::read_model(std::span<const StageConfig> earlier,
                             const std::vector<std::string>& names) {
  const bool written = in.optional_child("model").has_value();
  if (!written) {
    const StageConfig* from = last_with(earlier, start);
    if (!from) {
      if (all_usable(earlier)) {
        in.error_at("",
                    str("missing key \"model\"; no earlier stage makes ",
                        to_string(start),
                        " to start from, so model.path, model.stage or model.create is wanted"));
      }
      return;
    }
    in.child("model").resolve("stage", from->name);
  }
  YamlReader section = in.child("model");
  model.source.path = section.get_path("path");
  model.source.stage = section.get_optional_string("stage").value_or("");
  model.adapter = section.get_path("adapter");
  if (auto create = section.optional_child("create"))
    model.create = created_model_from_yaml(*create);
  section.reject_unknown_keys();
  const int given = section.has("path") + section.has("stage") + section.has("create");
  if (written && given != 1) {
    section.error_at("",
                     given == 0 ? "one of path, stage and create is wanted"
                                : "more than one of path, stage and create is given; keep one");
    model = {};
    return;
  }
  if (model.create) {
    if (!model.adapter.empty())
      section.error_at("adapter", "no adapter was trained on a new model; path or stage is wanted");
    if (start != StageResult::kPolicy) {
      section.error_at("create",
                       str("a new model has nothing to teach; ", to_string(start), " is wanted"));
    }
    shape = model.create;
  } else if (model.source.from_stage()) {
    // A preference model is where the next one may start, and no policy; a probe takes any
    // reward model's backbone.
    std::vector<StageResult> wanted = {start};
    if (result == StageResult::kPreferenceModel) wanted.push_back(result);
    if (probes)
      wanted.insert(wanted.end(), {StageResult::kRewardModel, StageResult::kAttributeModel});
    const auto* from = resolve_stage(section, "stage", model.source.stage, earlier, names, wanted);
    if (from) shape = from->shape;
  } else if (!model.source.path.empty()) {
    try {
      shape = ModelConfig::load(model.source.path);
    } catch (const Error&) {
      // check_job names what is wrong with the folder.
    }
  }
}

void StageConfig::read_tokenizer(std::span<const StageConfig> earlier,
                                 const std::vector<std::string>& names) {
  if (auto section = in.optional_child("tokenizer")) {
    tokenizer.path = section->get_path("path");
    tokenizer.stage = section->get_optional_string("stage").value_or("");
    if (section->has("path") == section->has("stage")) {
      section->error_at("", "one of path (a folder) and stage (an earlier stage) is wanted");
      tokenizer = {};
    } else if (tokenizer.from_stage()) {
      resolve_stage(*section,
                    "stage",
                    tokenizer.stage,
                    earlier,
                    names,
                    {StageResult::kLanguage,
                     StageResult::kPolicy,
                     StageResult::kRewardModel,
                     StageResult::kPreferenceModel,
                     StageResult::kAttributeModel});
    }
    section->reject_unknown_keys();
    return;
  }
  if (!model.create) {
    tokenizer = model.source;
    return;
  }
  const StageConfig* language = last_with(earlier, StageResult::kLanguage);
  if (!language) {
    if (!all_usable(earlier)) return;
    in.error_at("",
                "missing key \"tokenizer\"; a created model has none of its own, so tokenizer.path "
                "is wanted");
    return;
  }
  tokenizer.stage = language->name;
  in.child("tokenizer").resolve("stage", tokenizer.stage);
}

void StageConfig::read_data(std::span<const StageConfig> earlier,
                            const std::vector<std::string>& names) {
  int64_t longest = kLongest;
  if (shape) {
    const int64_t reserved = online() ? sampling.max_new_tokens : 0;
    longest = std::max<int64_t>(1, std::min(longest, shape->max_positions - reserved));
  }
  YamlReader section = in.child("data");
  data = DataConfig::from_yaml(section, longest);
  for (const char* key : {"train", "eval"}) {
    const Source& source = std::string(key) == "train" ? data.train : data.eval;
    if (!source.from_stage()) continue;
    if (!resolve_stage(section, key, source.stage, earlier, names, {StageResult::kLanguage}))
      continue;
    const auto file =
        std::ranges::find(kToyFiles, source.file, &std::pair<std::string, RowForm>::first);
    std::vector<std::string> fitting;
    for (const auto& [made, form] : kToyFiles) {
      if (form == rows || online()) fitting.push_back(made);  // every file has prompts
    }
    if (file == kToyFiles.end() || std::ranges::find(fitting, source.file) == fitting.end()) {
      section.error_at(key,
                       str("stage \"",
                           source.stage,
                           "\" makes no file \"",
                           source.file,
                           "\" for ",
                           kind,
                           "; it makes ",
                           join(fitting, ", ")));
    }
  }
}

void StageConfig::read_length() {
  if (!in.has("epochs") && !in.has("steps")) {
    epochs = in.get("epochs", 1, closed(1, 1e6));
    return;
  }
  epochs = in.get_optional_integer("epochs", closed(1, 1e6));
  steps = in.get_optional_integer("steps", closed(1, 1e9));
  if (in.has("epochs") && in.has("steps")) {
    in.error_at("steps", "epochs is given as well; keep one of the two");
  }
}

void StageConfig::read_learner(const Algorithm& algorithm) {
  YamlReader section = in.child("learner");
  learner = LearnerConfig::from_yaml(section);
  if (learner.sharding.tensor > 1 && shape) {
    ModelConfig known = *shape;
    // Of a model that is yet to be made it is the tokenizer's, and large enough.
    if (known.vocab_size == 0)
      known.vocab_size = std::max(learner.sharding.tensor, known.num_heads);
    if (const auto wrong = wrong_tensor_ranks(known, learner.sharding.tensor))
      section.child("sharding").error_at("tensor", *wrong);
  }
  if (learner.sharding.tensor > 1 && learner.optimizer.kind == "adafactor") {
    section.child("optimizer")
        .error_at(
            "kind",
            "adafactor keeps sums over whole rows and columns of matrices, which sharding.tensor "
            "splits; adamw or sgd is wanted");
  }
  const ModelPlan plan = algorithm.models();
  const bool on_cpu = learner.device.is_cpu();
  const auto check_offload = [&](YamlReader optimizer, const OptimizerConfig& settings) {
    if (on_cpu && settings.offload) {
      optimizer.error_at("offload",
                         "a learner on the CPU has what its optimizer keeps there already; leave "
                         "this key out, or take learner.device: cuda");
    }
  };
  check_offload(section.child("optimizer"), learner.optimizer);
  if (plan.critic == CriticKind::kSeparate)
    check_offload(in.child(kind).child("critic").child("optimizer"), plan.critic_optimizer);
  if (plan.probe && learner.precision != c10::kFloat) {
    section.error_at("precision",
                     str(kind, " finds its head in closed form, in float32; leave this key out"));
  }
  if (shape && !plan.gate && !plan.probe && !learner.lora)
    require_groups(section, learner.optimizer, *shape, !plan.reward_model);
  if (!learner.lora) return;
  if (plan.gate || plan.probe) {
    section.error_at("lora", str(kind, " trains a head over a backbone that stays as it is"));
  } else if (model.create) {
    section.error_at(
        "lora",
        "a created model has random weights, which no adapter makes good; train all of "
        "them first, or start from model.path or model.stage");
  }
  if (!shape) return;
  ModelConfig known = *shape;
  known.vocab_size = std::max<int64_t>(1, known.vocab_size);  // the tokenizer's, later
  YamlReader lora = section.child("lora");
  bool known_targets = true;
  for (const std::string& target : learner.lora->targets) {
    const auto wrong = wrong_lora_target(known, target);
    if (wrong) lora.error_at("targets", *wrong);
    known_targets = known_targets && !wrong;
  }
  if (!known_targets) return;
  if (const auto wrong = wrong_lora_rank(known, *learner.lora)) lora.error_at("rank", *wrong);
}

void StageConfig::read_staleness(const Algorithm& algorithm) {
  if (!online()) {
    const std::string why = str(kind, " learns from rows of a file: no sample of it can be stale");
    if (in.has("max_staleness")) {
      in.get("max_staleness", 0);
      in.error_at("max_staleness", why);
    }
    if (in.has("partial_rollouts")) {
      in.get("partial_rollouts", false);
      in.error_at("partial_rollouts", why);
    }
    return;
  }
  // Samples of other weights than the learner's, older or of another kind: the decoupled objective
  // (arXiv:2505.24298) with truncated weights, unless the job says otherwise.
  const auto weigh_samples = [&] {
    YamlReader mismatch = in.child(kind).child("mismatch");
    if (!mismatch.has("correction")) mismatch.resolve("correction", "token_tis");
  };
  if (engine.weights != WeightKind::kFloat32 && algorithm.corrects_staleness()) weigh_samples();
  max_staleness = in.get("max_staleness", max_staleness, closed(0, 1000));
  partial_rollouts = in.get("partial_rollouts", max_staleness > 0);
  if (max_staleness == 0) {
    if (partial_rollouts)
      in.error_at("partial_rollouts",
                  "no response is open when new weights come, as max_staleness is 0");
    return;
  }
  if (!algorithm.corrects_staleness()) {
    in.error_at("max_staleness",
                str(kind,
                    " learns from samples of the present policy: 0 is wanted (ppo, grpo, dr_grpo, "
                    "dapo, gspo, rloo, reinforce_pp and remax correct for older ones)"));
    return;
  }
  weigh_samples();
}

void StageConfig::read_online(std::span<const StageConfig> earlier,
                              const std::vector<std::string>& names) {
  YamlReader section = in.child("sampling");
  sampling = sampling_from_yaml(section);
  if (sampling.temperature == 0) {
    section.error_at(
        "temperature",
        "0 samples one response only, from which nothing can be learned; > 0 is wanted");
  }
  YamlReader engine_section = in.child("engine");
  engine = EngineConfig::from_yaml(engine_section);
  if (engine.device == EngineDevice::kCuda && shape) {
    ModelConfig known = *shape;
    known.vocab_size = std::max<int64_t>(1, known.vocab_size);  // the tokenizer's, later
    const std::string what = cuda::Decoder::unsupported(known);
    if (!what.empty())
      engine_section.error_at("device", str("cuda does not compute ", what, "; cpu does"));
  }
  rewards = RewardConfig::from_yaml(in.child("rewards"));
  for (const ListedPart& part : list_parts(rewards)) {
    const auto folder = part.config->folder();
    if (!folder || folder->stage.empty()) continue;
    YamlReader at = *part.config->place;
    const std::vector<StageResult> wanted =
        folder->attributes ? std::vector{StageResult::kAttributeModel}
        : folder->scalar   ? std::vector{StageResult::kRewardModel}
                           : std::vector{StageResult::kPolicy, StageResult::kPreferenceModel};
    resolve_stage(at, "stage", folder->stage, earlier, names, wanted);
  }
}

}  // namespace praetor
