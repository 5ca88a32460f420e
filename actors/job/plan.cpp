#include "actors/job/plan.h"

#include <algorithm>
#include <cstdio>
#include <iterator>

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

constexpr const char *kPolicy = "policy", *kCritic = "critic";

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

/// A network in training: all of it, or with an adapter its frozen weights, unless they are another
/// network's, and what learns beside them: its head in any case.
/// @return as an update uses it
PlannedNetwork add_trained(const StageConfig& stage,
                           const std::string& name,
                           PlannedNetwork network,
                           StagePlan& out) {
  network.name = name;
  const int64_t parameters = parameter_count(network);
  if (!stage.learner.lora) {
    out.networks.push_back({name, parameters, true});
    return network;
  }
  const int64_t head = network.language_head ? 0 : network.shape.hidden_size;
  if (network.owned) out.networks.push_back({name, parameters - head, false});
  network.adapter_parameters = lora_size(network.shape, *stage.learner.lora).parameters + head;
  network.lora = stage.learner.lora;
  out.networks.push_back({name + kAdapterSuffix, network.adapter_parameters, true, true, true});
  return network;
}

/// @return the learner's
std::vector<PlannedNetwork> add_networks(const JobConfig& job,
                                         const StageConfig& stage,
                                         const Algorithm& algorithm,
                                         StagePlan& out) {
  std::vector<PlannedNetwork> planned;
  const ModelConfig shape = full_shape(job, stage);
  const ModelPlan models = algorithm.models();
  const auto& lora = stage.learner.lora;
  const ShardingConfig& sharding = stage.learner.sharding;
  const bool in_parts = sharding.tensor > 1 || (sharding.stage == 3 && out.ranks_of_copy() > 1);
  out.on_gpu = !stage.learner.device.is_cpu();
  if (models.policy) planned.push_back(add_trained(stage, kPolicy, {.shape = shape}, out));
  // What an engine of this process decodes with; from parts, or from a GPU's weights, it is made on
  // the way, and workers make their own.
  if (lora && algorithm.online() && !in_parts && !out.on_gpu && job.placement == "colocated") {
    planned.back().merged_parameters = lora_size(shape, *lora).changed;
    out.networks.push_back({"policy, merged", planned.back().merged_parameters, false, true, true});
  }
  if (models.reward_model) {
    const PlannedNetwork scalar{.shape = shape,
                                .trained = !models.gate && !models.probe,
                                .language_head = false,
                                .name = "reward model"};
    if (scalar.trained) {
      planned.push_back(add_trained(stage, "reward model", scalar, out));
    } else {
      planned.push_back(scalar);
      out.networks.push_back({"reward model", scalar_parameters(shape), false});
    }
  }
  if (models.gate) {
    const int64_t attributes = attribute_count(job, stage);
    out.networks.push_back(
        {"gate", gate_parameters(*models.gate, shape.hidden_size, attributes), true});
  }
  if (models.reference && !lora) {
    out.networks.push_back({"reference", shape.parameter_count(), false});
    planned.push_back({.shape = shape, .trained = false, .name = "reference"});
  }
  if (models.critic == CriticKind::kShared)
    out.networks.push_back({"value head", shape.hidden_size, true});

  std::optional<ModelConfig> reward_shape;
  for (const ListedPart& listed : list_parts(stage.rewards)) {
    const auto folder = listed.config->folder();
    if (!folder) continue;
    const StageConfig* maker = job.find(folder->stage);
    const ModelConfig loaded = maker ? full_shape(job, *maker) : ModelConfig::load(folder->path);
    const int64_t parameters =
        folder->scalar ? scalar_parameters(loaded) : loaded.parameter_count();
    out.networks.push_back({"reward/" + listed.config->name, parameters, false, false});
    if (listed.config->model && !reward_shape) reward_shape = loaded;
  }
  if (models.critic == CriticKind::kSeparate) {
    const bool reward = models.critic_init == "reward" && reward_shape;
    PlannedNetwork critic{.shape = reward ? *reward_shape : shape, .language_head = false};
    // Under adapters the policy's own weights do, unless they are cut for each network.
    critic.owned = !lora || reward || sharding.stage == 3 || sharding.tensor > 1;
    planned.push_back(add_trained(stage, kCritic, critic, out));
  }
  return planned;
}

/// See StagePlan::Update.
std::vector<PlannedNetwork> forwards_before(const std::vector<PlannedNetwork>& networks,
                                            const StageConfig& stage,
                                            const Algorithm& algorithm) {
  const ModelPlan models = algorithm.models();
  const bool known = stage.exact_rollouts() && stage.max_staleness == 0;
  std::vector<PlannedNetwork> out;
  for (const PlannedNetwork& one : networks) {
    if (!one.trained) {
      out.push_back(one);
      continue;
    }
    PlannedNetwork forward = one;
    forward.trained = false;
    forward.adapter_parameters = 0;
    const bool samples = !known || models.critic == CriticKind::kShared;
    if (one.name == kPolicy && stage.learner.lora && models.reference) out.push_back(forward);
    if (one.name == kPolicy && algorithm.online() && samples) out.push_back(forward);
    if (one.name == kCritic) out.push_back(forward);
  }
  return out;
}

