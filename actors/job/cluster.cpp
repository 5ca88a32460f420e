#include "actors/job/cluster.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "core/base/str.h"
#include "core/config/yaml_reader.h"
#include "learners/step_time.h"

namespace praetor {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;
constexpr double kEngineBytes = 2;  ///< of a weight, key or value where responses are sampled
/// Of a GPU's memory: the rest is the libraries' own, and lost between blocks.
constexpr double kUsable = 0.9;

Link link_of(const ClusterConfig& cluster, int64_t gpus) {
  // A ring leaves a node once for all of its GPUs, over all of its adapters.
  const double across = cluster.network_gb_s * static_cast<double>(cluster.gpus_per_node);
  const bool one_node = gpus <= cluster.gpus_per_node;
  return {
      .bytes_a_second = 1e9 * (one_node ? cluster.node_gb_s : std::min(cluster.node_gb_s, across)),
      .message_seconds = 1e-6 * cluster.message_us};
}

/// Seconds of `flops` on all GPUs.
double products(const ClusterConfig& cluster, double flops, int64_t gpus) {
  return flops / (1e12 * cluster.tflops * cluster.efficiency * static_cast<double>(gpus));
}

/// An engine beside a learner's rank, on one GPU.
struct EnginePlan {
  double weights = 0;  ///< bytes
  double token = 0;    ///< bytes of its keys and values
  double longest = 0;  ///< tokens of a sequence
  double room = 0;     ///< bytes for keys and values between updates
  double sequence() const { return token * longest; }
};

EnginePlan plan_engine(const StagePlan& stage,
                       const ClusterConfig& cluster,
                       const ModelConfig& shape,
                       const MemoryPlan& learner) {
  EnginePlan out;
  out.weights = kEngineBytes * static_cast<double>(shape.parameter_count());
  out.token = 2 * kEngineBytes *
              static_cast<double>(shape.num_layers * shape.num_kv_heads * shape.head_dim);
  out.longest = static_cast<double>(stage.prompt_tokens + stage.response_tokens);
  // Between updates a rank keeps its weights and moments.
  out.room = kUsable * kGiB * cluster.memory_gib - out.weights -
             static_cast<double>(learner.weights + learner.moments);
  return out;
}

double generation_seconds(const StagePlan& stage,
                          const ClusterConfig& cluster,
                          const ModelConfig& shape,
                          const EnginePlan& engine,
                          int64_t gpus) {
  if (engine.room < engine.sequence()) return std::numeric_limits<double>::infinity();
  const auto parameters = static_cast<double>(shape.parameter_count());
  const int64_t sequences = ceil_div(stage.sequences_per_step, gpus);
  const auto at_once = static_cast<int64_t>(
      std::min(engine.room / engine.sequence(), static_cast<double>(sequences)));
  double out =
      products(cluster, 2 * parameters * static_cast<double>(sequences * stage.prompt_tokens), 1);
  for (int64_t left = sequences; left > 0; left -= at_once) {
    const auto rows = static_cast<double>(std::min(left, at_once));
    const double context =
        static_cast<double>(stage.prompt_tokens) + static_cast<double>(stage.response_tokens) / 2;
    const double read = engine.weights + rows * engine.token * context;
    const double token =
        std::max(read / (1e9 * cluster.memory_gb_s), products(cluster, 2 * parameters * rows, 1));
    out += token * static_cast<double>(stage.response_tokens);
  }
  return out;
}

std::string gib_text(double bytes) {
  char buffer[32];
  std::snprintf(buffer, sizeof(buffer), "%.3g GiB", bytes / kGiB);
  return buffer;
}

/// Why so many GPUs do not have this layout; empty: they do.
std::string why_impossible(const ShardingConfig& sharding, int64_t gpus) {
  if (gpus % sharding.tensor != 0)
    return str("learner.sharding.tensor: ", sharding.tensor, " does not divide ", gpus, " GPUs");
  const int64_t workers = gpus / sharding.tensor, group = sharding.ranks_of_copy(workers);
  if (workers % group == 0) return "";
  return str("learner.sharding.group: ",
             group,
             " does not divide ",
             gpus,
             " GPUs",
             sharding.tensor > 1 ? str(" / ", sharding.tensor, " (tensor)") : "");
}

/// Memory of a GPU, and why there is not as much.
void add_memory(const StagePlan& stage,
                const ClusterConfig& cluster,
                const MemoryPlan& learner,
                const EnginePlan& engine,
                ClusterPoint& out) {
  const bool samples = stage.response_tokens > 0;
  const auto kept = static_cast<double>(learner.weights + learner.moments);
  const double sampling = samples ? engine.weights + kept + engine.sequence() : 0;
  const double update = engine.weights + static_cast<double>(learner.total());
  out.engine = static_cast<int64_t>(engine.weights);
  out.memory = static_cast<int64_t>(std::max(update, sampling));
  const double usable = kUsable * kGiB * cluster.memory_gib;
  const std::string of_engine = str(gib_text(engine.weights), " of the engine's weights");
  const std::string there = str(": more than nine tenths of ", cluster.memory_gib, " GiB");
  if (update > usable) {
    out.too_large = str("an update takes ", gib_text(static_cast<double>(learner.total())));
    if (samples) out.too_large += str(" beside ", of_engine);
    out.too_large += there;
  } else if (sampling > usable) {
    out.too_large = str("the keys and values of one sequence take ",
                        gib_text(engine.sequence()),
                        " beside ",
                        of_engine,
                        " and ",
                        gib_text(kept),
                        " of the learner's",
                        there);
  }
}

ClusterPoint point(const StagePlan& stage, const ClusterConfig& cluster, int64_t gpus) {
  const StagePlan::Update& update = *stage.update;
  ClusterPoint out{.gpus = gpus};
  MemoryPlanOptions options = update.options;
  options.ranks = gpus;
  out.impossible = why_impossible(options.sharding, gpus);
  if (!out.impossible.empty()) return out;
  const int64_t workers = gpus / options.sharding.tensor;
  const int64_t of_rank = ceil_div(update.tokens, workers * update.optimizer_steps);
  options.micro_batch_tokens =
      std::max(std::min(options.micro_batch_tokens, of_rank), options.sequence_tokens);
  options.kernels = false;
  const MemoryPlan memory = plan_memory(update.networks, options);
  const ModelConfig& shape = update.networks.front().shape;
  const EnginePlan engine =
      stage.response_tokens > 0 ? plan_engine(stage, cluster, shape, memory) : EnginePlan{};
  add_memory(stage, cluster, memory, engine, out);

  std::vector<PlannedNetwork> trained;
  double counted = 0;  // FLOPs a token of what is trained
  for (const PlannedNetwork& one : update.networks) {
    if (!one.trained) continue;
    trained.push_back(one);
    counted += (one.adapter_parameters > 0 ? 4.0 : 6.0) * static_cast<double>(parameter_count(one));
  }
  const int64_t context = options.sequence_tokens / 2;
  const auto flops = [&](const std::vector<PlannedNetwork>& networks) {
    return update_flops(networks, options.checkpointing, update.tokens, context);
  };
  // Sequences are whole: with fewer of them than ranks some ranks have none, and wait.
  const auto some = [&](int64_t parts) {
    const int64_t most =
        ceil_div(ceil_div(update.tokens, options.sequence_tokens), workers * parts);
    return static_cast<double>(most * workers * parts * options.sequence_tokens) /
           static_cast<double>(update.tokens);
  };
  Links links{.copy = link_of(cluster, options.ranks_of_copy()),
              .copies = link_of(cluster, gpus),
              .tensor = link_of(cluster, options.sharding.tensor)};
  // Every GPU of a node sums its own parts with those of other nodes, at once.
  if (gpus > cluster.gpus_per_node) links.copies.bytes_a_second = 1e9 * cluster.network_gb_s;
  const int64_t steps = update.epochs * update.optimizer_steps;
  const StepTime one =
      plan_step_time(trained,
                     options,
                     ceil_div(of_rank, options.micro_batch_tokens),
                     some(update.optimizer_steps) * products(cluster, flops(trained), gpus) /
                         static_cast<double>(update.optimizer_steps),
                     links);
  const StepTime before =
      plan_step_time(update.forwards,
                     options,
                     ceil_div(ceil_div(update.tokens, workers), options.micro_batch_tokens),
                     some(1) * products(cluster, flops(update.forwards), gpus),
                     links);
  out.computing = before.computing + static_cast<double>(steps) * one.computing;
  out.waiting = before.waiting + static_cast<double>(steps) * one.waiting;
  const double spent = out.computing + out.waiting;
  out.utilisation = counted * static_cast<double>(update.tokens * update.epochs) /
                    (1e12 * cluster.tflops * static_cast<double>(gpus) * spent);
  if (stage.response_tokens == 0) return out;

  out.generating = generation_seconds(stage, cluster, shape, engine, gpus);
  const double weights = engine.weights;
  out.publishing = weights / (1e9 * cluster.memory_gb_s);
  if (const int64_t copy = options.ranks_of_copy(); options.sharding.stage == 3 && copy > 1) {
    const auto others = static_cast<double>(copy - 1);
    out.publishing +=
        weights * others / static_cast<double>(copy) / links.copy.bytes_a_second +
        others * static_cast<double>(shape.num_layers + 2) * links.copy.message_seconds;
  }
  return out;
}

/// "-" for what takes for ever.
std::string cell(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof(buffer), "%.3g", value);
  return std::isfinite(value) ? buffer : "-";
}

}  // namespace

