#include "actors/rpc/status.h"

#include <array>
#include <string_view>

#include "actors/controller/services.h"
#include "core/base/deadline.h"
#include "core/base/error.h"
#include "core/base/text.h"
#include "praetor/v1/common.pb.h"

namespace praetor::rpc {

namespace {

/// Status messages travel in headers of 8 KiB, each odd byte as three.
constexpr size_t kLongestMessage = 2000;

#define PRAETOR_ERROR_KINDS(X) \
  X(RefusedError)              \
  X(TimeoutError)              \
  X(InvalidArgument)           \
  X(ShapeError)                \
  X(ConfigError)               \
  X(DataError)                 \
  X(CheckpointError)           \
  X(MissingInput)              \
  X(IoError)                   \
  X(CollectiveError)           \
  X(RpcError)                  \
  X(TemporaryError)            \
  X(InternalError)

const char* kind_of(const Error& error) {
#define X(Kind) \
  if (dynamic_cast<const Kind*>(&error)) return #Kind;
  PRAETOR_ERROR_KINDS(X)
#undef X
  return "Error";
}

[[noreturn]] void throw_kind(const v1::ErrorDetail& detail,
                             grpc::StatusCode code,
                             const std::string& message) {
#define X(Kind) \
  if (detail.kind() == #Kind) throw Kind(message);
  PRAETOR_ERROR_KINDS(X)
#undef X
  throw Error(static_cast<ErrorCode>(code), detail.exit_status(), message);
}

grpc::Status status_with(const Error& error) {
  v1::ErrorDetail detail;
  detail.set_kind(kind_of(error));
  detail.set_exit_status(error.exit_status());
  std::string message = error.what();
  if (message.size() > kLongestMessage) {
    message.resize(kLongestMessage);
    message += " ... (cut)";
  }
  return {static_cast<grpc::StatusCode>(error.code()), message, detail.SerializeAsString()};
}

const char* name_of(grpc::StatusCode code) {
  static constexpr std::array kNames = {"OK",
                                        "CANCELLED",
                                        "UNKNOWN",
                                        "INVALID_ARGUMENT",
                                        "DEADLINE_EXCEEDED",
                                        "NOT_FOUND",
                                        "ALREADY_EXISTS",
                                        "PERMISSION_DENIED",
                                        "RESOURCE_EXHAUSTED",
                                        "FAILED_PRECONDITION",
                                        "ABORTED",
                                        "OUT_OF_RANGE",
                                        "UNIMPLEMENTED",
                                        "INTERNAL",
                                        "UNAVAILABLE",
                                        "DATA_LOSS",
                                        "UNAUTHENTICATED"};
  const auto index = static_cast<size_t>(code);
  return index < kNames.size() ? kNames[index] : "an unknown status";
}

/// gRPC says RESOURCE_EXHAUSTED for two things; only the lack of threads passes.
bool is_too_large(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED &&
         status.error_message().find("larger than max") != std::string::npos;
}

}  // namespace

grpc::Status status_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& known) {
    return status_with(known);
  } catch (const std::bad_alloc&) {
    return status_with(TemporaryError("out of memory"));
  } catch (const std::exception& other) {
    return status_with(InternalError(other.what()));
  } catch (...) {
    return status_with(InternalError("something was thrown that is no exception"));
  }
}

bool is_answer(const grpc::Status& status) {
  return !status.ok() && !status.error_details().empty();
}

bool is_refusal(const grpc::Status& status) {
  return status.error_code() == grpc::StatusCode::UNAUTHENTICATED ||
         (status.error_code() == grpc::StatusCode::PERMISSION_DENIED && !is_answer(status));
}

bool is_transient(const grpc::Status& status) {
  if (is_answer(status)) return false;
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::CANCELLED:  // a server that ends breaks calls off in this way
      return true;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return !is_too_large(status);
    default:
      return false;
  }
}

void throw_status(const grpc::Status& status, const std::string& where) {
  if (is_answer(status)) {
    v1::ErrorDetail detail;
    if (detail.ParseFromString(status.error_details())) {
      throw_kind(detail, status.error_code(), status.error_message());
    }
  }
  if (is_refusal(status)) throw RefusedError(where, ": ", describe(status));
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    throw RefusedError(where, ": the server does not offer this call");
  }
  if (is_too_large(status)) throw InvalidArgument(where, ": ", describe(status));
  throw RpcError(where, ": ", describe(status));
}

std::string describe(const grpc::Status& status) {
  const std::string message = printable(status.error_message(), 400);
  return str(name_of(status.error_code()), message.empty() ? "" : ": ", message);
}

}  // namespace praetor::rpc