StagePlan::Update plan_update(const std::vector<PlannedNetwork>& networks,
                              const StageConfig& stage,
                              const Algorithm& algorithm,
                              const StagePlan& plan) {
  const bool online = algorithm.online();
  const int64_t longest =
      stage.data.format.max_length + (online ? stage.sampling.max_new_tokens : 0);
  StagePlan::Update out;
  out.tokens = plan.sequences_per_step * longest;
  const int64_t workers = plan.learner_ranks / plan.sharding.tensor;
  const int64_t of_rank = ceil_div(out.tokens, workers);
  MemoryPlanOptions options{.sharding = stage.learner.sharding, .ranks = plan.learner_ranks};
  options.sequence_tokens = longest;
  // As many whole sequences as go into one, or one that is too long for it.
  const int64_t budget = std::max<int64_t>(stage.learner.micro_batch_tokens / longest, 1) * longest;
  options.micro_batch_tokens = std::max(std::min(budget, of_rank), longest);
  options.checkpointing = stage.learner.activation_checkpointing;
  options.compute_bytes = static_cast<int64_t>(c10::elementSize(stage.learner.precision));
  out.micro_batches = ceil_div(of_rank, options.micro_batch_tokens);
  options.kernels = !plan.on_gpu;
  out.memory = plan_memory(networks, options);
  if (!plan.on_gpu) out.packed_bytes = packed_weight_bytes(networks, options);
  out.forwards = forwards_before(networks, stage, algorithm);
  std::vector<PlannedNetwork> all = out.forwards;
  std::ranges::copy_if(networks, std::back_inserter(all), &PlannedNetwork::trained);
  out.flops = update_flops(all, options.checkpointing, out.tokens, longest / 2);
  out.exchanged_bytes = exchanged_bytes(all, options, out.micro_batches);
  out.epochs = algorithm.update_plan().epochs;
  out.optimizer_steps = algorithm.update_plan().minibatches;
  out.networks = networks;
  out.options = options;
  return out;
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

std::string update_text(const StagePlan& stage) {
  const StagePlan::Update& update = *stage.update;
  const MemoryPlan& memory = update.memory;
  std::string out = str(stage.on_gpu ? "  GPU memory" : "  memory",
                        " of a learner rank in an update: at most about ",
                        bytes_text(memory.total()),
                        " (weights ",
                        bytes_text(memory.weights),
                        ", gradients ",
                        bytes_text(memory.gradients),
                        ", optimizer ",
                        bytes_text(memory.moments));
  if (memory.units > 0) out += str(", units under way ", bytes_text(memory.units));
  out += str(", activations ",
             bytes_text(memory.activations),
             ", workspace ",
             bytes_text(memory.workspace),
             ")");
  if (!stage.on_gpu)
    out += str(", and ",
               bytes_text(update.packed_bytes),
               " of weights in the order of the CPU's products");
  if (memory.offloaded > 0)
    out += str(", and ", bytes_text(memory.offloaded), " of the optimizer in the host's memory");
  out += "\n";
  char flops[32];
  std::snprintf(flops, sizeof(flops), "%.3g", update.flops / 1e12);
  out += str("  arithmetic of one pass over a step's ",
             update.tokens,
             " tokens at most: ",
             flops,
             update.forwards.empty() ? " TFLOP, in " : " TFLOP with the forwards before it, in ",
             update.micro_batches,
             " micro-batch",
             update.micro_batches == 1 ? "" : "es",
             stage.learner_ranks > 1 ? " a rank" : "",
             "\n");
  if (update.exchanged_bytes > 0)
    out += str("  exchanged: each rank sends ",
               bytes_text(update.exchanged_bytes),
               " in such a pass and its optimizer step\n");
  return out;
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
    return ceil_div(
        bytes, sharding.stage >= from_stage ? sharding.tensor * ranks_of_copy() : sharding.tensor);
  };
  int64_t sum = 0;
  for (const Network& n : networks) {
    if (!n.learner) continue;
    sum += n.whole ? n.weight_bytes() + n.gradient_bytes()
                   : part(n.weight_bytes(), 3) + part(n.gradient_bytes(), 2);
    const int64_t optimizer = n.optimizer_bytes() - n.whole_states;
    sum += n.whole ? ceil_div(optimizer, ranks_of_copy()) : part(optimizer, 1);
    sum += n.whole_states;
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
      plan.sharding = stage.learner.sharding;
      std::vector<PlannedNetwork> planned = add_networks(job, stage, *algorithm, plan);
      count_precision(stage, *algorithm, full_shape(job, stage), plan.networks, planned);
      plan.rows = count_rows(job, stage.data.train, samples.rows);
      plan.steps = stage.steps;
      if (plan.rows) plan.steps = stage.total_steps(*plan.rows, samples.prompts_per_step);
      const int64_t per_row =
          samples.rows == RowForm::kPreference ? 2 : std::max<int64_t>(1, samples.total_samples());
      plan.sequences_per_step =
          (samples.prompts_per_step > 0 ? samples.prompts_per_step : plan.rows.value_or(0)) *
          per_row;
      const bool trains =
          std::ranges::any_of(planned, [](const PlannedNetwork& one) { return one.trained; });
      if (trains && plan.sequences_per_step > 0)
        plan.update = plan_update(planned, stage, *algorithm, plan);
      if (algorithm->online()) {
        const int64_t prompt = stage.data.format.max_length;
        const int64_t response = stage.sampling.max_new_tokens;
        plan.prompt_tokens = prompt;
        plan.response_tokens = response;
        if (stage.shape && stage.engine.device == EngineDevice::kCpu) {
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
                   stage.sharding.stage,
                   stage.sharding.tensor > 1
                       ? str(" with layers over ", stage.sharding.tensor, " ranks")
                       : std::string(),
                   stage.ranks_of_copy() < stage.learner_ranks / stage.sharding.tensor
                       ? str(" in groups of ", stage.ranks_of_copy())
                       : "",
                   ": ",
                   bytes_text(stage.rank_bytes()),
                   "\n");
      }
      if (stage.update) out += update_text(stage);
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
