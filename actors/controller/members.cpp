#include "actors/controller/members.h"

#include <algorithm>

#include "core/base/log.h"
#include "core/base/str.h"

namespace praetor {

const char* to_string(Role role) {
  switch (role) {
    case Role::kRollout:
      return "rollout";
    case Role::kReward:
      return "reward";
    case Role::kLearner:
      return "learner";
    case Role::kRelay:
      return "relay";
  }
  return "unknown";
}

bool Members::join(const MemberInfo& info, Clock::time_point now) {
  const auto found = members_.find(info.name);
  const bool again = found != members_.end() && found->second.info.incarnation == info.incarnation;
  const bool replaces = found != members_.end() && !again && !found->second.lost;
  if (!again) {
    log::info(str(info.name, " joined (", info.host, ", process ", info.pid, ")"));
    members_[info.name] = {.info = info};
  }
  Member& member = members_[info.name];
  serving_ = {};
  member.lost = false;
  member.why.clear();
  member.last_heartbeat = member.last_progress = now;
  return replaces;
}

Orders Members::heartbeat(const Heartbeat& beat, Clock::time_point now) {
  const auto found = members_.find(beat.name);
  if (found == members_.end()) return Orders::kRegister;
  Member& member = found->second;
  if (member.info.incarnation != beat.incarnation) return Orders::kLeave;
  if (member.lost) {
    log::warn(str(beat.name, " is back (it was lost: ", member.why, ")"));
    serving_ = {};
    member.lost = false;
    member.why.clear();
  }
  member.last_heartbeat = now;
  if (!beat.busy || !member.beat.busy || beat.progress != member.beat.progress)
    member.last_progress = now;
  member.beat = beat;
  return Orders::kGoOn;
}

void Members::leave(const std::string& name) {
  serving_ = {};
  if (members_.erase(name) > 0) log::info(str(name, " left"));
}

bool Members::lose(const std::string& name, int64_t incarnation, const std::string& why) {
  const auto found = members_.find(name);
  if (found == members_.end() || found->second.lost) return false;
  Member& member = found->second;
  if (incarnation != 0 && member.info.incarnation != incarnation) return false;
  serving_ = {};
  member.lost = true;
  member.why = why;
  log::warn(str("lost ", name, " on ", member.info.host, ": ", why));
  return true;
}

std::vector<std::string> Members::lose_silent(Clock::time_point now) {
  const auto seconds = [](Clock::duration span) {
    return std::chrono::duration_cast<std::chrono::seconds>(span).count();
  };
  std::vector<std::string> out;
  for (const auto& [name, member] : members_) {
    if (member.lost) continue;
    std::string why;
    if (now - member.last_heartbeat > patience_.lost_after) {
      why = str("no sign of life for ", seconds(now - member.last_heartbeat), " s");
    } else if (member.info.role != Role::kLearner && member.beat.busy &&
               now - member.last_progress > patience_.hung_after) {
      why = str("at work without progress for ", seconds(now - member.last_progress), " s");
    }
    if (!why.empty() && lose(name, 0, why)) out.push_back(name);
  }
  return out;
}

void Members::count_samples(const std::string& name, int64_t samples) {
  const auto found = members_.find(name);
  if (found != members_.end()) found->second.samples += samples;
}

int64_t Members::incarnation(const std::string& name) const {
  const auto found = members_.find(name);
  if (found == members_.end()) return 0;
  return found->second.lost ? -1 : found->second.info.incarnation;
}

int64_t Members::serving(LeaseKind kind) const {
  auto& count = serving_[kind == LeaseKind::kGenerate ? 0 : 1];
  if (!count) {
    count = std::ranges::count_if(members_, [&](const auto& one) {
      const auto& serves = one.second.info.serves;
      return !one.second.lost && std::ranges::find(serves, kind) != serves.end();
    });
  }
  return *count;
}

}  // namespace praetor
