#pragma once

#include <sys/types.h>

#include <chrono>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace praetor {

/// A program whose stdin, stdout and stderr are pipes to us, without blocking. It leads a process
/// group of its own and gets SIGKILL when our process dies. Not synchronised: one thread at a time.
class PipedChild {
 public:
  /// @param command    the program, looked up in PATH, and its arguments
  /// @param handed_on  files that the program gets under the same numbers, above 2
  /// @throws MissingInput, TemporaryError when it cannot be started, with what the system says
  explicit PipedChild(std::vector<std::string> command, std::span<const int> handed_on = {});
  ~PipedChild();  ///< what is left of the group is killed
  PipedChild(const PipedChild&) = delete;
  PipedChild& operator=(const PipedChild&) = delete;

  pid_t pid() const { return pid_; }
  /// -1 once closed.
  int input() const { return input_; }
  int output() const { return output_; }
  int errors() const { return errors_; }
  void close_input();
  void close_errors();

  /// Waits for the program's end, kills its group when it is late or leaves something behind, and
  /// collects it. @return its wait status; again after the first time
  int collect(std::chrono::milliseconds patience);

 private:
  std::string shown_;
  pid_t pid_ = -1;
  int status_ = 0;
  int input_ = -1, output_ = -1, errors_ = -1;
};

/// write(2) without SIGPIPE, which would end our whole process when the reader is gone.
ssize_t write_quietly(int fd, std::string_view bytes);

/// Appends what can be read now. @return false at the end of the stream
bool read_some(int fd, std::string& out);

}  // namespace praetor
