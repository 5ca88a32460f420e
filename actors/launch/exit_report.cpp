#include "actors/launch/exit_report.h"

#include <string.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "core/base/error.h"
#include "core/base/text.h"

namespace praetor {

namespace fs = std::filesystem;

namespace {

constexpr int kShell = 128;  // a shell's status of what a signal ended is this and the signal

std::string rounded(double value, const char* unit) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.1f %s", value, unit);
  return text;
}

/// The number after `key` in lines of "key number".
std::optional<int64_t> number_of(const fs::path& file, const std::string& key) {
  std::ifstream in(file);
  std::string word;
  int64_t value = 0;
  while (in >> word >> value) {
    if (word == key) return value;
  }
  return std::nullopt;
}

}  // namespace

std::string exit_status_meaning(int status) {
  switch (status) {
    case kExitDone:
      return "done";
    case kExitGoalMissed:
      return "the job ended, its goal was not met";
    case kExitUsage:
      return "wrong usage";
    case kExitBadData:
      return "bad data, model or checkpoint";
    case kExitMissingInput:
      return "missing input";
    case kExitBug:
      return "a mistake of Praetor's own";
    case kExitIo:
      return "disk or I/O";
    case kExitTemporary:
      return "temporary";
    case kExitRefused:
      return "refused: secret or certificate";
    case kExitBadJob:
      return "bad job file";
    case 126:
      return "a program that cannot be run";
    case 127:
      return "no such program";
    default:
      return status > kShell && sigabbrev_np(status - kShell) ? signal_name(status - kShell) : "";
  }
}

std::string signal_name(int number) {
  const char* name = sigabbrev_np(number);
  return name ? std::string("SIG").append(name) : str("signal ", number);
}

bool ExitReport::worth_retrying() const {
  if (signal != 0) return true;
  return status != kExitUsage && status != kExitBadData && status != kExitMissingInput &&
         status != kExitRefused && status != kExitBadJob;
}

std::string ExitReport::how() const {
  std::string out;
  if (signal != 0) {
    out = "killed by " + signal_name(signal);
  } else if (status < 0) {
    out = "ended; its status went to another part of this process";
  } else {
    const std::string meaning = exit_status_meaning(status);
    out = str("exit status ", status);
    if (!meaning.empty()) out += " (" + meaning + ")";
  }
  if (!killed_by.empty()) out += "; we ended it: " + killed_by;
  if (memory == Memory::kSeen) out += "; out of memory: the kernel counted such a kill meanwhile";
  if (memory == Memory::kSuspected) out += "; nobody here sent that: out of memory?";
  return out;
}

std::string ExitReport::text() const {
  std::string out = how() + '\n';
  out += str("pid ", pid, ", ran ", rounded(static_cast<double>(run_time.count()) * 1e-3, "s"));
  if (peak_memory_bytes > 0) {
    out += ", peak memory " + rounded(static_cast<double>(peak_memory_bytes) / (1 << 20), "MiB");
  }
  out += "\ncommand: " + command + '\n';
  if (!log_file.empty()) {
    out += log_tail.empty() ? "nothing in " : "the end of ";
    out += log_file.string() + '\n';
    for (const std::string& line : log_tail) out += "  | " + line + '\n';
  }
  return out;
}

std::optional<fs::path> oom_kill_file(const fs::path& cgroups, const fs::path& self) {
  std::ifstream in(self);
  std::string line;
  std::vector<fs::path> candidates;
  while (std::getline(in, line)) {  // NUMBER:CONTROLLERS:/PATH
    const size_t first = line.find(':');
    const size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
    if (second == line.npos || second + 1 >= line.size() || line[second + 1] != '/') continue;
    const std::string controllers = ',' + line.substr(first + 1, second - first - 1) + ',';
    const std::string inside = line.substr(second + 2);
    // The path may be one of another cgroup namespace; the mount's top is then our group.
    if (controllers == ",,") {
      candidates.push_back(cgroups / inside / "memory.events");
      candidates.push_back(cgroups / "memory.events");
    } else if (controllers.find(",memory,") != controllers.npos) {
      candidates.push_back(cgroups / "memory" / inside / "memory.oom_control");
      candidates.push_back(cgroups / "memory" / "memory.oom_control");
    }
  }
  const auto readable =
      std::find_if(candidates.begin(), candidates.end(), [](const fs::path& file) {
        return oom_kill_count(file).has_value();
      });
  return readable == candidates.end() ? std::nullopt : std::optional(*readable);
}

std::optional<int64_t> oom_kill_count(const fs::path& file) {
  return number_of(file, "oom_kill");
}

std::vector<std::string> log_tail(const fs::path& file, int64_t from, int64_t lines) {
  constexpr int64_t kMost = 64 << 10;
  constexpr size_t kWidth = 200;
  std::ifstream in(file, std::ios::binary | std::ios::ate);
  if (!in) return {};
  const int64_t size = in.tellg();
  const int64_t begin = std::max(from > size ? 0 : from, size - kMost);
  in.seekg(begin);
  std::vector<std::string> all;
  std::string line;
  // Where only a part is read, its first line is one too.
  if (begin > 0 && begin != from) std::getline(in, line);
  while (std::getline(in, line)) all.push_back(printable(line, kWidth));
  if (static_cast<int64_t>(all.size()) > lines) all.erase(all.begin(), all.end() - lines);
  return all;
}

}  // namespace praetor
