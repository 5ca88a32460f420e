#include "actors/rpc/library_logs.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include <chrono>
#include <mutex>
#include <string>

#include "core/base/log.h"
#include "core/base/str.h"

namespace praetor::rpc {

namespace {

using Clock = std::chrono::steady_clock;

/// The newest failed handshake: gRPC tells its log alone.
struct Failure {
  std::mutex mutex;
  std::string text;
  Clock::time_point when;
};

Failure& newest() {
  static Failure failure;
  return failure;
}

void grpc_line(gpr_log_func_args* args) {
  const std::string message = args->message;
  if (const size_t at = message.find("SSL routines::"); at != std::string::npos) {
    Failure& failure = newest();
    const std::lock_guard lock(failure.mutex);
    failure.text = message.substr(at + sizeof("SSL routines::") - 1);
    if (const size_t end = failure.text.find_last_not_of(". \n"); end != std::string::npos)
      failure.text.resize(end + 1);
    failure.when = Clock::now();
  }
  log::debug(str("gRPC: ", args->file, ":", args->line, ": ", message));
}

void protobuf_line(google::protobuf::LogLevel,
                   const char* file,
                   int line,
                   const std::string& message) {
  log::debug(str("Protobuf: ", file, ":", line, ": ", message));
}

}  // namespace

void adopt_library_logs() {
  static std::once_flag once;
  std::call_once(once, [] {
    gpr_set_log_function(grpc_line);
    google::protobuf::SetLogHandler(protobuf_line);
  });
}

std::string last_handshake_failure() {
  Failure& failure = newest();
  const std::lock_guard lock(failure.mutex);
  return Clock::now() - failure.when < std::chrono::seconds(5) ? failure.text : std::string();
}

}  // namespace praetor::rpc
