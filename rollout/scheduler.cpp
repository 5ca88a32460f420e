#include "rollout/scheduler.h"

#include <algorithm>
#include <span>
#include <utility>

#include "core/base/error.h"

namespace praetor {
namespace {

std::span<const int64_t> tokens_of_block(const Sequence& s, int64_t block, int64_t block_size) {
  return {s.tokens.data() + block * block_size, static_cast<size_t>(block_size)};
}

}  // namespace

Scheduler::Scheduler(Limits limits, Source source)
    : limits_(limits), source_(std::move(source)), blocks_(limits.blocks), tree_(blocks_) {
  PRAETOR_CHECK(limits.max_sequences >= 1 && limits.max_step_tokens >= limits.max_sequences,
                "each running sequence needs a row of the step");
  running_.reserve(static_cast<size_t>(limits.max_sequences));
  step_.slices.reserve(static_cast<size_t>(limits.max_sequences));
}

bool Scheduler::writes_shared_block(const Sequence& s) const {
  const auto block = static_cast<size_t>(s.computed / limits_.block_size);
  return block < s.table.size() && blocks_.users(s.table[block]) > 1;
}

int64_t Scheduler::missing_blocks(const Sequence& s) const {
  return blocks_for(s.length(), limits_.block_size) - static_cast<int64_t>(s.table.size()) +
         (writes_shared_block(s) ? 1 : 0);
}

// Gives `s` blocks of its own for all its tokens; false, and nothing changed, when too few are
// free.
bool Scheduler::acquire(Sequence& s) {
  if (missing_blocks(s) > blocks_.free()) return false;
  if (writes_shared_block(s)) {
    int32_t& block = s.table[static_cast<size_t>(s.computed / limits_.block_size)];
    const int32_t own = *blocks_.allocate();
    step_.copies.push_back({block, own, s.computed % limits_.block_size});
    blocks_.release(block);
    block = own;
  }
  while (missing_blocks(s) > 0) s.table.push_back(*blocks_.allocate());
  return true;
}

// Last block first: of blocks that nobody uses the longest idle one goes first, and one without its
// parent could not be found.
void Scheduler::release_blocks(Sequence& s) {
  for (auto block = s.table.rbegin(); block != s.table.rend(); ++block) blocks_.release(*block);
  s.table.clear();
  s.draft.clear();
  s.computed = 0;
  s.nodes = 0;
}

// Takes over blocks that hold what `s` is about to compute. Its last token it computes by itself:
// the logits behind it are wanted.
void Scheduler::adopt(Sequence& s) {
  const int64_t size = limits_.block_size;
  if (s.nodes == 0) s.node = s.root;
  while (s.nodes * size == s.computed && s.computed + size < s.length()) {
    const auto found = tree_.find(s.node, tokens_of_block(s, s.nodes, size), s.models);
    if (!found) return;
    blocks_.share(found->block);
    const auto index = static_cast<size_t>(s.nodes);
    if (index < s.table.size()) {
      blocks_.release(std::exchange(s.table[index], found->block));
    } else {
      s.table.push_back(found->block);
    }
    s.node = found->node;
    ++s.nodes;
    s.computed += size;
  }
}

// Lets others find the full blocks among the first `computed` tokens.
void Scheduler::record(Sequence& s, int64_t computed) {
  const int64_t size = limits_.block_size;
  if (s.nodes == 0) s.node = s.root;
  for (const int64_t end = std::min(computed, s.keep); (s.nodes + 1) * size <= end; ++s.nodes) {
    s.node = tree_.insert(
        s.node, tokens_of_block(s, s.nodes, size), s.table[static_cast<size_t>(s.nodes)], s.models);
  }
}

// The youngest waiting sequence that holds blocks gives them up. False when none does.
bool Scheduler::reclaim_one() {
  for (auto it = waiting_.rbegin(); it != waiting_.rend(); ++it) {
    if (it->second->table.empty()) continue;
    release_blocks(*it->second);
    return true;
  }
  return false;
}

// The forks of the youngest request whose prompt no running sequence shares give up its blocks, so
// that blocks do come free. False when there are no such forks.
bool Scheduler::reclaim_group() {
  for (auto it = waiting_.rbegin(); it != waiting_.rend(); ++it) {
    if (it->second->table.empty()) continue;
    const int32_t block = it->second->table.front();
    std::vector<Sequence*> holders;
    for (const auto& [order, s] : waiting_) {
      if (!s->table.empty() && s->table.front() == block) holders.push_back(s.get());
    }
    if (blocks_.users(block) != static_cast<int32_t>(holders.size())) continue;
    for (Sequence* s : holders) release_blocks(*s);
    return true;
  }
  return false;
}

void Scheduler::preempt_youngest() {
  std::unique_ptr<Sequence> s = std::move(running_.back());
  running_.pop_back();
  release_blocks(*s);
  ++preemptions_;
  const Order order = order_of(*s);
  waiting_.emplace(order, std::move(s));
}

// Cuts the draft of a sequence that has room for its next token to what can be spared: rows that no
// sequence needs, blocks beyond one for each running sequence. Returns its length.
int64_t Scheduler::fit_draft(Sequence& s, int64_t spare_rows) {
  const auto room_of = [&](int64_t blocks) { return blocks * limits_.block_size - s.length(); };
  const auto table = static_cast<int64_t>(s.table.size());
  const int64_t spare_blocks = std::max<int64_t>(0, blocks_.free() - running());
  const int64_t most = std::min(spare_rows, room_of(table + spare_blocks));
  const auto fits = std::min(static_cast<int64_t>(s.draft.size()), std::max<int64_t>(0, most));
  s.draft.resize(static_cast<size_t>(fits));
  while (room_of(static_cast<int64_t>(s.table.size())) < fits) {
    s.table.push_back(*blocks_.allocate());
  }
  return fits;
}

void Scheduler::plan_decode(int64_t& budget) {
  int64_t spare_rows = budget - running();
  // Victims are younger than the sequence they make room for, so they have no slice yet.
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence* s = running_[i].get();
    if (s->pending() != 1) continue;
    while (!acquire(*s)) {
      if (reclaim_group()) continue;
      const bool youngest = running_.back().get() == s;
      if (youngest && reclaim_one()) continue;
      preempt_youngest();
      if (youngest) return;
    }
    record(*s, s->computed);
    const int64_t drafted = s->draft.empty() ? 0 : fit_draft(*s, spare_rows);
    step_.slices.push_back({s, 1 + drafted});
    spare_rows -= drafted;
    budget -= 1 + drafted;
  }
}

