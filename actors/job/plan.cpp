#include "actors/job/plan.h"

#include <algorithm>
#include <cstdio>

#include "actors/job/check.h"
#include "actors/job/plan_precision.h"
#include "actors/toy/toy_language.h"
#include "core/base/error.h"
#include "core/base/str.h"
#include "core/tokenizer/tokenizer.h"

namespace praetor {

namespace {

// A rollout's record in a segment (core/ledger): its fixed fields and framing, then 4 bytes a
// token, 4 for each of three log-probabilities a response token and about 4 of text; in the
// database about 400 bytes a sample over its tables.
constexpr int64_t kRecordBytes = 64;
constexpr int64_t kDatabaseBytes = 400;

/// Tokens of the stage's tokenizer, which may be the one that an earlier stage will write or copy.
int64_t vocabulary(const JobConfig& job, const StageConfig& stage) {
  const StageConfig* at = &stage;
  while (at->trains() && at->tokenizer.from_stage()) {
    const StageConfig* from = job.find(at->tokenizer.stage);
    PRAETOR_CHECK(from, "stage ", at->name, ": no stage ", at->tokenizer.stage);
    at = from;
  }
  return at->trains() ? Tokenizer::load(at->tokenizer.path)->vocab_size()
                      : toy_language_vocabulary();
}

/// The model's shape with its vocabulary.
ModelConfig full_shape(const JobConfig& job, const StageConfig& stage) {
  PRAETOR_CHECK(stage.shape, "stage ", stage.name, " has no shape");
  ModelConfig shape = *stage.shape;
  if (shape.vocab_size > 0) return shape;
  const StageConfig* at = &stage;  // to the stage that created the model, whose tokenizer counts
  while (!at->model.create) {
    const StageConfig* from = job.find(at->model.source.stage);
    PRAETOR_CHECK(from, "stage ", at->name, ": no stage ", at->model.source.stage);
    at = from;
  }
  shape.vocab_size = vocabulary(job, *at);
  return shape;
}

/// Parameters of a backbone with a scalar head instead of the language head.
int64_t scalar_parameters(const ModelConfig& shape) {
  const int64_t head = shape.tie_embeddings ? 0 : shape.vocab_size * shape.hidden_size;
  return shape.parameter_count() - head + shape.hidden_size;
}

/// Numbers that the attribute model gives which `stage` starts from.
int64_t attribute_count(const JobConfig& job, const StageConfig& stage) {
  const StageConfig* at = &stage;
  while (at->model.source.from_stage()) {
    at = job.find(at->model.source.stage);
    PRAETOR_CHECK(at, "stage ", stage.name, " starts from no stage");
    const size_t labels = at->make_algorithm()->sample_plan().labels.size();
    if (labels > 0) return static_cast<int64_t>(labels);
  }
  return static_cast<int64_t>(attributes_in(at->model.source.path).size());
}

int64_t gate_parameters(const GatePlan& gate, int64_t hidden_size, int64_t attributes) {
  int64_t in = hidden_size, out = 1;  // the scale
  for (int64_t i = 0; i < gate.layers; ++i) {
    out += (in + 1) * gate.width;
    in = gate.width;
  }
  return out + (in + 1) * attributes;
}

void add_networks(const JobConfig& job,
                  const StageConfig& stage,
                  const Algorithm& algorithm,
                  StagePlan& out) {
  const ModelConfig shape = full_shape(job, stage);
  const ModelPlan models = algorithm.models();
  if (models.policy) out.networks.push_back({"policy", shape.parameter_count(), true});
  if (models.reward_model)
    out.networks.push_back(
        {"reward model", scalar_parameters(shape), !models.gate && !models.probe});
  if (models.gate) {
    const int64_t attributes = attribute_count(job, stage);
    out.networks.push_back(
        {"gate", gate_parameters(*models.gate, shape.hidden_size, attributes), true});
  }
  if (models.reference) out.networks.push_back({"reference", shape.parameter_count(), false});
  if (models.critic == CriticKind::kShared)
    out.networks.push_back({"value head", shape.hidden_size, true});

  std::optional<int64_t> reward_parameters;
  for (const ListedPart& listed : list_parts(stage.rewards)) {
    const auto folder = listed.config->folder();
    if (!folder) continue;
    const StageConfig* maker = job.find(folder->stage);
    const ModelConfig loaded = maker ? full_shape(job, *maker) : ModelConfig::load(folder->path);
    const int64_t parameters =
        folder->scalar ? scalar_parameters(loaded) : loaded.parameter_count();
    out.networks.push_back({"reward/" + listed.config->name, parameters, false, false});
    if (listed.config->model && !reward_parameters) reward_parameters = parameters;
  }
  if (models.critic == CriticKind::kSeparate) {
    const int64_t own = scalar_parameters(shape);
    out.networks.push_back(
        {"critic", models.critic_init == "reward" ? reward_parameters.value_or(own) : own, true});
  }
}

std::string bytes_text(int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  char buffer[32];
  std::snprintf(buffer, sizeof(buffer), unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return buffer;
}

std::string row_text(
    const char* name, int64_t parameters, int64_t weights, int64_t gradients, int64_t optimizer) {
  char buffer[160];
  std::snprintf(buffer,
                sizeof(buffer),
                "  %-20.40s %14lld %12s %12s %12s\n",
                name,
                static_cast<long long>(parameters),
                bytes_text(weights).c_str(),
                bytes_text(gradients).c_str(),
                bytes_text(optimizer).c_str());
  return buffer;
}

}  // namespace

int64_t StagePlan::model_bytes() const {
  int64_t sum = 0;
  for (const Network& n : networks)
    sum += n.weight_bytes() + n.gradient_bytes() + n.optimizer_bytes();
  return sum;
}

int64_t StagePlan::rank_bytes() const {
  const auto part = [&](int64_t bytes, int64_t from_stage) {
    return sharding_stage >= from_stage ? (bytes + learner_ranks - 1) / learner_ranks : bytes;
  };
  int64_t sum = 0;
  for (const Network& n : networks) {
    if (n.learner)
      sum += part(n.weight_bytes(), 3) + part(n.gradient_bytes(), 2) +
             part(n.optimizer_bytes() - n.whole_states, 1) + n.whole_states;
  }
  return sum;
}

std::vector<StagePlan> plan_job(const JobConfig& job) {
  std::vector<StagePlan> out;
  for (const StageConfig& stage : job.stages) {
    StagePlan plan;
    plan.name = stage.name;
    plan.kind = stage.kind;
    if (stage.trains()) {
      const auto algorithm = stage.make_algorithm();
      const SamplePlan samples = algorithm->sample_plan();
      plan.learner_ranks = job.roles.learner_ranks;
      plan.sharding_stage = stage.learner.sharding.stage;
      add_networks(job, stage, *algorithm, plan);
      count_precision(stage, *algorithm, full_shape(job, stage), plan.networks);
      plan.rows = count_rows(job, stage.data.train, samples.rows);
      plan.steps = stage.steps;
      if (plan.rows) plan.steps = stage.total_steps(*plan.rows, samples.prompts_per_step);
      const int64_t per_row =
          samples.rows == RowForm::kPreference ? 2 : std::max<int64_t>(1, samples.total_samples());
      plan.sequences_per_step =
          (samples.prompts_per_step > 0 ? samples.prompts_per_step : plan.rows.value_or(0)) *
          per_row;
      if (algorithm->online()) {
        const int64_t prompt = stage.data.format.max_length;
        const int64_t response = stage.sampling.max_new_tokens;
        if (stage.shape) {
          const ModelConfig& m = *stage.shape;
          const int64_t longest =
              2 * 4 * m.num_layers * m.num_kv_heads * m.head_dim * (prompt + response);
          const int64_t running = std::min(stage.engine.max_sequences, plan.sequences_per_step);
          plan.cache_bytes = std::min(stage.engine.cache_bytes, running * longest);
        }
        const int64_t record =
            kRecordBytes + kDatabaseBytes + 4 * (prompt + response) + (3 * 4 + 4) * response;
        plan.ledger_bytes_per_step = plan.sequences_per_step * record;
      }
    }
    out.push_back(std::move(plan));
  }
  return out;
}

std::string plan_text(const std::vector<StagePlan>& plan) {
  std::string out;
  for (const StagePlan& stage : plan) {
    out += str("stage ", stage.name, " (", stage.kind, ")\n");
    if (stage.kind == kToyLanguage) {
      out += "  writes a tokenizer and data, trains nothing\n";
      continue;
    }
    if (!stage.networks.empty()) {
      out += "  network                  parameters      weights    gradients    optimizer\n";
      for (const auto& n : stage.networks) {
        out += row_text(n.name.c_str(),
                        n.parameters,
                        n.weight_bytes(),
                        n.gradient_bytes(),
                        n.optimizer_bytes());
      }
      out += str("  memory of the networks: ", bytes_text(stage.model_bytes()), "\n");
      if (stage.learner_ranks > 1) {
        out += str("  of which each of ",
                   stage.learner_ranks,
                   " learner ranks keeps, at sharding stage ",
                   stage.sharding_stage,
                   ": ",
                   bytes_text(stage.rank_bytes()),
                   "\n");
      }
    }
    out += str("  steps: ",
               stage.steps ? std::to_string(*stage.steps) : "not known",
               ", ",
               stage.sequences_per_step,
               " sequences each");
    out += stage.rows ? str(", from ", *stage.rows, " rows\n") : "\n";
    if (stage.cache_bytes > 0) {
      out += str("  key-value cache: at most ", bytes_text(stage.cache_bytes), "\n");
    }
    if (stage.ledger_bytes_per_step > 0) {
      out += str("  ledger: at most about ", bytes_text(stage.ledger_bytes_per_step), " a step");
      if (stage.steps)
        out += str(", ", bytes_text(stage.ledger_bytes_per_step * *stage.steps), " for the stage");
      out += "\n";
    }
  }
  return out;
}

}  // namespace praetor
