#pragma once

#include <signal.h>
#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "actors/launch/child_process.h"

namespace praetor::testing {

inline constexpr std::chrono::milliseconds kLong{20'000};

/// Asks until it holds, or a long time has passed.
template <typename Condition>
bool eventually(Condition holds) {
  const auto end = std::chrono::steady_clock::now() + kLong;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

inline std::string content(const std::filesystem::path& file) {
  std::stringstream out;
  out << std::ifstream(file).rdbuf();
  return out.str();
}

/// 'R', 'S', 'T' (stopped), 'Z'; '-' when there is no such process.
inline char state(pid_t pid) {
  const std::string stat = content("/proc/" + std::to_string(pid) + "/stat");
  const size_t at = stat.rfind(')');
  return at == stat.npos ? '-' : stat.at(at + 2);
}

/// Dead, whoever has yet to collect it.
inline bool dead(pid_t pid) {
  return state(pid) == '-' || state(pid) == 'Z';
}

inline ChildCommand shell(const std::string& script, const std::filesystem::path& log = {}) {
  ChildCommand command;
  command.argv = {"sh", "-c", script};
  command.log_file = log;
  return command;
}

}  // namespace praetor::testing