Sequence* Scheduler::next_waiting() {
  if (waiting_.empty()) {
    if (std::unique_ptr<Sequence> fresh = source_()) {
      const Order order = order_of(*fresh);
      waiting_.emplace(order, std::move(fresh));
    }
  }
  return waiting_.empty() ? nullptr : waiting_.begin()->second.get();
}

// Starts the oldest waiting sequence; null when there is none or no room for it.
Sequence* Scheduler::admit() {
  if (running() >= limits_.max_sequences) return nullptr;
  Sequence* s = next_waiting();
  if (!s) return nullptr;
  const bool fresh = s->table.empty();
  if (fresh) adopt(*s);
  if (missing_blocks(*s) + running() > blocks_.free()) {
    if (!running_.empty()) {
      if (fresh) release_blocks(*s);
      return nullptr;
    }
    // Nothing runs, so only waiting forks hold blocks: they give up theirs, the youngest first.
    while (missing_blocks(*s) > blocks_.free()) {
      PRAETOR_CHECK(reclaim_one(),
                    "a sequence of ",
                    s->length(),
                    " tokens does not fit into ",
                    blocks_.total(),
                    " blocks of ",
                    limits_.block_size);
    }
  }
  if (fresh) adopted_rows_ += s->computed;
  start(s);
  return s;
}

