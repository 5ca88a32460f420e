#pragma once

#include <string>

namespace praetor::rpc {

/// Sends what gRPC and Protobuf say by themselves to our log, as debug lines: a stranger's junk
/// must not fill it. The first call counts; any thread.
void adopt_library_logs();

/// What gRPC said of a TLS handshake that failed within the last seconds; empty when none did. It
/// does not say whose.
std::string last_handshake_failure();

}  // namespace praetor::rpc
