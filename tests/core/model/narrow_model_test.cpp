#include "core/model/narrow_model.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/model/engine_step.h"
#include "core/model/kernels/packed_weight.h"
#include "core/model/lora.h"
#include "core/publication/weight_file.h"
#include "tests/support/catch.h"
#include "tests/support/live_bytes.h"
#include "tests/support/shared_data.h"
#include "tests/support/tiny_model.h"

namespace praetor {

using Catch::Contains;
using testing::LiveBytes;
using testing::TempDir;

namespace {

/// Matrices of 0.8 to 1.1 MB, a dozen megabytes of them, beside a small embedding.
ModelConfig wide_config() {
  ModelConfig c = testing::tiny_config();
  c.vocab_size = 40;
  c.hidden_size = 448;
  c.intermediate_size = 640;
  c.num_heads = c.num_kv_heads = 28;
  c.head_dim = 16;
  c.num_layers = 2;
  return c;
}

int64_t bytes_of(const Transformer& model, bool multiplied) {
  int64_t bytes = 0;
  for (const NamedTensor& p : model.parameters()) {
    if (is_multiplied(p.name) == multiplied) bytes += 4 * p.tensor.numel();
  }
  return bytes;
}

int64_t largest_of(const Transformer& model) {
  int64_t bytes = 0;
  for (const NamedTensor& p : model.parameters()) bytes = std::max(bytes, 4 * p.tensor.numel());
  return bytes;
}

/// Logits behind each token, through a cache, by weights of a kind.
at::Tensor logits_of(const Transformer& model, WeightKind kind) {
  KvCache cache = model.make_cache(4, 4);
  const std::vector<int32_t> table = {2, 0};
  CachedRows rows;
  for (int32_t i = 0; i < 6; ++i) {
    rows.tokens.push_back(7 * i % 40);
    rows.positions.push_back(i);
    rows.sequence.push_back(0);
  }
  rows.tables = {&table};
  return logits(model, hidden_cached(model, rows, cache, {}, kind), kind);
}

}  // namespace

TEST_CASE("a model loaded in one kind of weights alone has that kind's bits", "[core][cpu]") {
  for (const bool tied : {false, true}) {
    ModelConfig config = wide_config();
    config.tie_embeddings = tied;
    const Transformer model(config, testing::stream(5));
    const TempDir dir;
    save_hf(model, dir / "model");
    for (const WeightKind kind : {WeightKind::kBfloat16, WeightKind::kInt8}) {
      INFO(to_string(kind) << (tied ? ", tied" : ""));
      const Transformer narrow = load_narrow(dir / "model", kind);
      REQUIRE(narrow.parameters().size() == model.parameters().size());
      for (size_t i = 0; i < narrow.parameters().size(); ++i) {
        CHECK(narrow.parameters()[i].name == model.parameters()[i].name);
        CHECK(narrow.parameters()[i].tensor.sizes() == model.parameters()[i].tensor.sizes());
      }
      CHECK(at::equal(logits_of(narrow, kind), logits_of(model, kind)));
    }
  }
}

TEST_CASE("loading in one kind keeps no float32 matrix, and makes one at a time", "[core][cpu]") {
  const TempDir dir;
  int64_t rest = 0, matrices = 0, largest = 0;
  {
    const Transformer model(wide_config(), testing::stream(5));
    save_hf(model, dir / "model");
    rest = bytes_of(model, false);
    matrices = bytes_of(model, true);
    largest = largest_of(model);
  }
  CHECK(matrices > 8 * largest);
  const auto packed = [] { return ops::kernels::packed_weight_stats().bytes; };
  {
    const LiveBytes live;
    const Transformer model = Transformer::load(dir / "model");
    CHECK(live.now() >= matrices + rest);
  }
  for (const auto& [kind, share] :
       {std::pair(WeightKind::kBfloat16, 2), std::pair(WeightKind::kInt8, 4)}) {
    INFO(to_string(kind));
    const int64_t before = packed();
    const LiveBytes live;
    const Transformer model = load_narrow(dir / "model", kind);
    const int64_t tables = 64 << 10;  // of the rotation
    CHECK(live.now() < rest + tables);
    CHECK(live.peak() < rest + tables + 2 * largest);
    // Panels are 32 columns wide, int8 has a scale for each.
    CHECK(packed() - before < matrices / share * 21 / 20);
  }
}

TEST_CASE("published weights stream into a model of one kind", "[core][cpu]") {
  const TempDir dir;
  Transformer model(wide_config(), testing::stream(5));
  const int64_t largest = largest_of(model), rest = bytes_of(model, false);
  const auto first = WeightFile::open(write_weight_file(dir.path(), {.step = 1}, model).file);
  const WeightKind kind = WeightKind::kInt8;
  Transformer narrow = first.make_narrow_model(kind);
  CHECK(at::equal(logits_of(narrow, kind), logits_of(model, kind)));
  for (const NamedTensor& p : model.parameters()) at::Tensor(p.tensor).mul_(1.25);
  const auto second = WeightFile::open(write_weight_file(dir.path(), {.step = 2}, model).file);
  const int64_t packed = ops::kernels::packed_weight_stats().bytes;
  {
    const LiveBytes live;
    second.renew(narrow);
    CHECK(live.peak() <= largest);
    CHECK(live.now() <= 0);
  }
  CHECK(ops::kernels::packed_weight_stats().bytes == packed);
  CHECK(at::equal(logits_of(narrow, kind), logits_of(model, kind)));
  {
    const LiveBytes live;
    const Transformer again = second.make_narrow_model(kind);
    CHECK(live.peak() < rest + (64 << 10) + largest);
  }
  const Transformer halves(wide_config(), testing::stream(5), at::kBFloat16);
  const auto other = WeightFile::open(write_weight_file(dir.path(), {.step = 3}, halves).file);
  CHECK_THROWS_WITH(other.make_narrow_model(kind), Contains("made of float32 ones, not of BF16"));
}

TEST_CASE("an adapter is merged into a model of one kind, matrix by matrix", "[core][cpu]") {
  const TempDir dir;
  const Transformer model(wide_config(), testing::stream(5));
  const WeightKind kind = WeightKind::kInt8;
  const auto base = WeightFile::open(write_weight_file(dir.path(), {}, model).file);
  Transformer narrow = base.make_narrow_model(kind);
  LoraAdapter adapter = LoraAdapter::make(model.config(), {.rank = 2}, {.job_seed = 1});
  for (const double size : {0.5, 0.1}) {
    for (const LoraAdapter::Module& module : adapter.modules()) module.b.fill_(size);
    {
      const LiveBytes live;
      base.renew(adapter, narrow);
      CHECK(live.peak() <= 3 * largest_of(model));
      CHECK(live.now() <= 0);
    }
    const Transformer merged = adapter.merged(model);
    CHECK(at::equal(logits_of(narrow, kind), logits_of(merged, kind)));
    CHECK_FALSE(at::equal(logits_of(merged, kind), logits_of(model, kind)));
  }
}

TEST_CASE("a model of one kind is not multiplied in another", "[core][cpu]") {
  const TempDir dir;
  save_hf(testing::tiny_model(), dir / "model");
  const Transformer narrow = load_narrow(dir / "model", WeightKind::kInt8);
  CHECK_NOTHROW(check_has_kind(narrow, WeightKind::kInt8));
  CHECK_THROWS_WITH(check_has_kind(narrow, WeightKind::kFloat32),
                    "the model was loaded as int8 alone, and float32 weights are wanted of it");
  CHECK_THROWS_AS(logits_of(narrow, WeightKind::kBfloat16), InternalError);
  CHECK_NOTHROW(check_has_kind(testing::tiny_model(), WeightKind::kInt8));
}

}  // namespace praetor