ClusterConfig ClusterConfig::load(const std::filesystem::path& file) {
  const auto document = YamlDocument::load(file);
  YamlReader in = document->root();
  ClusterConfig c;
  c.gpus = in.get("gpus", c.gpus);
  if (c.gpus.empty() || !std::ranges::all_of(c.gpus, [](int64_t n) { return n >= 1; }))
    in.error_at("gpus", "numbers of GPUs to plan for, each at least 1, such as [8, 64]");
  c.gpus_per_node = in.get("gpus_per_node", c.gpus_per_node, closed(1, 1024));
  c.memory_gib = in.get("memory_gib", c.memory_gib, greater_than(0));
  c.tflops = in.get("tflops", c.tflops, greater_than(0));
  c.efficiency = in.get("efficiency", c.efficiency, Range{.low = 0, .high = 1, .low_open = true});
  c.memory_gb_s = in.get("memory_gb_s", c.memory_gb_s, greater_than(0));
  c.node_gb_s = in.get("node_gb_s", c.node_gb_s, greater_than(0));
  c.network_gb_s = in.get("network_gb_s", c.network_gb_s, greater_than(0));
  c.message_us = in.get("message_us", c.message_us, at_least(0));
  in.reject_unknown_keys();
  document->throw_if_errors();
  return c;
}

