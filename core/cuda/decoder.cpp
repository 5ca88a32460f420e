#include "core/cuda/decoder.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "core/base/error.h"
#include "core/base/sample_counter.h"
#include "core/cuda/decoder_layer.h"
#include "core/model/families.h"
#include "core/model/ops_checks.h"
#include "core/model/rope.h"

namespace praetor::cuda {

namespace {

/// Blocks of a launch that keep a multiprocessor busy.
constexpr int64_t kBlocksEach = 4;
constexpr int64_t kMostSplits = 16;
/// Rows times splits that attention's parts have room for, at the least.
constexpr int64_t kPartRows = 1024;
/// Blocks that each sequence's table has room for, at the least: fewer would save no copying.
constexpr int64_t kLeastStride = 64;

}  // namespace

Decoder::Decoder(Device& device, const ModelConfig& config, const DecoderOptions& options)
    : device_(device), config_(config), options_(options) {
  if (const std::string what = unsupported(config); !what.empty())
    throw InvalidArgument("the GPU engine does not compute ", what);
  if (options_.max_tokens == 0) options_.max_tokens = config.max_positions;
  if (options_.max_logits == 0) options_.max_logits = options_.max_sequences;
  check_options();
  const Family& family = family_of(config);
  gelu_ = family.mlp != MlpKind::kSwiglu;
  gated_ = family.mlp != MlpKind::kGelu;
  if (family.scaled_embedding) embedding_scale_ = std::sqrt(static_cast<float>(config.hidden_size));
  const double head =
      config.query_scalar > 0 ? config.query_scalar : static_cast<double>(config.head_dim);
  scale_ = static_cast<float>(1.0 / std::sqrt(head));
  most_stride_ = blocks_of(options_.max_tokens, options_.block_size);
  // Decoding steps are filled up to a power of two, also the largest.
  const auto idle_rows =
      static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(options_.max_sequences)));
  const int64_t rows = std::max(options_.max_rows, idle_rows);

  if (!family.learned_positions) {
    add_rope(config.rope);
    if (config.local_rope) add_rope(*config.local_rope);
  }
  place_weights();
  reserve(options_.blocks);

  at_.tokens = 0;
  at_.positions = at_.tokens + rows;
  at_.turns = at_.positions + rows;
  at_.blocks = at_.turns + rows;
  at_.want = at_.blocks + rows;
  at_.tiles = at_.want + rows;
  at_.tables = at_.tiles + 3 * rows;
  at_.total = at_.tables + (options_.max_sequences + 1) * most_stride_;
  input_ = DeviceArray<int32_t>(device, at_.total);
  staged_.assign(static_cast<size_t>(at_.total), 0);

  const int64_t part_rows = std::max(rows, kPartRows);
  x_ = DeviceArray<float>(device, rows * config.hidden_size);
  if (family.output_norms) apart_ = DeviceArray<float>(device, rows * config.hidden_size);
  qkv_ = DeviceArray<float>(device, rows * qkv_width(config));
  gates_ = DeviceArray<float>(device, rows * 2 * config.intermediate_size);
  part_ = DeviceArray<float>(device, part_rows * query_width(config));
  part_state_ = DeviceArray<float>(device, part_rows * config.num_heads * 2);
  h_ = DeviceArray<Bfloat16>(
      device, rows * std::max({config.hidden_size, query_width(config), config.intermediate_size}));
  logits_ =
      DeviceArray<float>(device, std::max(idle_rows, options_.max_logits) * config.vocab_size);
  specs_ = DeviceArray<SampleSpec>(device, idle_rows);
  results_ = DeviceArray<SampleResult>(device, idle_rows);
}

Decoder::~Decoder() = default;

