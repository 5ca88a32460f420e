#include "actors/job/cluster.h"

#include <algorithm>
#include <cstdio>

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

double generation_seconds(const StagePlan& stage,
                          const ClusterConfig& cluster,
                          const ModelConfig& shape,
                          const MemoryPlan& learner,
                          int64_t gpus) {
  const auto parameters = static_cast<double>(shape.parameter_count());
  const int64_t sequences = ceil_div(stage.sequences_per_step, gpus);
  const auto token_bytes =
      2 * kEngineBytes *
      static_cast<double>(shape.num_layers * shape.num_kv_heads * shape.head_dim);
  const double longest = static_cast<double>(stage.prompt_tokens + stage.response_tokens);
  // Between updates a rank keeps its weights and moments.
  const double room = kUsable * kGiB * cluster.memory_gib - kEngineBytes * parameters -
                      static_cast<double>(learner.weights + learner.moments);
  const auto at_once = std::clamp<int64_t>(
      static_cast<int64_t>(std::max(room, 0.0) / (token_bytes * longest)), 1, sequences);
  double out =
      products(cluster, 2 * parameters * static_cast<double>(sequences * stage.prompt_tokens), 1);
  for (int64_t left = sequences; left > 0; left -= at_once) {
    const auto rows = static_cast<double>(std::min(left, at_once));
    const double context =
        static_cast<double>(stage.prompt_tokens) + static_cast<double>(stage.response_tokens) / 2;
    const double read = kEngineBytes * parameters + rows * token_bytes * context;
    const double token =
        std::max(read / (1e9 * cluster.memory_gb_s), products(cluster, 2 * parameters * rows, 1));
    out += token * static_cast<double>(stage.response_tokens);
  }
  return out;
}

ClusterPoint point(const StagePlan& stage, const ClusterConfig& cluster, int64_t gpus) {
  const StagePlan::Update& update = *stage.update;
  ClusterPoint out{.gpus = gpus};
  MemoryPlanOptions options = update.options;
  options.ranks = gpus;
  if (gpus % options.sharding.tensor != 0) options.sharding.tensor = 1;
  const int64_t workers = gpus / options.sharding.tensor;
  if (workers % std::max<int64_t>(options.sharding.group, 1) != 0) options.sharding.group = 0;
  const int64_t of_rank = ceil_div(update.tokens, workers * update.optimizer_steps);
  options.micro_batch_tokens =
      std::max(std::min(options.micro_batch_tokens, of_rank), options.sequence_tokens);
  options.kernels = false;
  const MemoryPlan memory = plan_memory(update.networks, options);
  out.memory = memory.total();

  std::vector<PlannedNetwork> trained, frozen;
  double counted = 0;  // FLOPs a token of what is trained
  for (const PlannedNetwork& one : update.networks) {
    (one.trained ? trained : frozen).push_back(one);
    if (one.trained)
      counted +=
          (one.adapter_parameters > 0 ? 4.0 : 6.0) * static_cast<double>(parameter_count(one));
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
  // Frozen networks speak once a step, before its first pass.
  const StepTime before =
      plan_step_time(frozen,
                     options,
                     ceil_div(ceil_div(update.tokens, workers), options.micro_batch_tokens),
                     some(1) * products(cluster, flops(frozen), gpus),
                     links);
  out.computing = before.computing + static_cast<double>(steps) * one.computing;
  out.waiting = before.waiting + static_cast<double>(steps) * one.waiting;
  const double spent = out.computing + out.waiting;
  out.utilisation = counted * static_cast<double>(update.tokens * update.epochs) /
                    (1e12 * cluster.tflops * static_cast<double>(gpus) * spent);
  if (stage.response_tokens == 0) return out;

  const ModelConfig& shape = update.networks.front().shape;
  out.generating = generation_seconds(stage, cluster, shape, memory, gpus);
  const double weights = kEngineBytes * static_cast<double>(shape.parameter_count());
  out.publishing = weights / (1e9 * cluster.memory_gb_s);
  if (const int64_t copy = options.ranks_of_copy(); options.sharding.stage == 3 && copy > 1) {
    const auto others = static_cast<double>(copy - 1);
    out.publishing +=
        weights * others / static_cast<double>(copy) / links.copy.bytes_a_second +
        others * static_cast<double>(shape.num_layers + 2) * links.copy.message_seconds;
  }
  return out;
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
    out +=
        "   GPUs   memory GiB   computing   waiting  generating  publishing      step  "
        "tokens/s    MFU\n";
    for (const ClusterPoint& p : points) {
      const double gib = static_cast<double>(p.memory) / kGiB;
      std::snprintf(line,
                    sizeof(line),
                    "  %5lld  %10.3g%s  %10.3g %9.3g %11.3g %11.3g %9.3g %9.3g  %4.1f%%\n",
                    static_cast<long long>(p.gpus),
                    gib,
                    gib > kUsable * cluster.memory_gib ? "!" : " ",
                    p.computing,
                    p.waiting,
                    p.generating,
                    p.publishing,
                    p.step(),
                    static_cast<double>(stage.update->tokens) / p.step(),
                    100 * p.utilisation);
      out += line;
    }
    if (std::ranges::any_of(points, [&](const ClusterPoint& p) {
          return static_cast<double>(p.memory) > kUsable * kGiB * cluster.memory_gib;
        }))
      out += "  !: more than nine tenths of a GPU's memory\n";
  }
  return out;
}

}  // namespace praetor
