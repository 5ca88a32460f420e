#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/collective/side_channel.h"

namespace praetor {

/// Which ranks wait in which call, for exchanges that do not see it themselves: those over NCCL,
/// and those of a group, whose missing rank may wait in another. A rank that waits, in whatever
/// group and over whatever backend, answers who asks; one that is stopped, computes or has ended
/// does not. One for each rank, for all its groups, which ask together. Calls from any thread.
class RollCall {
 public:
  /// A wait of this rank. Others hear of it when it lasts and they ask.
  class Wait {
   public:
    /// @param what  names the call, alike on all ranks that make it; asked for when the wait lasts
    /// @param step  of the job, below 0: none
    Wait(RollCall& roll, std::function<std::string()> what, int64_t step);
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;
    ~Wait();
    /// Answers who has asked and takes what has come, once the wait lasts; to be called again and
    /// again. @return whether it did
    bool attend();

   private:
    RollCall& roll_;
    std::function<std::string()> what_;
    int64_t step_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
    std::optional<std::list<std::string>::iterator> place_;
  };

  /// @param rank, world_size  of the whole
  /// @param channel           null: nobody is asked and nobody answers
  RollCall(int32_t rank, int32_t world_size, std::shared_ptr<SideChannel> channel);

  /// Asks all ranks of the whole what they wait in, and to be told of changes for a while, unless
  /// that was done a moment ago. To be called until the wait ends.
  /// @param deadline  of the wait
  /// @return whether there was time to answer since: 0.1 s, or a quarter of a short deadline. A
  /// rank that was stopped itself asks first and concludes later
  bool ask(std::chrono::milliseconds deadline);
  /// Asks in any case; earlier answers no longer count.
  void ask_anew();
  bool all_answered(const std::vector<int32_t>& ranks) const;
  /// Those of `ranks` that have not said, since they were asked, that they wait in any call.
  std::vector<int32_t> not_waiting(const std::vector<int32_t>& ranks) const;
  /// "rank 1 waits in barrier #3 over mpi; rank 2 waits in ...": those of `ranks` that do.
  std::string waits_of(const std::vector<int32_t>& ranks) const;
  /// "rank 2 does not answer; rank 1 waits in barrier #3 over mpi": those of `ranks` that have not
  /// said, since they were asked, that they wait in the call of that name. Empty: all have.
  std::string missing(const std::string& what, const std::vector<int32_t>& ranks) const;

  /// Tells all others that this rank ends its groups of a backend that cannot tell it.
  void give_up(const std::string& reason);
  /// The first other rank that said so.
  std::optional<SideChannel::Word> given_up() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Question {
    int64_t round;
    Clock::time_point heard;
  };

  std::list<std::string>::iterator enter(const std::string& line);
  void leave(std::list<std::string>::iterator place);
  void hear();
  void ask_all();
  bool waits(int32_t rank) const;
  /// Tells who has asked lately what this rank waits in now.
  void answer();
  void answer(int32_t rank, int64_t round);

  const int32_t rank_, world_size_;
  const std::shared_ptr<SideChannel> channel_;
  mutable std::mutex mutex_;
  std::list<std::string> waits_;           ///< of this rank, that last: "NAME\tSTEP"
  std::map<int32_t, Question> questions_;  ///< the last of each other rank
  int64_t round_ = 0;
  std::optional<Clock::time_point> asked_;               ///< in this round
  std::map<int32_t, std::vector<std::string>> answers_;  ///< to the last round, by rank
  std::optional<SideChannel::Word> given_up_;
};

}  // namespace praetor
