#include "actors/controller/work_queue.h"

#include <algorithm>
#include <set>
#include <utility>

namespace praetor {

void WorkQueue::clear() {
  *this = {};
}

void WorkQueue::want(LeaseKind kind, SampleId id) {
  queue(kind).insert(id);
}

void WorkQueue::forget(LeaseKind kind, SampleId id) {
  queue(kind).erase(id);
}

void WorkQueue::forget_prompt(int64_t ordinal) {
  const auto of_prompt = [ordinal](const SampleId& id) { return id.ordinal == ordinal; };
  std::erase_if(to_generate_, of_prompt);
  std::erase_if(to_score_, of_prompt);
}

std::vector<int64_t> WorkQueue::forget_before(int64_t ordinal) {
  const auto is_over = [ordinal](const SampleId& id) { return id.ordinal < ordinal; };
  std::erase_if(to_generate_, is_over);
  std::erase_if(to_score_, is_over);
  std::erase_if(deaths_, [ordinal](const auto& one) { return one.first < ordinal; });
  std::vector<int64_t> ended;
  for (auto at = held_.begin(); at != held_.end();) {
    const auto lease = at++;
    std::erase_if(lease->second.items, is_over);
    if (!lease->second.items.empty()) continue;
    ended.push_back(lease->first);
    release(lease);
  }
  return ended;
}

std::vector<SampleId> WorkQueue::take(LeaseKind kind, int64_t most) {
  auto& waiting = queue(kind);
  std::vector<SampleId> items;
  while (!waiting.empty() && static_cast<int64_t>(items.size()) < most) {
    const SampleId next = *waiting.begin();
    const bool another = !items.empty() && items.front().ordinal != next.ordinal;
    if (another && (deaths_.contains(next.ordinal) || deaths_.contains(items.front().ordinal)))
      break;
    items.push_back(next);
    waiting.erase(waiting.begin());
  }
  return items;
}

void WorkQueue::hold(int64_t lease, Held held) {
  held.alone = std::ranges::all_of(
      held.items, [&](const SampleId& id) { return id.ordinal == held.items.front().ordinal; });
  none_late_before_ = std::min(none_late_before_, held.deadline);
  holders_of(held.kind)[held.worker].insert(lease);
  held_.emplace(lease, std::move(held));
}

void WorkQueue::release(std::map<int64_t, Held>::iterator lease) {
  Holders& holders = holders_of(lease->second.kind);
  const auto found = holders.find(lease->second.worker);
  found->second.erase(lease->first);
  if (found->second.empty()) holders.erase(found);
  held_.erase(lease);
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
  release(found);
  return true;
}

void WorkQueue::give_back(int64_t lease, bool died) {
  const auto found = held_.find(lease);
  if (found == held_.end()) return;
  const Held held = found->second;
  release(found);
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
  if (now <= none_late_before_) return out;
  none_late_before_ = Clock::time_point::max();
  for (const auto& [id, held] : held_) {
    if (held.deadline < now) out.push_back(id);
    none_late_before_ = std::min(none_late_before_, held.deadline);
  }
  return out;
}

std::vector<int64_t> WorkQueue::of_worker(const std::string& worker, LeaseKind kind) const {
  const auto found = holders_of(kind).find(worker);
  if (found == holders_of(kind).end()) return {};
  return {found->second.begin(), found->second.end()};
}

std::vector<int64_t> WorkQueue::of_worker(const std::string& worker) const {
  auto out = of_worker(worker, LeaseKind::kGenerate);
  const auto scoring = of_worker(worker, LeaseKind::kScore);
  out.insert(out.end(), scoring.begin(), scoring.end());
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
