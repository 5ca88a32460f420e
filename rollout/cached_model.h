#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/model/transformer.h"
#include "core/model/weight_kind.h"
#include "rollout/scheduler.h"

namespace praetor {

/// A model of the engine, its paged cache, and its rows of the step at hand. The block ids are the
/// scheduler's, the same for every model. The model is borrowed. One thread.
class CachedModel {
 public:
  /// @throws InvalidArgument when the model has no language head, or cannot have weights of `kind`
  CachedModel(const Transformer& model, int64_t block_size, WeightKind kind);

  const ModelConfig& config() const { return model_->config(); }
  int64_t block_bytes() const { return block_bytes_; }  ///< keys and values of one block
  int64_t blocks() const { return blocks_; }            ///< of the cache; 0: there is none
  /// A cache of `blocks` blocks instead of the present one, which goes first.
  void allocate(int64_t blocks);
  void release();
  void copy_block(const Scheduler::Copy& copy);

  void clear_rows();
  /// Adds the next `count` pending tokens of `s`, beyond them its draft's; its table must outlive
  /// the step. Returns the row of logits() that follows its last token (those that follow the draft
  /// come behind it), or -1 when tokens of `s` stay pending.
  int64_t add_rows(const Sequence& s, int64_t count);
  /// About how much logits() has to do, in multiply-adds; 0 without rows.
  int64_t work() const;
  /// One forward pass over the rows: logits behind each sequence that has none pending, [M,V]
  /// float32, contiguous; undefined when there is no such sequence. Nothing runs without rows.
  at::Tensor logits();

 private:
  const Transformer* model_;
  int64_t block_size_;
  WeightKind kind_;
  int64_t block_bytes_;
  int64_t blocks_ = 0;
  KvCache cache_;
  CachedRows rows_;
  std::vector<int64_t> want_;  ///< rows whose logits are needed
};

}  // namespace praetor
