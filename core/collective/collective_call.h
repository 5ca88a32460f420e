#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/collective/collective.h"
#include "core/collective/membership.h"

namespace praetor {

/// What a rank calls: where a backend can, sent ahead of the elements, so that ranks which call
/// different things, or have left, are told apart from late ones.
struct CollectiveCall {
  enum class Operation : int32_t {
    kReduceScatter,
    kAllGather,
    kAllReduce,
    kAllGatherBytes,
    kBroadcast,
    kBarrier,
    kAllToAll,
    kTransfer,  ///< send, and receive on the other side
    kSplit,
    kJoin,  ///< coming together, where a backend has that
    kClose  ///< the barrier before a group ends
  };
  Operation operation = Operation::kBarrier;
  ElementType type = ElementType::kByte;
  int32_t root = 0;      ///< of broadcast and transfer: from whom, a rank of the whole
  int32_t to = 0;        ///< of transfer
  int32_t stage = 0;     ///< an operation may exchange more than once
  int64_t sequence = 0;  ///< of the operation, from 0; of transfers by sender and receiver
  int64_t count = 0;     ///< elements of the operation; 0 where ranks may differ
  int64_t step = -1;     ///< of the job, for messages

  /// The same call, whatever step it is thought to be in.
  bool operator==(const CollectiveCall& other) const;
  /// "all_gather #12 of 3 float64 in step 7"
  std::string text() const;
  /// "all_gather #12 of 3 float64 over mpi in group shards of ranks 2, 3": alike on all ranks that
  /// make the call, in whatever step.
  std::string name_in(const Membership& group, const std::string& backend) const;
};

/// The calls that a rank has made of a group.
class CallNumbers {
 public:
  explicit CallNumbers(const Membership& group);
  /// The group's next call, or the next transfer between two.
  /// @param root, to  ranks of the group
  CollectiveCall next(const Membership& group,
                      CollectiveCall::Operation operation,
                      ElementType type,
                      int64_t count,
                      int32_t root,
                      int32_t to);

 private:
  int64_t sequence_ = 0;
  std::vector<int64_t> transfers_to_, transfers_from_;  ///< by rank, so far
};

}  // namespace praetor