void Decoder::check_options() const {
  const DecoderOptions& o = options_;
  if (o.max_sequences < 1 || o.max_rows < o.max_sequences || o.max_logits < 1 ||
      o.max_logits > o.max_rows || o.block_size < 1 || o.blocks < 0 || o.max_tokens < 1 ||
      o.max_tokens > config_.max_positions) {
    throw InvalidArgument("the GPU engine: max_sequences ",
                          o.max_sequences,
                          ", max_rows ",
                          o.max_rows,
                          ", max_logits ",
                          o.max_logits,
                          ", block_size ",
                          o.block_size,
                          ", blocks ",
                          o.blocks,
                          ", max_tokens ",
                          o.max_tokens,
                          " do not fit each other or the model's ",
                          config_.max_positions,
                          " positions");
  }
  AttendKernel attend{};
  attend.cache = {config_.num_kv_heads, o.block_size, config_.head_dim};
  attend.heads = config_.num_heads;
  const DeviceDescription& gpu = device_.description();
  if (gpu.shared_bytes > 0 && attend.memory() > gpu.shared_bytes) {
    throw InvalidArgument("the GPU engine: attention of ",
                          config_.num_heads,
                          " heads of ",
                          config_.head_dim,
                          " numbers over ",
                          config_.num_kv_heads,
                          " key heads needs ",
                          attend.memory(),
                          " bytes of shared memory; a block of ",
                          gpu.name,
                          " has ",
                          gpu.shared_bytes);
  }
}

void Decoder::reserve(int64_t blocks) {
  recordings_.clear();  // they know the places of the cache that goes
  const auto release = [this] {
    for (const auto& layer : layers_) {
      layer->keys = DeviceArray<Bfloat16>();
      layer->values = DeviceArray<Bfloat16>();
    }
    options_.blocks = 0;
  };
  release();
  if (blocks == 0) return;
  // One block more than is handed out: idle rows write there.
  const int64_t numbers =
      (blocks + 1) * options_.block_size * config_.num_kv_heads * config_.head_dim;
  try {
    for (const auto& layer : layers_) {
      layer->keys = DeviceArray<Bfloat16>(device_, numbers);
      layer->values = DeviceArray<Bfloat16>(device_, numbers);
    }
  } catch (...) {
    release();
    throw;
  }
  options_.blocks = blocks;
}

int64_t Decoder::splits_of(int64_t rows, int64_t tiles) const {
  const int64_t wanted = kBlocksEach * std::max<int64_t>(1, device_.description().multiprocessors);
  const int64_t room = std::max(options_.max_rows, kPartRows) / rows;
  return std::clamp<int64_t>(wanted / (tiles * config_.num_kv_heads),
                             1,
                             std::min(kMostSplits, std::max<int64_t>(1, room)));
}

void Decoder::upload(const CachedRows& rows, const std::vector<int64_t>& want, int64_t idle) {
  const auto count = static_cast<int64_t>(rows.tokens.size());
  int32_t* const staged = staged_.data();
  const auto spare = static_cast<int32_t>(options_.blocks);
  const int64_t most = AttendKernel::tile_rows(config_.num_heads, config_.num_kv_heads);
  auto* tiles = reinterpret_cast<AttendTile*>(staged + at_.tiles);
  const bool switches = config_.switch_length() > 0;
  std::vector<int64_t> lengths;
  if (switches) lengths = ops::cached_lengths(rows);
  staged_tiles_ = 0;
  for (int64_t i = 0; i < count + idle; ++i) {
    const auto r = static_cast<size_t>(i);
    const bool real = i < count;
    const int32_t position = real ? rows.positions[r] : 0;
    // The idle rows' sequence stands before the others, and has the spare block.
    const int32_t sequence = real ? rows.sequence[r] + 1 : 0;
    staged[at_.tokens + i] = real ? static_cast<int32_t>(rows.tokens[r]) : 0;
    staged[at_.positions + i] = position;
    staged[at_.turns + i] = real && switches
                                ? static_cast<int32_t>(ropes_.front().tables.row(
                                      position, lengths[static_cast<size_t>(rows.sequence[r])]))
                                : position;
    staged[at_.blocks + i] =
        real ? (*rows.tables[static_cast<size_t>(rows.sequence[r])])[static_cast<size_t>(
                   position / options_.block_size)]
             : spare;
    staged[at_.want + i] = static_cast<int32_t>(want.empty() || !real ? i
                                                : r < want.size()     ? want[r]
                                                                      : 0);
    AttendTile* last = staged_tiles_ > 0 ? &tiles[staged_tiles_ - 1] : nullptr;
    if (real && last && last->sequence == sequence && last->count < most &&
        staged[at_.positions + last->first] + last->count == position) {
      ++last->count;
    } else {
      tiles[staged_tiles_++] = {static_cast<int32_t>(i), 1, sequence};
    }
  }
  // The tables are as wide as the longest sequence wants, so that few bytes are copied.
  size_t longest = static_cast<size_t>(kLeastStride);
  for (const std::vector<int32_t>* table : rows.tables) longest = std::max(longest, table->size());
  staged_stride_ = std::min(most_stride_, static_cast<int64_t>(std::bit_ceil(longest)));
  int32_t* to = staged + at_.tables;
  *to = spare;
  for (const std::vector<int32_t>* table : rows.tables) {
    to += staged_stride_;
    std::copy_n(table->begin(), std::min(table->size(), static_cast<size_t>(staged_stride_)), to);
  }
  input_.upload(staged, to + staged_stride_ - staged);
}

