// What a mixture's responses cost beside plain ones: SHARED_DATA [THREADS [ROUNDS [WEIGHTS]]], one
// JSON line a case; WEIGHTS: float32, bfloat16, int8, of both. Plain and mixed generation take
// turns in one process; medians of the ratios of pairs.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "core/base/threads.h"
#include "core/model/transformer.h"
#include "core/tokenizer/tokenizer.h"
#include "rollout/engine.h"

using namespace praetor;

namespace {

constexpr int64_t kPrompt = 32;
constexpr int64_t kNew = 96;

struct Cost {
  double wall;
  double cpu;  ///< of this process, all threads: what a busy machine blurs less
};

Cost now() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto of = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  const auto wall = std::chrono::steady_clock::now().time_since_epoch();
  return {std::chrono::duration<double>(wall).count(), of(usage.ru_utime) + of(usage.ru_stime)};
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// 15.2M parameters, in the shape of the larger story models.
ModelConfig medium_config() {
  ModelConfig c;
  c.vocab_size = 32000;
  c.hidden_size = 288;
  c.intermediate_size = 768;
  c.num_layers = 6;
  c.num_heads = 6;
  c.num_kv_heads = 6;
  c.head_dim = 48;
  c.max_positions = 256;
  c.tie_embeddings = true;
  return c;
}

std::vector<GenerationRequest> requests_of(int64_t count, int64_t vocab, const Voice& voice) {
  RandomStream random({.job_seed = 1});
  std::vector<GenerationRequest> requests;
  for (int64_t i = 0; i < count; ++i) {
    GenerationRequest r{.params = {.max_new_tokens = kNew},
                        .key = {.prompt_ordinal = static_cast<uint64_t>(i)},
                        .voice = voice};
    for (int64_t t = 0; t < kPrompt; ++t) {
      r.prompt.push_back(static_cast<int64_t>(random.below(static_cast<uint64_t>(vocab))));
    }
    requests.push_back(std::move(r));
  }
  return requests;
}

Cost cost_of(Engine& engine, const std::vector<GenerationRequest>& requests) {
  const Cost start = now();
  engine.generate(requests, [](Generation&&) { return true; });
  const Cost end = now();
  return {end.wall - start.wall, end.cpu - start.cpu};
}

void measure(const char* name,
             const Transformer& policy,
             const Tokenizer& tokenizer,
             int64_t batch,
             int rounds,
             WeightKind weights) {
  const Transformer companion(policy.config(), RandomStream({.job_seed = 2}));
  Engine engine(policy, tokenizer, {.weights = weights}, &companion);
  const int64_t vocab = policy.config().vocab_size;
  const auto plain = requests_of(batch, vocab, {});
  const auto mixed = requests_of(batch, vocab, {.kind = VoiceKind::kMixture, .share = 0.125});
  cost_of(engine, plain);
  cost_of(engine, mixed);
  std::vector<double> plain_s, mixed_s, ratio, cpu_ratio;
  for (int round = 0; round < rounds; ++round) {
    // Each goes first in every other pair.
    const bool first = round % 2 == 0;
    const Cost a = cost_of(engine, first ? plain : mixed);
    const Cost b = cost_of(engine, first ? mixed : plain);
    const Cost& p = first ? a : b;
    const Cost& m = first ? b : a;
    plain_s.push_back(p.wall);
    mixed_s.push_back(m.wall);
    ratio.push_back(m.wall / p.wall);
    cpu_ratio.push_back(m.cpu / p.cpu);
  }
  std::printf(
      "{\"case\": \"mixture_cost\", \"model\": \"%s\", \"batch\": %lld, \"prompt\": %lld, "
      "\"new\": %lld, \"weights\": \"%s\", \"threads\": %d, \"pairs\": %d, \"plain_s_median\": "
      "%.4f, "
      "\"mixture_s_median\": %.4f, \"ratio_median\": %.3f, \"cpu_ratio_median\": %.3f, "
      "\"ratio_all\": [",
      name,
      static_cast<long long>(batch),
      static_cast<long long>(kPrompt),
      static_cast<long long>(kNew),
      to_string(weights).c_str(),
      threads(),
      rounds,
      median(plain_s),
      median(mixed_s),
      median(ratio),
      median(cpu_ratio));
  for (size_t i = 0; i < ratio.size(); ++i) std::printf("%s%.3f", i == 0 ? "" : ", ", ratio[i]);
  std::printf("]}\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: mixture_cost SHARED_DATA [THREADS [ROUNDS [WEIGHTS]]]\n");
    return 64;
  }
  configure_numerics();
  set_threads(argc > 2 ? std::atoi(argv[2]) : 0);
  const int rounds = argc > 3 ? std::max(1, std::atoi(argv[3])) : 15;
  const WeightKind weights = weight_kind_of(argc > 4 ? argv[4] : "float32");
  const std::filesystem::path data = argv[1];
  const Transformer story = Transformer::load(data / "stories260K");
  const auto story_tokenizer = Tokenizer::load(data / "stories260K");
  const Transformer medium(medium_config(), RandomStream({.job_seed = 3}));
  const auto medium_tokenizer = Tokenizer::load(data / "tokenizer-llama2");
  for (const int64_t batch : {16, 1}) {
    measure("stories260K", story, *story_tokenizer, batch, rounds, weights);
    measure("random-15M", medium, *medium_tokenizer, batch, rounds, weights);
  }
}
