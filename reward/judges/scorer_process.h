#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "core/base/deadline.h"
#include "core/base/piped_child.h"

namespace praetor {

/// A program of the user's that answers a line for each line it is sent. Started by the first
/// question and kept; started anew when it has ended. It leads a process group of its own, of which
/// nothing is left when the program ends, when it is stopped, or when this object goes; when we are
/// killed the kernel sends the program SIGKILL. Not synchronised: one thread at a time.
class ScorerProcess {
 public:
  /// @param command        the program, looked up in PATH, and its arguments
  /// @param start_timeout  how long a fresh program may take for its first answer before it is
  ///                       given up; it is kept when a deadline passes earlier
  ScorerProcess(std::vector<std::string> command, std::chrono::milliseconds start_timeout);
  ~ScorerProcess();  ///< closes its stdin, waits a second, then SIGKILL
  ScorerProcess(const ScorerProcess&) = delete;
  ScorerProcess& operator=(const ScorerProcess&) = delete;

  /// The line with which the program answers `line`; both without their "\n". A program that has
  /// answered before and ends now is started anew and asked once more.
  /// @throws TimeoutError; MissingInput and TemporaryError for a program that cannot be started;
  /// DataError for one that ends, with the last line of its stderr, or that answers with more than
  /// 1 MiB
  std::string ask(const std::string& line, const Deadline& deadline);
  /// SIGKILL to the group; the next question starts the program anew.
  void stop();

 private:
  /// How an exchange of bytes went.
  enum class Outcome { kDone, kTimeout, kEnded };

  void start();
  Outcome flush_and_read(std::string& answer, const Deadline& deadline);
  Outcome read_line(std::string& answer);
  Outcome settle_debt(const Deadline& deadline);
  bool write_some();
  void read_stderr();
  [[noreturn]] void give_up(const Deadline& deadline);
  std::string end_report();
  std::string shown() const;

  std::vector<std::string> command_;
  std::chrono::milliseconds start_timeout_;
  std::unique_ptr<PipedChild> child_;  ///< empty: it is started by the next question
  std::chrono::steady_clock::time_point started_;
  bool answered_ = false;  ///< since it was started
  bool owes_ = false;      ///< an answer that nobody waits for any more
  std::string to_send_;
  std::string received_;  ///< behind the last answer
  std::string errors_;    ///< end of its stderr
};

}  // namespace praetor
