#include "actors/launch/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "core/base/exec_child.h"
#include "core/base/lasting_thread.h"
#include "core/base/log.h"
#include "core/base/program.h"
#include "core/base/text.h"

namespace praetor {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

/// Owns a file descriptor, above those of stdin, stdout and stderr.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {
    if (fd < 0 || fd > STDERR_FILENO) return;
    fd_ = ::fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    ::close(fd);
  }
  ~Descriptor() { close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  void close() {
    if (fd_ >= 0) ::close(release());
  }

 private:
  int fd_;
};

std::vector<std::string> environment_with(const std::map<std::string, std::string>& added) {
  std::vector<std::string> out;
  for (char** at = environ; at != nullptr && *at != nullptr; ++at) {
    const std::string entry = *at;
    if (!added.count(entry.substr(0, entry.find('=')))) out.push_back(entry);
  }
  for (const auto& [name, value] : added)
    out.push_back(std::string(name).append("=").append(value));
  return out;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

std::string shown(const std::vector<std::string>& argv) {
  std::string out;
  for (const std::string& word : argv) {
    const bool plain = !word.empty() && word.find_first_of(" \t\n'\"\\$*?&|;<>()`~#") == word.npos;
    if (!out.empty()) out += ' ';
    if (plain) {
      out += word;
    } else {
      out.append("'").append(word).append("'");
    }
  }
  return printable(out, 400);
}

}  // namespace

ChildProcess::ChildProcess(ChildCommand command) : command_(std::move(command)) {
  if (command_.argv.empty() || command_.argv[0].empty())
    throw InvalidArgument("launch: an empty command");
  oom_file_ = oom_kill_file();
  if (oom_file_) oom_kills_ = oom_kill_count(*oom_file_);
  start();
}

void ChildProcess::start() {
  std::vector<std::string> argv = command_.argv;
  std::vector<std::string> environment = environment_with(command_.environment);
  const std::string program = find_program(argv[0]);
  const std::vector<char*> argv_pointers = pointers(argv);
  const std::vector<char*> environment_pointers = pointers(environment);

  const Descriptor input(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (input.get() < 0) throw IoError("cannot open /dev/null: ", std::strerror(errno));
  const Descriptor output(open_log());
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    throw TemporaryError("cannot make a pipe: ", std::strerror(errno));
  const Descriptor from_child(ends[0]);
  Descriptor to_us(ends[1]);

  ChildPlan plan;
  plan.program = program.c_str();
  plan.argv = argv_pointers.data();
  plan.environment = environment_pointers.data();
  plan.parent = ::getpid();
  plan.input = input.get();
  plan.output = plan.errors = output.get();
  plan.failure = to_us.get();
  int code = 0;
  started_ = steady_clock::now();
  on_lasting_thread([&] {
    pid_ = ::fork();
    code = errno;
    if (pid_ == 0) exec_child(plan);
  });
  if (pid_ < 0)
    throw TemporaryError("cannot start ", shown(command_.argv), ": ", std::strerror(code));
  to_us.close();
  code = read_exec_failure(from_child.get());
  if (code != 0) {
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
    const std::string message =
        str("cannot start ", shown(command_.argv), " (", program, "): ", std::strerror(code));
    if (code == ENOENT || code == ENOTDIR) throw MissingInput(message);
    if (code == EAGAIN || code == ENOMEM || code == EMFILE || code == ENFILE)
      throw TemporaryError(message);
    throw IoError(message);
  }
  handle_ = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
}

ChildProcess::~ChildProcess() {
  if (!report_) {
    kill("who started it is done with it");
    // A process in the kernel's hands (a dead network disk) may not even die by SIGKILL.
    if (!wait(milliseconds(10'000)))
      log::error(str("process ", pid_, " (", shown(command_.argv), ") does not end"));
  }
  if (handle_ >= 0) ::close(handle_);
}

int ChildProcess::open_log() {
  const fs::path& file = command_.log_file;
  if (file.empty()) return -1;
  std::error_code ignored;
  if (file.has_parent_path()) fs::create_directories(file.parent_path(), ignored);
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) throw IoError("cannot open the log ", file.string(), ": ", std::strerror(errno));
  struct stat info {};
  if (::fstat(fd, &info) == 0) log_begin_ = info.st_size;
  return fd;
}

const ExitReport* ChildProcess::poll() {
  if (report_) return &*report_;
  siginfo_t info{};
  int result = 0;
  do {
    result = ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT);
  } while (result != 0 && errno == EINTR);
  if (result == 0 && info.si_pid == 0) return nullptr;
  collect();
  return &*report_;
}

void ChildProcess::collect() {
  // While the leader is a zombie nobody else can get its group's number.
  ::kill(-pid_, SIGKILL);
  int status = 0;
  rusage usage{};
  pid_t got = 0;
  do {
    got = ::wait4(pid_, &status, 0, &usage);
  } while (got < 0 && errno == EINTR);

  ExitReport report;
  report.command = shown(command_.argv);
  report.pid = pid_;
  report.killed_by = killed_by_;
  report.run_time = std::chrono::duration_cast<milliseconds>(steady_clock::now() - started_);
  if (got < 0) {
    report.status = -1;  // SIGCHLD is ignored, or somebody waits for every child
  } else {
    if (WIFSIGNALED(status)) report.signal = WTERMSIG(status);
    if (WIFEXITED(status)) report.status = WEXITSTATUS(status);
    report.peak_memory_bytes = int64_t{usage.ru_maxrss} << 10;
  }
  if (report.exit_status() == 128 + SIGKILL && !sent_kill_) {
    const auto kills = oom_file_ ? oom_kill_count(*oom_file_) : std::nullopt;
    const bool rose = kills && oom_kills_ && *kills > *oom_kills_;
    report.memory = rose ? ExitReport::Memory::kSeen : ExitReport::Memory::kSuspected;
  }
  report.log_file = command_.log_file;
  if (!report.log_file.empty())
    report.log_tail = log_tail(report.log_file, log_begin_, command_.tail_lines);
  report_ = std::move(report);
}

const ExitReport* ChildProcess::wait(milliseconds timeout) {
  const auto end = steady_clock::now() + timeout;
  for (;;) {
    if (const ExitReport* report = poll()) return report;
    const auto left = std::chrono::ceil<milliseconds>(end - steady_clock::now());
    if (left.count() <= 0) return nullptr;
    if (handle_ < 0) {
      std::this_thread::sleep_for(std::min(left, milliseconds(5)));
    } else {
      pollfd wanted{handle_, POLLIN, 0};
      ::poll(&wanted, 1, static_cast<int>(std::min<int64_t>(left.count(), 1'000'000)));
    }
  }
}

void ChildProcess::signal(int number) {
  if (!report_) ::kill(-pid_, number);
}

void ChildProcess::kill(const std::string& why) {
  if (report_) return;
  killed_by_ = why;
  sent_kill_ = true;
  signal(SIGKILL);
}

void ChildProcess::ask_to_end(const std::string& why) {
  if (report_) return;
  killed_by_ = why;
  signal(SIGTERM);
  signal(SIGCONT);
}

const ExitReport& ChildProcess::terminate(milliseconds grace, const std::string& why) {
  ask_to_end(why);
  if (!wait(grace)) {
    kill(str(why, "; SIGTERM had not ended it after ", grace.count(), " ms"));
    while (!wait(milliseconds(60'000)))
      log::warn(str("process ", pid_, " (", shown(command_.argv), ") does not end"));
  }
  return *report_;
}

}  // namespace praetor