std::vector<ClusterPoint> plan_cluster(const StagePlan& stage, const ClusterConfig& cluster) {
  std::vector<ClusterPoint> out;
  if (!stage.update) return out;
  for (const int64_t gpus : cluster.gpus) out.push_back(point(stage, cluster, gpus));
  return out;
}

std::string cluster_text(const std::vector<StagePlan>& plan, const ClusterConfig& cluster) {
  char line[200];
  std::snprintf(line,
                sizeof(line),
                "cluster: %lld GPUs a node, each %g GiB at %g GB/s, %g TFLOP/s of which products "
                "reach %g; %g GB/s in a node, %g GB/s a GPU between nodes\n",
                static_cast<long long>(cluster.gpus_per_node),
                cluster.memory_gib,
                cluster.memory_gb_s,
                cluster.tflops,
                cluster.efficiency,
                cluster.node_gb_s,
                cluster.network_gb_s);
  std::string out = line;
  for (const StagePlan& stage : plan) {
    const std::vector<ClusterPoint> points = plan_cluster(stage, cluster);
    if (points.empty()) continue;
    out += str(
        "stage ", stage.name, ": seconds of a step of ", stage.update->tokens, " tokens at most\n");
    if (stage.response_tokens > 0) {
      const ModelConfig& shape = stage.update->networks.front().shape;
      out += str("  beside its learner rank every GPU has an engine with the whole policy, ",
                 gib_text(kEngineBytes * static_cast<double>(shape.parameter_count())),
                 " in bfloat16\n");
    }
    out +=
        "   GPUs   memory GiB   computing   waiting  generating  publishing      step  "
        "tokens/s    MFU\n";
    std::string why;
    for (const ClusterPoint& p : points) {
      const auto gpus = static_cast<long long>(p.gpus);
      if (!p.impossible.empty()) {
        std::snprintf(line,
                      sizeof(line),
                      "  %5lld  %10s   %10s %9s %11s %11s %9s %9s  %5s\n",
                      gpus,
                      "-",
                      "-",
                      "-",
                      "-",
                      "-",
                      "-",
                      "-",
                      "-");
        out += line;
        why += str("  -: ", p.impossible, "\n");
        continue;
      }
      if (!p.too_large.empty()) why += str("  !: ", gpus, " GPUs: ", p.too_large, "\n");
      const double step = p.step();
      const double speed =
          std::isfinite(step) ? static_cast<double>(stage.update->tokens) / step : step;
      std::snprintf(line,
                    sizeof(line),
                    "  %5lld  %10.3g%s  %10.3g %9.3g %11s %11.3g %9s %9s  %4.1f%%\n",
                    gpus,
                    static_cast<double>(p.memory) / kGiB,
                    p.too_large.empty() ? " " : "!",
                    p.computing,
                    p.waiting,
                    cell(p.generating).c_str(),
                    p.publishing,
                    cell(step).c_str(),
                    cell(speed).c_str(),
                    100 * p.utilisation);
      out += line;
    }
    out += why;
  }
  return out;
}

}  // namespace praetor