void Scheduler::start(Sequence* s) {
  PRAETOR_CHECK(acquire(*s), "room for a sequence was counted wrongly");
  auto node = waiting_.extract(order_of(*s));
  const auto place = std::upper_bound(
      running_.begin(), running_.end(), order_of(*s), [](const Order& order, const auto& other) {
        return order < order_of(*other);
      });
  running_.insert(place, std::move(node.mapped()));
}

void Scheduler::plan_prefill(int64_t& budget) {
  const size_t decoding = step_.slices.size();
  size_t planned = 0;
  for (const auto& s : running_) {
    // Slices of plan_decode are in the order of running_.
    if (planned < decoding && step_.slices[planned].sequence == s.get()) {
      ++planned;
      continue;
    }
    if (budget == 0) return;
    const int64_t before = s->computed;
    adopt(*s);
    adopted_rows_ += s->computed - before;
    const int64_t count = std::min(s->pending(), budget);
    step_.slices.push_back({s.get(), count});
    record(*s, s->computed + count);
    budget -= count;
  }
}

const Scheduler::Step& Scheduler::plan() {
  step_.slices.clear();
  step_.copies.clear();
  int64_t budget = limits_.max_step_tokens;
  plan_decode(budget);
  int64_t unplanned = budget;
  for (const auto& s : running_) unplanned -= s->pending() > 1 ? s->pending() : 0;
  while (unplanned > 0) {
    const Sequence* s = admit();
    if (!s) break;
    unplanned -= s->pending();
  }
  plan_prefill(budget);
  return step_;
}

void Scheduler::fork(const Sequence& parent, std::unique_ptr<Sequence> child) {
  PRAETOR_CHECK(child->table.empty() && child->computed == parent.computed && child->pending() >= 1,
                "a fork starts where its parent stands");
  child->table = parent.table;
  child->node = parent.node;
  child->nodes = parent.nodes;
  for (const int32_t block : child->table) blocks_.share(block);
  const Order order = order_of(*child);
  waiting_.emplace(order, std::move(child));
}

void Scheduler::add(std::unique_ptr<Sequence> sequence) {
  PRAETOR_CHECK(sequence->table.empty() && sequence->computed == 0 && sequence->pending() >= 1,
                "a sequence that is added holds nothing yet");
  const Order order = order_of(*sequence);
  waiting_.emplace(order, std::move(sequence));
}

std::unique_ptr<Sequence> Scheduler::finish(Sequence* sequence) {
  const auto place = std::find_if(
      running_.begin(), running_.end(), [&](const auto& s) { return s.get() == sequence; });
  PRAETOR_CHECK(place != running_.end(), "only a running sequence can finish");
  std::unique_ptr<Sequence> taken = std::move(*place);
  running_.erase(place);
  record(*taken, taken->computed);
  release_blocks(*taken);
  return taken;
}

std::vector<std::unique_ptr<Sequence>> Scheduler::remove(int64_t request) {
  std::vector<std::unique_ptr<Sequence>> taken;
  for (auto& s : running_) {
    if (s->request == request) taken.push_back(std::move(s));
  }
  std::erase(running_, nullptr);
  const auto first = waiting_.lower_bound({request, 0});
  auto last = first;
  for (; last != waiting_.end() && last->first.first == request; ++last) {
    taken.push_back(std::move(last->second));
  }
  waiting_.erase(first, last);
  for (const auto& s : taken) release_blocks(*s);
  std::sort(taken.begin(), taken.end(), [](const auto& a, const auto& b) {
    return a->sample < b->sample;
  });
  return taken;
}

void Scheduler::forget_prefixes(bool recompute) {
  tree_.clear();
  for (auto& s : running_) s->keep = 0;
  for (auto& [order, s] : waiting_) s->keep = 0;
  if (!recompute) return;
  while (!running_.empty()) preempt_youngest();
  for (auto& [order, s] : waiting_) release_blocks(*s);
}

}  // namespace praetor
