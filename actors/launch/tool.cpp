#include "actors/launch/tool.h"

#include <poll.h>
#include <sys/wait.h>

#include <algorithm>
#include <memory>

#include "core/base/error.h"
#include "core/base/piped_child.h"
#include "core/base/text.h"

namespace praetor {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

std::unique_ptr<PipedChild> start(const std::vector<std::string>& argv) {
  try {
    return std::make_unique<PipedChild>(argv);
  } catch (const MissingInput&) {
    throw MissingInput(argv[0], ": no such program in PATH");
  }
}

void trim_end(std::string& text) {
  text.erase(text.find_last_not_of(" \t\r\n") + 1);
}

}  // namespace

ToolResult run_tool(const std::vector<std::string>& argv, milliseconds timeout) {
  const auto end = steady_clock::now() + timeout;
  const auto left = [&] {
    return std::max(milliseconds(0), std::chrono::ceil<milliseconds>(end - steady_clock::now()));
  };
  const auto child = start(argv);
  child->close_input();
  ToolResult result;
  for (bool out = true, err = true; out || err;) {
    if (left().count() == 0)
      throw TemporaryError(join(argv, " "), ": no end after ", timeout.count() / 1000, " s");
    pollfd wanted[] = {{out ? child->output() : -1, POLLIN, 0},
                       {err ? child->errors() : -1, POLLIN, 0}};
    ::poll(wanted, 2, static_cast<int>(left().count()));
    if (wanted[0].revents != 0) out = read_some(child->output(), result.out);
    if (wanted[1].revents != 0) err = read_some(child->errors(), result.err);
  }
  const int status = child->collect(left());
  result.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  trim_end(result.out);
  trim_end(result.err);
  return result;
}

}  // namespace praetor