void Decoder::check_step(const CachedRows& rows, const std::vector<int64_t>& want) const {
  const auto count = static_cast<int64_t>(rows.tokens.size());
  const auto sequences = static_cast<int64_t>(rows.tables.size());
  const int64_t wanted = want.empty() ? count : static_cast<int64_t>(want.size());
  if (count < 1 || count > options_.max_rows || sequences > options_.max_sequences ||
      wanted > options_.max_logits) {
    throw InvalidArgument("the GPU engine: a step of ",
                          count,
                          " rows of ",
                          sequences,
                          " sequences with ",
                          wanted,
                          " rows of logits is beyond max_rows ",
                          options_.max_rows,
                          ", max_sequences ",
                          options_.max_sequences,
                          " or max_logits ",
                          options_.max_logits);
  }
  ops::check_cached_rows(rows, count, options_.block_size, options_.blocks);
  for (size_t i = 0; i < rows.tokens.size(); ++i) {
    if (rows.tokens[i] < 0 || rows.tokens[i] >= config_.vocab_size ||
        rows.positions[i] >= options_.max_tokens) {
      throw InvalidArgument("the GPU engine: row ",
                            i,
                            ": token ",
                            rows.tokens[i],
                            " at position ",
                            rows.positions[i],
                            " is outside the vocabulary of ",
                            config_.vocab_size,
                            " or the ",
                            options_.max_tokens,
                            " positions");
    }
  }
  for (const int64_t row : want) {
    if (row < 0 || row >= count)
      throw InvalidArgument("the GPU engine: row ", row, " of ", count, " is wanted");
  }
}

void Decoder::run(const CachedRows& rows, const std::vector<int64_t>& want) {
  check_step(rows, want);
  const auto count = static_cast<int64_t>(rows.tokens.size());
  const auto sequences = static_cast<int64_t>(rows.tables.size());
  wanted_ = want.empty() ? count : static_cast<int64_t>(want.size());
  const bool decodes = wanted_ == count && sequences == count && want.empty();
  const int64_t filled =
      decodes ? static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(count))) : count;
  upload(rows, want, filled - count);
  const int64_t wanted = decodes ? filled : wanted_;
  const Sizes sizes{
      filled, staged_tiles_, splits_of(filled, staged_tiles_), wanted, staged_stride_};
  if (!decodes || staged_tiles_ != filled) return forward(sizes);
  std::unique_ptr<Recording>& recording = recordings_[{filled, staged_stride_}];
  if (!recording) {
    // Once without recording: CUDA loads kernels, and cuBLAS chooses, at the first use.
    forward(sizes);
    recording = device_.record([&] { forward(sizes); });
    return;
  }
  recording->replay();
}

