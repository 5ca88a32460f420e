#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/model/named_tensor.h"
#include "learners/sharding/flat_layout.h"
#include "learners/sharding/sharding_ranks.h"

namespace praetor {

/// What a rank holds for a while of units whose weights are kept in parts, beside its own part.
struct UnitMeter {
  int64_t part_bytes = 0;           ///< of the weights that this rank keeps
  int64_t units = 0;                ///< gathered, or on their way
  int64_t bytes = 0;                ///< of their weights
  int64_t peak_units = 0;           ///< since it was made
  int64_t peak_bytes = 0;           ///< since it was made
  int64_t peak_gradient_bytes = 0;  ///< of whole gradients that are not summed yet
};

/// Some parameters that pass between ranks together, end to end and cut into equal parts
/// (FlatLayout), one a rank: their gradients are summed into the owner's part, and their weights
/// gathered from the owners.
///
/// Until `cut`, every rank holds the weights. After it, a rank holds its part, and the parameters
/// have memory between `gather` and `release` alone; the tensors stay the same ones, so graphs and
/// modules go on pointing at them. Nothing may read a weight, or write to one, in between.
///
/// Where there are several copies (ShardingRanks), all of this happens among the ranks of each, and
/// the sums of a step are added over the copies at its end.
///
/// Every rank makes the calls marked "all ranks" alike; of several copies those of each. Sums are
/// in rank order, over the copies in their order. Of parameters on another device than the CPU
/// parts and sums are there, too. They pass between ranks from there where the ranks have a group
/// for it (Collective::device), whose sums have its order, else through the processor's memory.
class FlatUnit {
 public:
  /// Elements of one exchange, over all ranks.
  static constexpr int64_t kBucketBytes = int64_t{32} << 20;

  /// The tensors of `parameters` are the model's own.
  /// @param who  in messages
  /// @throws InvalidArgument for parameters of two dtypes, or one that is not contiguous
  FlatUnit(const std::string& who,
           std::vector<NamedTensor> parameters,
           ShardingRanks ranks,
           int64_t alignment = 1,
           int64_t bucket_bytes = kBucketBytes);

  const std::vector<NamedTensor>& parameters() const { return parameters_; }
  /// What this rank owns, in order: one tensor a piece, named NAME@BEGIN-END; of the parameter's
  /// shape when it is all of it. Before `cut` they are aliases of the parameters.
  const std::vector<NamedTensor>& owned() const { return owned_; }
  /// The pieces' places, beside owned().
  const std::vector<FlatPiece>& pieces() const { return pieces_; }

  /// Adds the gradients of all ranks to the owners' parts and drops the parameters' own. One that
  /// is undefined counts as zeros. All ranks.
  void add_gradients();
  /// The same beside what this rank does until `finish_adding`, which every start has. The
  /// parameters' own gradients are dropped at once. All ranks.
  void start_adding();
  void finish_adding();
  /// Bytes of the parameters' own gradients, and of those that are being summed.
  int64_t gradient_bytes() const;
  /// Which parameters have had a gradient here since drop_gradients.
  const std::vector<bool>& seen() const { return seen_; }
  /// Adds what the copies have summed since the last drop_gradients; once, before `hand_over`. All
  /// ranks of all copies, of which some may have added nothing.
  void add_over_copies();
  /// Gives owned() the sums, where `any` says that some rank had a gradient; the others have none.
  void hand_over(const std::vector<bool>& any);
  void drop_gradients();

  /// Not cut: gives every rank the weights of all owners, after these have stepped. All ranks.
  void share_weights();

  /// From now on each rank keeps its part. `meter` (borrowed) counts what is gathered.
  /// @param read  fills those parameters that are waiting for their weights
  /// (core/model/model_weights.h); the unit is whole while it is called
  using Reader = std::function<void(std::span<const NamedTensor>)>;
  void cut(UnitMeter& meter, const Reader& read = nullptr);
  bool is_cut() const { return storage_.defined(); }
  /// After `cut`: this rank's part becomes that of `other`, a unit of the same sizes and alignment,
  /// in this one's type.
  void copy_part(const FlatUnit& other);
  /// After `cut`. All ranks; `keep` says whether this one wants the weights.
  void gather(bool keep = true);
  /// The same in two calls, for what goes on in between. Nothing reads a weight before the second.
  /// All ranks.
  void start_gather();
  void finish_gather(bool keep = true);
  /// Not what is on its way.
  void release();
  bool gathered() const { return gathered_; }
  /// The owned weights have changed: what was made from the parameters is old.
  void bump_versions(const std::vector<bool>& which) const;

 private:
  template <typename T>
  void reduce(at::Tensor& sums);
  template <typename T>
  void reduce_over_copies();
  void allocate();
  void fill_waiting(const std::vector<at::Tensor>& before, const Reader& read);
  void mark_seen();
  /// The parameters' gradients, contiguous.
  std::vector<at::Tensor> gradients() const;
  void drop_own_gradients();
  void add(const at::Tensor& sums);
  int64_t bucket() const;  ///< elements of one rank in one exchange
  /// What passes between ranks: by which group, of what kind; the tensor itself where that is its
  /// kind, else a copy, or room for one.
  Collective& way(Collective& ranks) const;
  at::TensorOptions passing() const;
  at::Tensor to_pass(const at::Tensor& tensor) const;
  at::Tensor room_to_pass(const at::Tensor& tensor) const;

  std::vector<NamedTensor> parameters_;
  Collective& shards_;
  Collective* copies_;  ///< null: there is one
  int64_t bucket_bytes_;
  FlatLayout layout_;
  std::vector<FlatPiece> pieces_;
  std::vector<NamedTensor> owned_;
  bool direct_;             ///< exchanges are between devices
  at::Tensor gradient_;     ///< [part], sums so far; undefined before the first
  std::vector<bool> seen_;  ///< of each parameter
  at::Tensor part_;         ///< [part] weights of this rank, once cut
  at::Tensor storage_;      ///< [world * part], what the parameters are views of, once cut
  bool gathered_ = false;
  UnitMeter* meter_ = nullptr;
  /// While they pass between ranks: gradients, [world * part] and [part], and weights, [part] and
  /// [world * part].
  at::Tensor whole_gradient_, sums_, passing_part_, passing_storage_;
  /// Behind what they write to, as they wait when they end.
  std::unique_ptr<PendingCollective> weights_come_, sums_come_;
};

}  // namespace praetor
