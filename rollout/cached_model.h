#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/cuda/decoder.h"
#include "core/model/transformer.h"
#include "rollout/engine_config.h"
#include "rollout/scheduler.h"

namespace praetor {

/// A model of the engine, its paged cache, and its rows of the step at hand, on the processor or on
/// a GPU. The block ids are the scheduler's, the same for every model. The model is borrowed. One
/// thread.
class CachedModel {
 public:
  /// @param device  computes and has the cache, borrowed; null: the processor
  /// @throws InvalidArgument when the model has no language head, cannot have weights of the
  /// config's kind, or is not one that the device computes; DeviceMemoryError
  static std::unique_ptr<CachedModel> make(const Transformer& model,
                                           const EngineConfig& config,
                                           cuda::Device* device);
  virtual ~CachedModel() = default;
  CachedModel(const CachedModel&) = delete;
  CachedModel& operator=(const CachedModel&) = delete;

  const ModelConfig& config() const { return model_.config(); }
  int64_t block_bytes() const { return block_bytes_; }  ///< keys and values of one block
  int64_t blocks() const { return blocks_; }            ///< of the cache; 0: there is none
  /// A cache of `blocks` blocks instead of the present one, which goes first.
  void allocate(int64_t blocks);
  void release();
  virtual void copy_block(const Scheduler::Copy& copy) = 0;

  void clear_rows();
  /// Adds the next `count` pending tokens of `s`, beyond them its draft's; its table must outlive
  /// the step. Returns the row of logits that follows its last token (those that follow the draft
  /// come behind it), or -1 when tokens of `s` stay pending.
  int64_t add_rows(const Sequence& s, int64_t count);
  /// About how much run() has to do, in multiply-adds; 0 without rows.
  int64_t work() const;
  /// One forward pass over the rows, by the model's weights as they are now; nothing without rows.
  void run();

  /// Where the model computes on a GPU, what has the last run's logits, in the order of add_rows;
  /// else null.
  virtual cuda::Decoder* decoder() { return nullptr; }
  /// Of the last run of a model on the processor, to be asked for once: logits behind each sequence
  /// that has none pending, [M,V] float32, contiguous; undefined when there is no such sequence.
  at::Tensor take_logits() { return std::move(logits_); }

 protected:
  CachedModel(const Transformer& model, int64_t block_bytes)
      : model_(model), block_bytes_(block_bytes) {}
  virtual void make_cache(int64_t blocks) = 0;  ///< 0: none
  virtual void forward() = 0;                   ///< over at least one row

  const Transformer& model_;
  CachedRows rows_;
  std::vector<int64_t> want_;  ///< rows whose logits are needed
  at::Tensor logits_;

 private:
  int64_t block_bytes_;
  int64_t blocks_ = 0;
};

}  // namespace praetor
