#include "actors/rpc/library_logs.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include <mutex>
#include <string>

#include "core/base/log.h"
#include "core/base/str.h"

namespace praetor::rpc {

namespace {

void grpc_line(gpr_log_func_args* args) {
  log::debug(str("gRPC: ", args->file, ":", args->line, ": ", args->message));
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

}  // namespace praetor::rpc
