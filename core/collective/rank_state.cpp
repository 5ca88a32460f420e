#include "core/collective/rank_state.h"

#include <utility>

namespace praetor {
namespace {

constexpr size_t kHistory = 8;

}  // namespace

void RankState::give_up(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (gives_up_) return;
  reason_ = reason;
  gives_up_ = true;
}

std::string RankState::reason() const {
  const std::lock_guard lock(mutex_);
  return reason_;
}

void RankState::fail(const std::string& why) {
  const std::lock_guard lock(mutex_);
  if (failed_) return;
  failure_ = why;
  failed_ = true;
}

std::string RankState::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void RankState::record(std::string call) {
  const std::lock_guard lock(mutex_);
  calls_.push_back(std::move(call));
  if (calls_.size() > kHistory) calls_.pop_front();
}

std::string RankState::last_calls() const {
  const std::lock_guard lock(mutex_);
  std::string out;
  for (const std::string& call : calls_) out += (out.empty() ? "" : ", ") + call;
  return out;
}

}  // namespace praetor
