#include "core/base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>

#include "core/base/error.h"
#include "core/base/log_context.h"

namespace praetor::log {

namespace {

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

struct Sinks {
  std::shared_ptr<spdlog::sinks::stderr_sink_mt> terminal =
      std::make_shared<spdlog::sinks::stderr_sink_mt>();
  std::shared_ptr<spdlog::logger> logger = std::make_shared<spdlog::logger>("praetor", terminal);
  Sinks() { terminal->set_pattern("%l: %v"); }
};

std::atomic<int64_t> current_step{-1};
std::atomic<bool> has_role{false};

/// "step 12 ", in lines of a role alone.
std::string step_text() {
  const int64_t step = current_step.load();
  return has_role && step >= 0 ? str("step ", step, " ") : std::string();
}

Sinks& sinks() {
  static Sinks instance;
  return instance;
}

}  // namespace

void write(Level level, const std::string& message) {
  if (!has_role) {
    sinks().logger->log(to_spdlog(level), "{}", message);
    return;
  }
  static constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  sinks().logger->log(
      to_spdlog(level), "{}{}: {}", step_text(), kNames[static_cast<int>(level)], message);
}

void set_role(const std::string& role) {
  has_role = true;
  sinks().logger->set_pattern(str("%Y-%m-%dT%H:%M:%S.%e ", role, " %v"));
}

void set_step(int64_t step) {
  current_step = step;
}

void set_level(Level level) {
  sinks().logger->set_level(to_spdlog(level));
}

void add_file(const std::filesystem::path& file) {
  try {
    auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file.string());
    sink->set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
    sinks().logger->sinks().push_back(sink);
    sinks().logger->flush_on(spdlog::level::info);
  } catch (const spdlog::spdlog_ex& failure) {
    throw IoError("cannot open the log ", file.string(), ": ", failure.what());
  }
}

void set_stderr(bool on) {
  sinks().terminal->set_level(on ? spdlog::level::trace : spdlog::level::off);
}

}  // namespace praetor::log
