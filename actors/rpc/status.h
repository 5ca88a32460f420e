#pragma once

#include <grpcpp/support/status.h>

#include <exception>
#include <string>

namespace praetor::rpc {

/// Errors as statuses and back: the class travels in the status's details, so that the caller
/// catches what the interface threw.

/// Of the exception in flight. One that is no Error becomes an InternalError.
grpc::Status status_of(const std::exception_ptr& error);

/// The call reached the interface and this is its answer (the status holds a class).
bool is_answer(const grpc::Status& status);

/// The server does not take us for a member of its run.
bool is_refusal(const grpc::Status& status);

/// The same call may succeed later: the server is out of reach, ends, is overloaded, or was too
/// slow.
bool is_transient(const grpc::Status& status);

/// Throws what a failed status that is not transient stands for; `where` begins the message of
/// those that no interface threw.
[[noreturn]] void throw_status(const grpc::Status& status, const std::string& where);

/// "UNAVAILABLE: connection refused"
std::string describe(const grpc::Status& status);

}  // namespace praetor::rpc
