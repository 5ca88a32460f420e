#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "rollout/kv_blocks.h"
#include "rollout/prefix_tree.h"
#include "rollout/response.h"

namespace praetor {

/// One sequence in the engine: its tokens and which of them the cache holds.
struct Sequence {
  int64_t request = 0;
  int32_t sample = 0;
  int32_t forks = 0;              ///< samples still to be split off once the prompt is computed
  std::vector<int64_t> tokens;    ///< prompt and response so far
  std::vector<int64_t> draft;     ///< guesses of what follows, computed where there is room
  int64_t draft_limit = 0;        ///< longest draft that seems worth its rows; 0: not known yet
  int64_t computed = 0;           ///< leading tokens whose keys and values are in the cache
  std::vector<int32_t> table;     ///< blocks, in order
  PrefixTree::Models models = 1;  ///< that compute its tokens
  PrefixTree::Node root = PrefixTree::root(0);  ///< where its search for blocks starts
  PrefixTree::Node node = 0;                    ///< of its last block that has one
  int64_t nodes = 0;                            ///< leading blocks that have a node
  int64_t keep = 0;                    ///< leading tokens whose full blocks others may find
  std::unique_ptr<Response> response;  ///< the scheduler does not look at it

  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  int64_t pending() const { return length() - computed; }
};

/// Decides which rows the next step computes and where their keys and values lie. Older sequences
/// (by request, then sample) go first everywhere, so that some sequence always comes to its end:
///
///   1. Each running sequence with one token to compute gets its row, and rows for its draft where
///      rows and blocks are to spare. When it needs a block and
///      none is free, the youngest running sequence is preempted: it loses its blocks and waits to
///      be computed again from its tokens. (Waiting forks that hold a prompt's blocks lose theirs
///      before.)
///   2. Waiting sequences start while there are slots, rows and blocks for all their tokens, with
///      one spare block for each running one.
///   3. What is left of the row budget goes to prompts, in chunks.
///
/// A sequence that begins like another one takes over the full blocks of what they have in common
/// (PrefixTree), also those that the other one computes in the same step: in each layer all keys
/// and values of a step are written before the first is read.
///
/// Does no tensor work. One thread.
class Scheduler {
 public:
  struct Limits {
    int64_t max_sequences = 1;
    int64_t max_step_tokens = 1;  ///< >= max_sequences
    int64_t block_size = 16;
    int64_t blocks = 1;  ///< enough for the longest sequence, or plan throws
  };
  /// Next sequence of the work list, or null when there is none now. Called only when it can start
  /// soon, so that sequences live no longer than they must.
  using Source = std::function<std::unique_ptr<Sequence>()>;

  /// Rows computed .. computed + count of one sequence; what goes beyond its tokens is its draft.
  struct Slice {
    Sequence* sequence;
    int64_t count;
  };
  /// The first `rows` tokens of block `from` are copied to `to`, in the order given, before the
  /// step writes anything.
  struct Copy {
    int32_t from;
    int32_t to;
    int64_t rows;
  };
  struct Step {
    std::vector<Slice> slices;
    std::vector<Copy> copies;
  };

  Scheduler(Limits limits, Source source);

  /// Rows of the next step; empty slices: all work is done. Valid until the next call.
  /// @throws InternalError when a sequence can never fit
  const Step& plan();
  /// Adds a sequence that shares all of `parent`'s blocks; blocks written by one are copied first.
  /// `child` has the parent's computed tokens and at least one more.
  void fork(const Sequence& parent, std::unique_ptr<Sequence> child);
  /// Adds a sequence without blocks, to be computed from its first token on.
  void add(std::unique_ptr<Sequence> sequence);
  /// Takes a running sequence out; its blocks are free at once.
  std::unique_ptr<Sequence> finish(Sequence* sequence);
  /// Takes out all sequences of a request that it has, in order of samples.
  std::vector<std::unique_ptr<Sequence>> remove(int64_t request);
  /// The weights have changed, so what is computed is found no more. With `recompute` every
  /// sequence is computed again from its tokens; without, it goes on from the keys and values it
  /// has.
  void forget_prefixes(bool recompute);

  const KvBlocks& blocks() const { return blocks_; }
  int64_t running() const { return static_cast<int64_t>(running_.size()); }
  int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t preemptions() const { return preemptions_; }
  int64_t adopted_rows() const { return adopted_rows_; }  ///< not computed: others had done so

 private:
  using Order = std::pair<int64_t, int32_t>;
  static Order order_of(const Sequence& s) { return {s.request, s.sample}; }

  int64_t missing_blocks(const Sequence& s) const;
  int64_t fit_draft(Sequence& s, int64_t spare_rows);
  bool writes_shared_block(const Sequence& s) const;
  bool acquire(Sequence& s);
  bool reclaim_one();
  bool reclaim_group();
  void release_blocks(Sequence& s);
  void adopt(Sequence& s);
  void record(Sequence& s, int64_t computed);
  void preempt_youngest();
  Sequence* next_waiting();
  Sequence* admit();
  void start(Sequence* s);
  void plan_decode(int64_t& budget);
  void plan_prefill(int64_t& budget);

  Limits limits_;
  Source source_;
  KvBlocks blocks_;
  PrefixTree tree_;
  std::vector<std::unique_ptr<Sequence>> running_;  ///< oldest first
  std::map<Order, std::unique_ptr<Sequence>> waiting_;
  int64_t preemptions_ = 0;
  int64_t adopted_rows_ = 0;
  Step step_;
};

}  // namespace praetor
