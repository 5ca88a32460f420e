// Speed of publishing weights: FOLDER [THREADS [HIDDEN [LAYERS]]], one JSON line a round.
#include <ATen/ATen.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "core/base/threads.h"
#include "core/model/families.h"
#include "core/model/transformer_builder.h"
#include "core/publication/weight_file.h"

using namespace praetor;

namespace {

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Of this process, all threads: what a busy machine does not blur.
double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto of = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

Transformer make_model(int64_t hidden, int64_t layers) {
  ModelConfig config;
  config.architecture = "qwen2";
  config.vocab_size = 151936;
  config.hidden_size = hidden;
  config.intermediate_size = 4864;
  config.num_layers = layers;
  config.num_heads = hidden / 64;
  config.num_kv_heads = config.num_heads;
  config.head_dim = 64;
  config.max_positions = 4096;
  config.tie_embeddings = true;
  config.attention_bias = true;
  std::vector<NamedTensor> parameters;
  for (const ParameterSpec& spec : parameter_layout(config))
    parameters.push_back({spec.name, at::empty(spec.shape).uniform_()});
  return TransformerBuilder::assemble(config, std::move(parameters));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: weights_bench FOLDER [THREADS [HIDDEN [LAYERS]]]\n");
    return 64;
  }
  const auto argument = [&](int at, int missing) {
    return argc > at ? std::atoi(argv[at]) : missing;
  };
  configure_numerics();
  set_threads(argument(2, 0));
  const Transformer model = make_model(argument(3, 896), argument(4, 24));
  Transformer other = model.clone();
  for (int64_t round = 0; round < 4; ++round) {
    double wall[5], cpu[5];
    int mark = 0;
    const auto now = [&] {
      wall[mark] = seconds();
      cpu[mark++] = cpu_seconds();
    };
    now();
    const WrittenWeights written = write_weight_file(argv[1], {0, 0, round}, model);
    now();
    const WeightFile file = WeightFile::open(written.file, written.digest);
    now();
    file.verify();
    now();
    file.apply(other);
    now();
    keep_newest(argv[1], 0, 1);
    const double gigabytes = static_cast<double>(written.bytes) / 1e9;
    std::printf("{\"threads\": %d, \"gigabytes\": %.3f, \"open_ms\": %.1f",
                threads(),
                gigabytes,
                (wall[2] - wall[1]) * 1e3);
    const auto speed = [&](const char* what, int from) {
      std::printf(", \"%s_gb_s\": %.2f, \"%s_gb_per_cpu_s\": %.2f",
                  what,
                  gigabytes / (wall[from + 1] - wall[from]),
                  what,
                  gigabytes / (cpu[from + 1] - cpu[from]));
    };
    speed("write", 0);
    speed("verify", 2);
    speed("copy", 3);
    std::printf("}\n");
  }
}
