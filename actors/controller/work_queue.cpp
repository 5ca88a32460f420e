#include "actors/controller/work_queue.h"

#include <algorithm>
#include <set>
#include <utility>

namespace praetor {

void WorkQueue::clear() {
  *this = {};
}

void WorkQueue::want(LeaseKind kind, SampleId id) {
  auto& waiting = queue(kind);
  // Nearly always the newest, at the end.
  const auto place = std::upper_bound(waiting.begin(), waiting.end(), id);
  if (place != waiting.begin() && *std::prev(place) == id) return;
  waiting.insert(place, id);
}

void WorkQueue::forget(LeaseKind kind, SampleId id) {
  auto& waiting = queue(kind);
  const auto place = std::lower_bound(waiting.begin(), waiting.end(), id);
  if (place != waiting.end() && *place == id) waiting.erase(place);
}

void WorkQueue::forget_prompt(int64_t ordinal) {
  const auto of_prompt = [ordinal](const SampleId& id) { return id.ordinal == ordinal; };
  std::erase_if(to_generate_, of_prompt);
  std::erase_if(to_score_, of_prompt);
}

std::vector<SampleId> WorkQueue::take(LeaseKind kind, int64_t most) {
  auto& waiting = queue(kind);
  std::vector<SampleId> items;
  while (!waiting.empty() && static_cast<int64_t>(items.size()) < most) {
    const SampleId next = waiting.front();
    const bool another = !items.empty() && items.front().ordinal != next.ordinal;
    if (another && (deaths_.contains(next.ordinal) || deaths_.contains(items.front().ordinal)))
      break;
    items.push_back(next);
    waiting.pop_front();
  }
  return items;
}

void WorkQueue::hold(int64_t lease, Held held) {
  held.alone = std::ranges::all_of(
      held.items, [&](const SampleId& id) { return id.ordinal == held.items.front().ordinal; });
  held_.emplace(lease, std::move(held));
}

const WorkQueue::Held* WorkQueue::find(int64_t lease) const {
  const auto found = held_.find(lease);
  return found == held_.end() ? nullptr : &found->second;
}

bool WorkQueue::finish(int64_t lease, const std::vector<SampleId>& done) {
  const auto found = held_.find(lease);
  if (found == held_.end()) return false;
  const std::set<SampleId> gone(done.begin(), done.end());
  auto& items = found->second.items;
  std::erase_if(items, [&](const SampleId& id) { return gone.contains(id); });
  if (!items.empty()) return false;
  held_.erase(found);
  return true;
}

void WorkQueue::give_back(int64_t lease, bool died) {
  const auto found = held_.find(lease);
  if (found == held_.end()) return;
  const Held held = std::move(found->second);
  held_.erase(found);
  if (died) {
    std::set<int64_t> ordinals;
    for (const SampleId& id : held.items) ordinals.insert(id.ordinal);
    for (const int64_t ordinal : ordinals) {
      // Among neighbours it may be innocent: that counts once, however often.
      int& deaths = deaths_[ordinal];
      deaths = held.alone ? deaths + 1 : std::max(deaths, 1);
      if (deaths >= kMostDeaths) condemned_.push_back(ordinal);
    }
  }
  for (const SampleId& id : held.items) want(held.kind, id);
}

std::vector<int64_t> WorkQueue::late(Clock::time_point now) const {
  std::vector<int64_t> out;
  for (const auto& [id, held] : held_) {
    if (held.deadline < now) out.push_back(id);
  }
  return out;
}

std::vector<int64_t> WorkQueue::of_worker(const std::string& worker) const {
  std::vector<int64_t> out;
  for (const auto& [id, held] : held_) {
    if (held.worker == worker) out.push_back(id);
  }
  return out;
}

std::vector<int64_t> WorkQueue::take_condemned() {
  for (const int64_t ordinal : condemned_) forget_prompt(ordinal);
  return std::exchange(condemned_, {});
}

int64_t WorkQueue::held(LeaseKind kind) const {
  int64_t count = 0;
  for (const auto& [id, held] : held_) {
    if (held.kind == kind) count += static_cast<int64_t>(held.items.size());
  }
  return count;
}

}  // namespace praetor
