#pragma once

namespace praetor::rpc {

/// Sends what gRPC and Protobuf say by themselves to our log, as debug lines: a stranger's junk
/// must not fill it. The first call counts; any thread.
void adopt_library_logs();

}  // namespace praetor::rpc
