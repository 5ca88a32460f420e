#include "core/collective/rank_state.h"

#include <cstdlib>
#include <string_view>
#include <utility>

#include "core/base/str.h"

namespace praetor {
namespace {

constexpr size_t kHistory = 8;

bool debugged_by_environment() {
  const char* value = std::getenv("PRAETOR_DEBUG_COLLECTIVES");
  return value && std::string_view(value) == "1";
}

}  // namespace

RankState::RankState(int32_t rank,
                     int32_t world_size,
                     std::shared_ptr<SideChannel> channel,
                     bool debug)
    : rank_(rank),
      world_size_(world_size),
      channel_(std::move(channel)),
      debug_(debug || debugged_by_environment()),
      roll_call_(rank, world_size, channel_) {}

void RankState::give_up(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  if (gives_up_) return;
  reason_ = reason;
  gives_up_ = true;
}

std::vector<int32_t> RankState::others() const {
  std::vector<int32_t> out;
  for (int32_t rank = 0; rank < world_size_; ++rank) {
    if (rank != rank_) out.push_back(rank);
  }
  return out;
}

std::string RankState::reason() const {
  const std::lock_guard lock(mutex_);
  return reason_;
}

void RankState::fail(const std::string& why) {
  {
    const std::lock_guard lock(mutex_);
    if (failed_) return;
    failure_ = why;
    failed_ = true;
  }
  if (channel_) channel_->send_abort(why);
}

std::string RankState::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

std::string RankState::ended() const {
  if (gives_up_) return "this rank gave up: " + reason();
  return failed_ ? "another group of this rank has failed: " + failure() : "";
}

std::optional<SideChannel::Word> RankState::another_gave_up() {
  return channel_ ? channel_->aborted() : std::nullopt;
}

void RankState::record(std::string call) {
  if (!debug_) return;
  const std::lock_guard lock(mutex_);
  calls_.push_back(std::move(call));
  if (calls_.size() > kHistory) calls_.pop_front();
}

std::string RankState::last_calls() const {
  if (!debug_) return "";
  const std::lock_guard lock(mutex_);
  std::string out = str("; the last calls of rank ", rank_, ": ");
  for (size_t i = 0; i < calls_.size(); ++i) out += (i > 0 ? ", " : "") + calls_[i];
  return out;
}

}  // namespace praetor
