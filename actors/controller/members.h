#pragma once

#include <array>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "actors/controller/services.h"

namespace praetor {

/// When a member counts as lost.
struct Patience {
  std::chrono::milliseconds heartbeat{2000};    ///< how often members are to give a sign of life
  std::chrono::milliseconds lost_after{15000};  ///< silence
  /// At work without progress. Not of learners, whose updates may take long and whose waits for
  /// each other have deadlines of their own.
  std::chrono::milliseconds hung_after{600000};
};

/// The processes of a run as the controller knows them. Not synchronised.
class Members {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Members(Patience patience) : patience_(patience) {}

  struct Member {
    MemberInfo info;
    Clock::time_point last_heartbeat;
    Clock::time_point last_progress;
    Heartbeat beat;
    bool lost = false;
    std::string why;
    int64_t samples = 0;
  };

  /// @return true when another process had the name until now, and was not known to be lost
  bool join(const MemberInfo& info, Clock::time_point now);
  Orders heartbeat(const Heartbeat& beat, Clock::time_point now);
  void leave(const std::string& name);
  /// @return true when the member was there, of that incarnation (0: any), and not lost yet
  bool lose(const std::string& name, int64_t incarnation, const std::string& why);
  /// Members that gave no sign of life, or that work without progress, for too long; they are lost
  /// from now on.
  std::vector<std::string> lose_silent(Clock::time_point now);
  void count_samples(const std::string& name, int64_t samples);

  /// Of the living process of that name; -1: it is lost; 0: there is none.
  int64_t incarnation(const std::string& name) const;
  /// Living members that serve `kind`.
  int64_t serving(LeaseKind kind) const;
  const std::map<std::string, Member>& all() const { return members_; }
  const Patience& patience() const { return patience_; }

 private:
  Patience patience_;
  std::map<std::string, Member> members_;
  mutable std::array<std::optional<int64_t>, 2> serving_;  ///< by kind; nothing: to be counted
};

}  // namespace praetor
