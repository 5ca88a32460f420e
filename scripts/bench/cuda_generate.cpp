// Decoding on a GPU: a Llama of the given shape with random weights, one JSON line.
// usage: cuda_generate [BATCH [PROMPT [NEW [HIDDEN LAYERS HEADS KV_HEADS INNER VOCAB]]]]
// default: 16 sequences of 128 + 128 tokens, Llama 3.2 1B's shape. Status 75 where there is no GPU.
// `bandwidth_share`: bytes of weights and of keys and values that decoding has to read, by its
// time, by the bandwidth of a copy within the GPU's memory that was timed in the same run.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <vector>

#include "core/cuda/decoder.h"
#include "core/cuda/library.h"
#include "core/model/families.h"

namespace {

using namespace praetor;
using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

ModelConfig shape_of(int argc, char** argv) {
  const auto number = [&](int i, int64_t otherwise) {
    return argc > i ? std::atoll(argv[i]) : otherwise;
  };
  ModelConfig c;
  c.hidden_size = number(4, 2048);
  c.num_layers = number(5, 16);
  c.num_heads = number(6, 32);
  c.num_kv_heads = number(7, 8);
  c.intermediate_size = number(8, 8192);
  c.vocab_size = number(9, 128256);
  c.head_dim = c.hidden_size / c.num_heads;
  c.max_positions = 8192;
  c.rope.theta = 500000;
  c.tie_embeddings = true;
  return c;
}

/// Bytes a second that are read, and as many written, by a copy.
double copy_bandwidth(cuda::Device& device) {
  const int64_t bytes = int64_t{1} << 30;
  const cuda::DeviceArray<char> from(device, bytes), to(device, bytes);
  device.copy(to.get(), from.get(), bytes);
  device.synchronize();
  const auto start = Clock::now();
  for (int i = 0; i < 10; ++i) device.copy(to.get(), from.get(), bytes);
  device.synchronize();
  return 2.0 * 10 * static_cast<double>(bytes) / since(start);
}

/// Tokens `from` to `to` of each sequence, and the rows behind which a token is drawn.
CachedRows rows_of(const std::vector<std::vector<int64_t>>& tokens,
                   const std::vector<std::vector<int32_t>>& tables,
                   size_t begin,
                   size_t end,
                   size_t from,
                   size_t to) {
  CachedRows rows;
  for (size_t s = begin; s < end; ++s) {
    rows.tables.push_back(&tables[s]);
    for (size_t p = from; p < to; ++p) {
      rows.tokens.push_back(tokens[s][p]);
      rows.positions.push_back(static_cast<int32_t>(p));
      rows.sequence.push_back(static_cast<int32_t>(s - begin));
    }
  }
  return rows;
}

nlohmann::ordered_json measure(cuda::Device& device, int argc, char** argv) {
  const auto batch = static_cast<size_t>(argc > 1 ? std::atoll(argv[1]) : 16);
  const auto prompt = static_cast<size_t>(argc > 2 ? std::atoll(argv[2]) : 128);
  const auto fresh = static_cast<size_t>(argc > 3 ? std::atoll(argv[3]) : 128);
  const ModelConfig config = shape_of(argc, argv);
  const auto total = static_cast<int64_t>(prompt + fresh);
  cuda::DecoderOptions options;
  options.max_sequences = static_cast<int64_t>(batch);
  options.max_rows = std::max<int64_t>(static_cast<int64_t>(prompt), options.max_sequences);
  options.max_tokens = total;
  const int64_t each = cuda::blocks_of(total, options.block_size);
  options.blocks = each * options.max_sequences;
  const double bandwidth = copy_bandwidth(device);
  cuda::Decoder decoder(device, config, options);
  at::manual_seed(1);
  for (const ParameterSpec& spec : parameter_layout(config)) {
    decoder.set(spec.name,
                spec.init == ParameterSpec::Init::kOne ? at::ones(spec.shape)
                                                       : at::randn(spec.shape) * 0.02);
  }
  std::vector<std::vector<int64_t>> tokens(batch);
  std::vector<std::vector<int32_t>> tables(batch);
  for (size_t s = 0; s < batch; ++s) {
    for (size_t p = 0; p < prompt; ++p)
      tokens[s].push_back(
          static_cast<int64_t>((s * 7919 + p * 104729) % static_cast<size_t>(config.vocab_size)));
    for (int64_t b = 0; b < each; ++b)
      tables[s].push_back(static_cast<int32_t>(static_cast<int64_t>(s) * each + b));
  }
  const auto draw = [&](size_t begin, size_t end, uint32_t position) {
    std::vector<cuda::SampleSpec> specs;
    for (size_t s = begin; s < end; ++s) {
      specs.push_back(cuda::sample_spec(static_cast<int32_t>(s - begin),
                                        1.0,
                                        0,
                                        0.95,
                                        0,
                                        {.job_seed = 1, .prompt_ordinal = s},
                                        position));
    }
    const auto drawn = decoder.sample(specs);
    for (size_t s = begin; s < end; ++s) tokens[s].push_back(drawn[s - begin].token);
  };
  const auto prefill = Clock::now();
  for (size_t s = 0; s < batch; ++s) {
    decoder.run(rows_of(tokens, tables, s, s + 1, 0, prompt), {static_cast<int64_t>(prompt) - 1});
    draw(s, s + 1, 0);
  }
  const double prefill_seconds = since(prefill);
  const auto step = [&](uint32_t i) {
    decoder.run(rows_of(tokens, tables, 0, batch, prompt + i - 1, prompt + i));
    draw(0, batch, i);
  };
  step(1);  // is recorded
  const auto decode = Clock::now();
  for (uint32_t i = 2; i < fresh; ++i) step(i);
  const double seconds = since(decode), steps = static_cast<double>(fresh) - 2;
  const double context = static_cast<double>(prompt) + static_cast<double>(fresh) / 2;
  const double bytes =
      static_cast<double>(cuda::Decoder::weight_bytes(config)) +
      static_cast<double>(batch) * context *
          static_cast<double>(cuda::Decoder::block_bytes(config, options.block_size)) /
          static_cast<double>(options.block_size);
  return {{"gpu", device.description().name},
          {"parameters", config.parameter_count()},
          {"batch", batch},
          {"prompt_tokens", prompt},
          {"new_tokens", fresh},
          {"prefill_tokens_per_second", static_cast<double>(batch * prompt) / prefill_seconds},
          {"decode_tokens_per_second", static_cast<double>(batch) * steps / seconds},
          {"milliseconds_per_step", 1e3 * seconds / steps},
          {"bytes_per_step", bytes},
          {"copy_bytes_per_second", bandwidth},
          {"bandwidth_share", bytes * steps / seconds / bandwidth}};
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc > 3 && std::atoll(argv[3]) < 3)
      throw InvalidArgument("cuda_generate: NEW is ", argv[3], ", but must be at least 3");
    const c10::NoGradGuard no_grad;
    const auto device = cuda::Library::instance().open(0);
    std::printf("%s\n", measure(*device, argc, argv).dump().c_str());
    return kExitDone;
  } catch (const Error& failure) {
    std::fprintf(stderr, "cuda_generate: %s\n", failure.what());
    return failure.exit_status();
  }
}
