#include "rollout/cached_model.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/model/engine_step.h"
#include "core/model/narrow_model.h"
#include "rollout/device_model.h"

namespace praetor {
namespace {

int64_t bytes_of_block(const Transformer& model, int64_t block_size) {
  const ModelConfig& c = model.config();
  const auto element_size = static_cast<int64_t>(model.head().weight.element_size());
  return c.num_layers * 2 * block_size * c.num_kv_heads * c.head_dim * element_size;
}

/// On the processor, by the operators of core/model.
class ProcessorModel final : public CachedModel {
 public:
  ProcessorModel(const Transformer& model, int64_t block_size, WeightKind kind)
      : CachedModel(model, bytes_of_block(model, block_size)),
        block_size_(block_size),
        kind_(kind) {
    check_weight_kind(model, kind);
    check_has_kind(model, kind);
  }

  void copy_block(const Scheduler::Copy& copy) override {
    for (KvLayer& layer : cache_.layers) {
      const auto take = [&](at::Tensor& all, int64_t dim) {
        const auto rows = [&](int64_t block) {
          return all.select(0, block).narrow(dim, 0, copy.rows);
        };
        rows(copy.to).copy_(rows(copy.from));
      };
      take(layer.keys, 2);
      take(layer.values, 0);
    }
  }

 protected:
  void make_cache(int64_t blocks) override {
    cache_ = {};
    if (blocks > 0) cache_ = model_.make_cache(blocks, block_size_);
  }

  void forward() override {
    const bool wanted = !want_.empty();
    // An empty list would mean all rows; these are computed for the cache alone.
    if (!wanted) want_.push_back(0);
    const at::Tensor hidden = hidden_cached(model_, rows_, cache_, want_, kind_);
    if (wanted) logits_ = logits(model_, hidden, kind_).to(at::kFloat).contiguous();
  }

 private:
  int64_t block_size_;
  WeightKind kind_;
  KvCache cache_;
};

}  // namespace

std::unique_ptr<CachedModel> CachedModel::make(const Transformer& model,
                                               const EngineConfig& config,
                                               cuda::Device* device) {
  if (device) return std::make_unique<DeviceModel>(model, config, *device);
  return std::make_unique<ProcessorModel>(model, config.block_size, config.weights);
}

void CachedModel::allocate(int64_t blocks) {
  release();
  make_cache(blocks);
  blocks_ = blocks;
}

void CachedModel::release() {
  make_cache(0);
  blocks_ = 0;
}

void CachedModel::clear_rows() {
  rows_.tokens.clear();
  rows_.positions.clear();
  rows_.sequence.clear();
  rows_.tables.clear();
  rows_.lengths.clear();
  want_.clear();
}

int64_t CachedModel::add_rows(const Sequence& s, int64_t count) {
  const auto table = static_cast<int32_t>(rows_.tables.size());
  rows_.tables.push_back(&s.table);
  rows_.lengths.push_back(s.length());
  const int64_t pending = s.pending();
  for (int64_t i = 0; i < count; ++i) {
    rows_.tokens.push_back(i < pending ? s.tokens[static_cast<size_t>(s.computed + i)]
                                       : s.draft[static_cast<size_t>(i - pending)]);
    rows_.positions.push_back(static_cast<int32_t>(s.computed + i));
    rows_.sequence.push_back(table);
  }
  if (pending > count) return -1;
  const auto first = static_cast<int64_t>(want_.size());
  const auto end = static_cast<int64_t>(rows_.tokens.size());
  for (int64_t row = end - (count - pending) - 1; row < end; ++row) want_.push_back(row);
  return first;
}

int64_t CachedModel::work() const {
  // Few rows cost what it takes to read the weights.
  constexpr int64_t kReading = 8;
  const auto rows = static_cast<int64_t>(rows_.tokens.size());
  return rows == 0 ? 0 : std::max(rows, kReading) * model_.config().parameter_count();
}

void CachedModel::run() {
  logits_ = at::Tensor();
  if (!rows_.tokens.empty()) forward();
}

}  // namespace praetor