void Decoder::norm(const NormWeights& weights, const int32_t* index, int64_t rows) {
  device_.launch(NormKernel{x_.get(),
                            weights.weight.get(),
                            index,
                            h_.get(),
                            rows,
                            config_.hidden_size,
                            static_cast<float>(config_.norm_eps),
                            weights.bias.get()});
}

void Decoder::forward(const Sizes& sizes) {
  int32_t* const input = input_.get();
  const int64_t hidden = config_.hidden_size;
  device_.launch(EmbedKernel{embedding_.get(),
                             input + at_.tokens,
                             x_.get(),
                             sizes.rows,
                             hidden,
                             embedding_scale_,
                             positions_.get(),
                             input + at_.positions});
  for (const auto& each : layers_) layer(*each, sizes);
  norm(final_norm_, input + at_.want, sizes.wanted);
  device_.multiply({h_.get(),
                    config_.tie_embeddings ? embedding_.get() : head_.get(),
                    logits_.get(),
                    sizes.wanted,
                    hidden,
                    config_.vocab_size});
  if (config_.logit_softcap > 0) {
    device_.launch(SoftcapKernel{logits_.get(),
                                 sizes.wanted * config_.vocab_size,
                                 static_cast<float>(config_.logit_softcap)});
  }
}

void Decoder::finish(const DeviceArray<Bfloat16>& weight,
                     const DeviceArray<float>& bias,
                     const NormWeights& norm,
                     int64_t rows,
                     int64_t inputs) {
  const int64_t hidden = config_.hidden_size;
  const bool apart = norm.weight.size() > 0;
  float* const to = apart ? apart_.get() : x_.get();
  device_.multiply({h_.get(), weight.get(), to, rows, inputs, hidden, !apart});
  if (bias.size() > 0) device_.launch(AddBiasKernel{bias.get(), to, rows, hidden});
  if (!apart) return;
  device_.launch(AddNormKernel{
      to, norm.weight.get(), x_.get(), rows, hidden, static_cast<float>(config_.norm_eps)});
}

void Decoder::layer(const Layer& layer, const Sizes& sizes) {
  const ModelConfig& c = config_;
  const int64_t rows = sizes.rows, hidden = c.hidden_size, inner = c.intermediate_size;
  int32_t* const input = input_.get();
  const CacheShape cache{c.num_kv_heads, options_.block_size, c.head_dim};
  // Without a rotation there are learned positions.
  const Rope* const rope = ropes_.empty() ? nullptr : &ropes_[layer.rope];

  norm(layer.attention_norm, nullptr, rows);
  device_.multiply({h_.get(), layer.qkv.get(), qkv_.get(), rows, hidden, qkv_width(c)});
  device_.launch(RotateStoreKernel{qkv_.get(),
                                   layer.qkv_bias.get(),
                                   rope ? rope->cos.get() : nullptr,
                                   rope ? rope->sin.get() : nullptr,
                                   input + (layer.rope == 0 ? at_.turns : at_.positions),
                                   input + at_.positions,
                                   input + at_.blocks,
                                   layer.keys.get(),
                                   layer.values.get(),
                                   cache,
                                   rows,
                                   c.num_heads,
                                   rope ? rope->half : 0,
                                   layer.q_norm.weight.get(),
                                   layer.k_norm.weight.get(),
                                   static_cast<float>(c.norm_eps)});
  device_.launch(AttendKernel{qkv_.get(),
                              qkv_width(c),
                              layer.keys.get(),
                              layer.values.get(),
                              cache,
                              input + at_.tables,
                              sizes.stride,
                              input + at_.positions,
                              reinterpret_cast<const AttendTile*>(input + at_.tiles),
                              sizes.tiles,
                              c.num_heads,
                              sizes.splits,
                              scale_,
                              part_.get(),
                              part_state_.get(),
                              rows,
                              layer.window,
                              static_cast<float>(c.attention_softcap)});
  device_.launch(JoinKernel{
      part_.get(), part_state_.get(), h_.get(), rows, c.num_heads, c.head_dim, sizes.splits});
  finish(layer.o, layer.o_bias, layer.attention_output_norm, rows, query_width(c));
  norm(layer.mlp_norm, nullptr, rows);
  const int64_t gates = (gated_ ? 2 : 1) * inner;
  device_.multiply({h_.get(), layer.gate_up.get(), gates_.get(), rows, hidden, gates});
  device_.launch(
      GatedKernel{gates_.get(), h_.get(), rows, inner, gelu_, gated_, layer.gate_up_bias.get()});
  finish(layer.down, layer.down_bias, layer.mlp_output_norm, rows, inner);
}

