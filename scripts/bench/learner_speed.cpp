// Updates of a learner from a model of random weights: seconds, FLOPs a second and memory, one JSON
// line.
// usage: learner_speed METHOD [SHAPE [SEQUENCES [LENGTH [STEPS [LEARNER]]]]]
//   METHOD   sft, dpo, reward_model, ppo
//   SHAPE    tiny, 125m, 1b, 7b: Llamas
//   LEARNER  section `learner` of a job, such as '{device: cuda, precision: bfloat16}'
// default: 16 sequences of 1,024 tokens, 3 steps after one that is not counted.
// `model_flops` of a step are those of the products and of attention, 2 a multiplication, of LENGTH
// / 2 keys a token: once for a forward, twice more for the backward of weights in training (once
// more under an adapter), nothing for what is computed again. `mfu` is model_flops by the step's
// seconds by $PEAK_TFLOPS (989, an H100's or H200's in bfloat16). `kernels`: AdamW steps by the GPU
// library's; by LibTorch's operators where there is none, as with PRAETOR_CUDA_LIBRARY=/none.
// Status 66 where there is no GPU.
#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "actors/job/learner_devices.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/config/yaml_reader.h"
#include "core/cuda/library.h"
#include "core/model/families.h"
#include "core/model/transformer_builder.h"
#include "learners/algorithms/dpo.h"
#include "learners/algorithms/ppo.h"
#include "learners/algorithms/reward_model.h"
#include "learners/algorithms/sft.h"
#include "learners/learner.h"
#include "learners/memory_plan.h"

namespace {

using namespace praetor;
using Clock = std::chrono::steady_clock;

struct Run {
  std::string method, shape = "1b", learner = "{device: cuda, precision: bfloat16}";
  int64_t sequences = 16, length = 1024, steps = 3;

  bool pairs() const { return method == "dpo" || method == "reward_model"; }
  /// What a network computes: the first half of a pair's sequences is one, and passes once.
  int64_t tokens() const {
    return sequences * length - (pairs() ? sequences / 2 * (length / 2) : 0);
  }
};

Run read(int argc, char** argv) {
  if (argc < 2) throw InvalidArgument("a method is wanted: sft, dpo, ...");
  Run out{.method = argv[1]};
  const auto number = [&](int i, int64_t otherwise) {
    return argc > i ? std::atoll(argv[i]) : otherwise;
  };
  if (argc > 2) out.shape = argv[2];
  out.sequences = number(3, out.sequences);
  out.length = number(4, out.length);
  out.steps = number(5, out.steps);
  if (argc > 6) out.learner = argv[6];
  if (out.sequences < 2 || out.sequences % 2 != 0 || out.length < 4 || out.steps < 1)
    throw InvalidArgument(
        "learner_speed: an even number of sequences, 4 tokens and a step or more");
  return out;
}

ModelConfig config_of(const Run& run) {
  struct Shape {
    const char* name;
    int64_t hidden, layers, heads, kv_heads, inner, vocabulary;
  };
  constexpr Shape kShapes[] = {{"tiny", 64, 2, 4, 2, 128, 512},
                               {"125m", 768, 12, 12, 12, 2048, 32000},
                               {"1b", 2048, 16, 32, 8, 8192, 128256},
                               {"7b", 4096, 32, 32, 8, 14336, 32000}};
  for (const Shape& s : kShapes) {
    if (run.shape != s.name) continue;
    ModelConfig c;
    c.hidden_size = s.hidden;
    c.num_layers = s.layers;
    c.num_heads = s.heads;
    c.num_kv_heads = s.kv_heads;
    c.intermediate_size = s.inner;
    c.vocab_size = s.vocabulary;
    c.head_dim = s.hidden / s.heads;
    c.max_positions = std::max<int64_t>(run.length, 8);
    c.tie_embeddings = run.shape == "1b";
    return c;
  }
  throw InvalidArgument("shape ", run.shape, " is none of tiny, 125m, 1b, 7b");
}

/// Read tensor by tensor, so that the processor never holds a whole model.
class RandomWeights final : public ModelWeights {
 public:
  explicit RandomWeights(ModelConfig config) : config_(std::move(config)) {}
  Transformer shell() const override {
    std::vector<NamedTensor> out;
    for (const ParameterSpec& spec : parameter_layout(config_))
      out.push_back({spec.name, waiting_tensor(spec.shape, at::kFloat)});
    return TransformerBuilder::assemble(config_, std::move(out));
  }

