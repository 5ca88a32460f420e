#include "reward/sandbox/sandbox.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>
#include <utility>

#include "core/base/error.h"
#include "core/base/piped_child.h"
#include "core/base/program.h"
#include "core/base/text.h"

namespace praetor {

namespace fs = std::filesystem;

using End = SandboxResult::End;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr int kPollMs = 10;
constexpr milliseconds kMemoryLook{50};  // between two looks at the memory of all processes
constexpr size_t kErrorsKept = 4096;
constexpr const char* kNobody = "65534";

/// A descriptor that is closed at the end.
class OwnedFile {
 public:
  explicit OwnedFile(int fd) : fd_(fd) {}
  ~OwnedFile() { ::close(fd_); }
  OwnedFile(const OwnedFile&) = delete;
  OwnedFile& operator=(const OwnedFile&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

int memory_file() {
  const int fd = ::memfd_create("praetor-sandbox", MFD_CLOEXEC);
  if (fd < 0) throw TemporaryError("cannot make a file in memory: ", std::strerror(errno));
  return fd;
}

std::string text_of(int fd) {
  std::string out(4096, '\0');
  const ssize_t got = ::pread(fd, out.data(), out.size(), 0);
  out.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return out;
}

/// Resident bytes of a process and all that descend from it.
int64_t resident_bytes(pid_t pid) {
  const fs::path folder = str("/proc/", pid);
  int64_t pages = 0, resident = 0;
  std::ifstream(folder / "statm") >> pages >> resident;
  int64_t total = resident * ::sysconf(_SC_PAGESIZE);
  std::error_code gone;
  for (const auto& thread : fs::directory_iterator(folder / "task", gone)) {
    std::ifstream children(thread.path() / "children");
    for (pid_t child = 0; children >> child;) total += resident_bytes(child);
  }
  return total;
}

/// One run, from its start to its end.
class Run {
 public:
  Run(PipedChild& child, const SandboxLimits& limits, std::string_view input)
      : child_(child),
        limits_(limits),
        input_(input),
        end_(steady_clock::now() + limits.wall),
        look_(steady_clock::now() + kMemoryLook) {
    if (input_.empty()) child_.close_input();
  }

  /// Until the program closes its stdout, or is over a limit.
  End watch(const Deadline& deadline) {
    for (;;) {
      pollfd wanted[] = {
          {child_.output(), POLLIN, 0}, {child_.errors(), POLLIN, 0}, {child_.input(), POLLOUT, 0}};
      ::poll(wanted, 3, kPollMs);
      if (wanted[1].revents != 0) read_errors();
      if (wanted[2].revents != 0) write_input();
      if (wanted[0].revents != 0) {
        const bool open = read_some(child_.output(), output_);
        if (static_cast<int64_t>(output_.size()) > limits_.output_bytes) return End::kOutput;
        if (!open) return End::kExited;
      }
      deadline.check();
      const auto now = steady_clock::now();
      if (now >= end_) return End::kWall;
      if (now >= look_) {
        if (resident_bytes(child_.pid()) > limits_.memory_bytes) return End::kMemory;
        look_ = now + kMemoryLook;
      }
    }
  }

  SandboxResult result(End end) {
    SandboxResult out;
    // A program may close its stdout and go on; it has the rest of its time.
    const auto left = std::chrono::duration_cast<milliseconds>(end_ - steady_clock::now());
    const bool killed = end != End::kExited;
    const int status = child_.collect(killed ? milliseconds(0) : std::max(left, milliseconds(0)));
    for (int pass = 0; pass < 64 && child_.errors() >= 0; ++pass) read_errors();
    out.end = end;
    out.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (!killed && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) out.end = End::kWall;
    if (!killed && out.status == 128 + SIGXCPU) out.end = End::kCpu;
    out.output = output_.substr(0, static_cast<size_t>(limits_.output_bytes));
    out.errors = errors_;
    return out;
  }

 private:
  void read_errors() {
    if (!read_some(child_.errors(), errors_)) child_.close_errors();
    if (errors_.size() > kErrorsKept) errors_.erase(0, errors_.size() - kErrorsKept);
  }

  void write_input() {
    const ssize_t put = write_quietly(child_.input(), input_);
    if (put > 0) input_.remove_prefix(static_cast<size_t>(put));
    const bool broken = put < 0 && errno != EAGAIN && errno != EINTR;
    if (broken || input_.empty()) child_.close_input();
  }

  PipedChild& child_;
  const SandboxLimits& limits_;
  std::string_view input_;
  const steady_clock::time_point end_;
  steady_clock::time_point look_;
  std::string output_, errors_;
};

}  // namespace

Sandbox::Sandbox(SandboxLimits limits, std::vector<fs::path> folders)
    : limits_(limits), folders_(std::move(folders)) {
  // The number of processes of root is never limited, and root's files are root's in there too.
  if (::geteuid() == 0) {
    prefix_ = {find_program("setpriv"), "--reuid", kNobody, "--regid", kNobody, "--clear-groups"};
  }
  try {
    prefix_.push_back(find_program("bwrap"));
  } catch (const MissingInput& failure) {
    throw MissingInput(failure.what(), "; install it (Debian: apt-get install bubblewrap)");
  }
}

std::vector<std::string> Sandbox::wrapped(const std::vector<std::string>& command,
                                          int filter,
                                          int report) const {
  std::vector<std::string> out = prefix_;
  const auto add = [&out](std::initializer_list<std::string> words) {
    out.insert(out.end(), words);
  };
  add({"--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"});
  add({"--uid", kNobody, "--gid", kNobody, "--hostname", "sandbox", "--clearenv"});
  add({"--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", "/tmp"});
  add({"--setenv", "LANG", "C.UTF-8", "--setenv", "PYTHONHASHSEED", "0"});
  add({"--ro-bind", "/usr", "/usr"});
  for (const std::string folder : {"/bin", "/lib", "/lib64"}) {
    std::error_code none;
    if (fs::is_symlink(folder, none)) {
      add({"--symlink", fs::read_symlink(folder).string(), folder});
    } else {
      add({"--ro-bind-try", folder, folder});
    }
  }
  for (const std::string path : {"/etc/ld.so.cache", "/etc/alternatives"})
    add({"--ro-bind-try", path, path});
  for (const std::string device : {"/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"})
    add({"--dev-bind", device, device});
  add({"--size", str(limits_.scratch_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp"});
  for (const fs::path& folder : folders_) add({"--ro-bind", folder.string(), folder.string()});
  add({"--remount-ro", "/", "--seccomp", str(filter), "--json-status-fd", str(report), "--"});
  out.insert(out.end(), command.begin(), command.end());
  return out;
}

SandboxResult Sandbox::run(const std::vector<std::string>& command,
                           std::string_view input,
                           const Deadline& deadline) const {
  deadline.check();
  const OwnedFile filter(filter_.open()), report(memory_file());
  const int handed_on[] = {filter.get(), report.get()};
  PipedChild child(wrapped(command, filter.get(), report.get()), handed_on);
  Run run(child, limits_, input);
  SandboxResult result = run.result(run.watch(deadline));
  // bubblewrap tells a status only of a program that it could start.
  if (result.end == End::kExited && text_of(report.get()).find("exit-code") == std::string::npos) {
    throw TemporaryError(
        "the sandbox cannot be made: ",
        printable(result.errors, 300),
        "; are unprivileged user namespaces allowed here (sysctl user.max_user_namespaces, the "
        "container's seccomp profile)?");
  }
  return result;
}

}  // namespace praetor