at::Tensor Decoder::logits() {
  at::Tensor out = at::empty({wanted_, config_.vocab_size}, at::dtype(at::kFloat));
  if (wanted_ > 0) {
    device_.download(out.mutable_data_ptr<float>(),
                     logits_.get(),
                     out.numel() * static_cast<int64_t>(sizeof(float)));
  }
  return out;
}

at::Tensor Decoder::logits(std::span<const int64_t> rows) {
  at::Tensor out =
      at::empty({static_cast<int64_t>(rows.size()), config_.vocab_size}, at::dtype(at::kFloat));
  float* to = out.mutable_data_ptr<float>();
  for (const int64_t row : rows) {
    if (row < 0 || row >= wanted_)
      throw InvalidArgument("the GPU engine: logits of row ", row, " of ", wanted_, " are wanted");
    device_.download(to,
                     logits_.get() + row * config_.vocab_size,
                     config_.vocab_size * static_cast<int64_t>(sizeof(float)));
    to += config_.vocab_size;
  }
  return out;
}

std::vector<SampleResult> Decoder::sample(std::span<const SampleSpec> specs) {
  const auto count = static_cast<int64_t>(specs.size());
  if (count == 0) return {};
  for (const SampleSpec& spec : specs) {
    if (spec.row < 0 || spec.row >= wanted_)
      throw InvalidArgument("the GPU engine: row ", spec.row, " of ", wanted_, " is to be drawn");
  }
  // The n samples of a prompt draw from one row: there may be more draws than rows.
  if (count > specs_.size()) {
    specs_ = DeviceArray<SampleSpec>(device_, count);
    results_ = DeviceArray<SampleResult>(device_, count);
  }
  specs_.upload(specs.data(), count);
  device_.launch(
      SampleKernel{logits_.get(), specs_.get(), results_.get(), count, config_.vocab_size});
  std::vector<SampleResult> out = results_.download(count);
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i].token < 0) {
      throw DataError("the logits of row ",
                      specs[i].row,
                      " are unusable (finite ones are needed: look at the weights)");
    }
  }
  return out;
}

void Decoder::copy_block(int32_t from, int32_t to) {
  const int64_t each = options_.block_size * config_.num_kv_heads * config_.head_dim;
  for (const auto& layer : layers_) {
    for (const DeviceArray<Bfloat16>* cache : {&layer->keys, &layer->values}) {
      device_.copy(cache->get() + to * each,
                   cache->get() + from * each,
                   each * static_cast<int64_t>(sizeof(Bfloat16)));
    }
  }
}

SampleSpec sample_spec(int32_t row,
                       double temperature,
                       int64_t top_k,
                       double top_p,
                       double min_p,
                       const SampleKey& key,
                       uint32_t position) {
  const PhiloxWords counter = sample_counter(key, position);
  SampleSpec out{};
  out.row = row;
  out.temperature = static_cast<float>(temperature);
  out.top_p = top_p;
  out.min_p = min_p;
  out.top_k = static_cast<int32_t>(std::min(top_k, SampleKernel::kMostIds));
  out.counter = counter;
  out.key[0] = static_cast<uint32_t>(key.job_seed);
  out.key[1] = static_cast<uint32_t>(key.job_seed >> 32);
  return out;
}

}  // namespace praetor::cuda