 private:
  void read_own(std::span<const NamedTensor> parameters) const override {
    const at::NoGradGuard no_grad;
    for (const NamedTensor& named : parameters) {
      if (named.name.find("norm") == std::string::npos) {
        named.tensor.normal_(0, 0.02);
      } else {
        named.tensor.fill_(1);
      }
    }
  }
  at::ScalarType dtype() const override { return at::kFloat; }
  ModelConfig config_;
};

Learner make(const Run& run, const ModelConfig& model, const LearnerConfig& config) {
  LearnerModels models;
  const auto weights = std::make_shared<RandomWeights>(model);
  if (run.method == "reward_model") {
    models.scalar = std::make_unique<ScalarModel>(
        ScalarModel{weights->shell(),
                    ScalarHead::make(model.hidden_size,
                                     RandomStream({.job_seed = 1, .purpose = Purpose::kInitialise}),
                                     at::kFloat)});
    models.scalar_weights = weights;
    return Learner(config, make_reward_model({}), std::move(models));
  }
  models.policy = std::make_unique<Transformer>(weights->shell());
  models.policy_weights = weights;
  if (run.method == "sft") return Learner(config, make_sft(SftConfig{}), std::move(models));
  if (run.method == "dpo") return Learner(config, make_dpo({}), std::move(models));
  if (run.method != "ppo")
    throw InvalidArgument("method ", run.method, " is none of sft, dpo, reward_model, ppo");
  PpoConfig ppo;
  ppo.epochs = ppo.minibatches = 1;
  return Learner(config, make_ppo(ppo), std::move(models));
}

int64_t token(const ModelConfig& model, int64_t sequence, int64_t position) {
  return (sequence * 7919 + position * 104729) % model.vocab_size;
}

StepReport update(const Run& run, const ModelConfig& model, Learner& learner) {
  const int64_t prompt = run.length / 2;
  if (run.method != "ppo") {
    std::vector<Example> examples(static_cast<size_t>(run.sequences));
    for (int64_t s = 0; s < run.sequences; ++s) {
      Example& one = examples[static_cast<size_t>(s)];
      for (int64_t p = 0; p < run.length; ++p)
        one.tokens.push_back(token(model, run.pairs() && p < prompt ? s / 2 : s, p));
      one.target.assign(static_cast<size_t>(run.length), 1);
      const int64_t first = run.method == "sft" ? 1 : prompt;
      std::fill_n(one.target.begin(), first, uint8_t{0});
      one.row = s;
    }
    return learner.update(examples);
  }
  Experience out;
  std::vector<int64_t> tokens, sequence_of;
  out.offsets = {0};
  for (int64_t s = 0; s < run.sequences; ++s) {
    for (int64_t p = 0; p < run.length; ++p) tokens.push_back(token(model, s, p));
    sequence_of.insert(sequence_of.end(), static_cast<size_t>(run.length - prompt), s);
    out.offsets.push_back(out.offsets.back() + run.length);
    out.prompt_lengths.push_back(prompt);
    out.finished.push_back(true);
    out.prompt_ordinal.push_back(s);
    out.sample_index.push_back(0);
    out.weight_version.push_back(0);
    out.voice.push_back(0);
    out.satisfied.push_back(-1);
    out.preferences.emplace_back();
  }
  out.tokens = at::tensor(tokens, at::kLong);
  out.sequence_of = at::tensor(sequence_of, at::kLong);
  out.behavior_logprob = at::full({out.sequence_of.numel()}, -5.0F);
  out.score = at::arange(run.sequences, at::kFloat) / static_cast<double>(run.sequences);
  return learner.update(out);
}

double model_flops(const Run& run, const ModelConfig& model, bool adapted) {
  const auto forward = [&](bool language_head) {
    return update_flops({{.shape = model, .trained = false, .language_head = language_head}},
                        ActivationCheckpointing::kNone,
                        run.tokens(),
                        run.length / 2);
  };
  const double trained = adapted ? 2 : 3;
  if (run.method == "reward_model") return trained * forward(false);
  if (run.method == "sft") return trained * forward(true);
  if (run.method == "dpo") return (trained + 1) * forward(true);
  // Log-probabilities of policy and reference, and values, are taken before the update.
  return (trained + 2) * forward(true) + (trained + 1) * forward(false);
}

int64_t most_resident_bytes() {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("VmHWM:")) return std::atoll(line.c_str() + 6) << 10;
  return 0;
}

nlohmann::ordered_json measure(const Run& run) {
  const auto document = YamlDocument::parse(run.learner);
  LearnerConfig config = LearnerConfig::from_yaml(document->root());
  if (!document->errors().empty()) throw InvalidArgument(document->errors().front());
  config.device = device_of_rank(config.device);
  config.optimizer.kernels = kernels_on(config.device);
  const ModelConfig model = config_of(run);
  Learner learner = make(run, model, config);
  update(run, model, learner);
  std::vector<double> seconds;
  for (int64_t step = 0; step < run.steps; ++step) {
    const auto start = Clock::now();
    update(run, model, learner);
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::ranges::sort(seconds);
  const double median = seconds[seconds.size() / 2];
  const double flops = model_flops(run, model, config.lora.has_value());
  nlohmann::ordered_json out{{"method", run.method},
                             {"shape", run.shape},
                             {"parameters", model.parameter_count()},
                             {"tokens", run.tokens()},
                             {"learner", run.learner},
                             {"seconds", median},
                             {"tokens_per_second", static_cast<double>(run.tokens()) / median},
                             {"model_flops", flops},
                             {"tflops_per_second", flops / median / 1e12},
                             {"host_bytes", most_resident_bytes()}};
  if (config.device.is_cuda()) {
    out["kernels"] = config.optimizer.kernels != nullptr;
    const char* const peak = std::getenv("PEAK_TFLOPS");
    out["mfu"] = flops / median / 1e12 / (peak ? std::atof(peak) : 989);
    try {
      // LibTorch keeps what it has had: the most of the run.
      const auto gpu = cuda::Library::instance().open(config.device.index());
      out["gpu"] = gpu->description().name;
      out["gpu_bytes"] = gpu->description().memory_bytes - gpu->free_bytes();
    } catch (const Error& failure) {
      out["gpu"] = failure.what();
    }
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    std::printf("%s\n", measure(read(argc, argv)).dump().c_str());
    return kExitDone;
  } catch (const Error& failure) {
    std::fprintf(stderr, "learner_speed: %s\n", failure.what());
    return failure.exit_status();
  }
}
