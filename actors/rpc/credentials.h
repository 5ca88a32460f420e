#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>

#include "actors/rpc/tls.h"

namespace praetor::rpc {

/// Mutual TLS with an identity; plain text without one.
std::shared_ptr<grpc::ServerCredentials> server_credentials(const TlsIdentity* identity);
std::shared_ptr<grpc::ChannelCredentials> channel_credentials(const TlsIdentity* identity);

}  // namespace praetor::rpc
